"""The barrier of clusters: from the vectors of all partitions to centroids and sizes, and each partition's values.

Part of the phase `signals`, behind the models (scoring.py). The steps are in pipeline/steps/clusters.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vlmill.pipeline.core.step import Step
from vlmill.pipeline.engine.chain import Chain, ChainStep
from vlmill.pipeline.engine.store import File, total_counts
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.signals.clusters import Clusters
from vlmill.pipeline.steps.clusters import (
    AssignClusters,
    CountClusters,
    SampleVectors,
    TrainCentroids,
    ValueClusters,
)

if TYPE_CHECKING:
    from vlmill.pipeline.engine.build import Build


def find_clusters(run: Build) -> tuple[File, ...]:
    """Centroids and sizes of every signal of clusters, and the values of each partition, made where they are missing.

    The files that are of the whole run are returned, for chains over partitions.
    """
    return tuple(
        file for name, settings in run.recipe.clusters.items() for file in _find_clusters_of(run, name, settings)
    )


def list_cluster_steps(recipe: Recipe, source: str) -> Iterator[ChainStep]:
    """The steps of a partition that say in which clusters it is, for chains that know centroids and sizes."""
    for name, settings in recipe.clusters.items():
        yield ChainStep(f"steps/{source}/{name}/assigned", AssignClusters(name, settings.of))
        yield ChainStep(f"steps/{source}/{name}", ValueClusters(name, settings))


def list_run_steps(name: str, settings: Clusters) -> tuple[ChainStep, ...]:
    """The steps over the whole run, in their order."""
    return (
        ChainStep(f"steps/signals/{name}/centroids", TrainCentroids(name, settings)),
        ChainStep(f"steps/signals/{name}/sizes", CountClusters(name)),
    )


def _find_clusters_of(run: Build, name: str, settings: Clusters) -> tuple[File, ...]:
    train, count = list_run_steps(name, settings)
    sampled = _run_each(run, f"{name}: sample", settings, [(f"{name}/sample", _make_sample(run, name, settings))])
    centroids = _run_once(run, f"{name}: centroids", train, sampled)
    assign = [(f"{name}/assigned", AssignClusters(name, settings.of))]
    assigned = _run_each(run, f"{name}: assign", settings, assign, centroids)
    sizes = _run_once(run, f"{name}: sizes", count, (*centroids, *assigned))
    _run_each(run, f"{name}: values", settings, [*assign, (name, ValueClusters(name, settings))], (*centroids, *sizes))
    return (*centroids, *sizes)


def _make_sample(run: Build, name: str, settings: Clusters) -> SampleVectors:
    """The step that samples the vectors of a partition.

    How many of all are wanted is known from the counts of the embedding, so each partition leaves its share alone.
    """
    receipts = [receipt for source in run.partitions for receipt in run.manifest(f"steps/{source}/{settings.of}")]
    there = total_counts(receipts)["scored"].kept if receipts else 0
    wanted = settings.clusters * settings.per_cluster
    bound = (1 << 64) - 1 if wanted >= there else (wanted << 64) // there
    return SampleVectors(name, settings.of, settings.seed, bound)


def _run_each(
    run: Build, phase: str, settings: Clusters, steps: Sequence[tuple[str, Step]], more: tuple[File, ...] = ()
) -> tuple[File, ...]:
    """Steps over each partition's vectors, with their folders below the source's.

    What the last one left is named `<source>/<partition>/<name>`.
    """
    chains = [
        Chain(
            receipt.partition,
            tuple(ChainStep(f"steps/{source}/{folder}", step) for folder, step in steps),
            files=(*receipt.files, *more),
        )
        for source in sorted(run.partitions)
        for receipt in run.manifest(f"steps/{source}/{settings.of}")
    ]
    for _ in run.run_chains(f"signals: {phase}", chains):
        pass
    return run.gather_files(steps[-1][0])


def _run_once(run: Build, phase: str, step: ChainStep, files: tuple[File, ...]) -> tuple[File, ...]:
    ((_, receipts),) = run.run_chains(f"signals: {phase}", [Chain("all", (step,), files=files)])
    return receipts[-1][1].files
