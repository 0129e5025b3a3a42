"""The phase `dedupe`: one barrier over all sources, between curation and shards.

It runs chains of one step each:

candidates   one task per bucket   what is worth comparing
pairs        one task per share    how similar it is
semantic     one task per bucket   how similar vectors of one cluster are, where the recipe asks for it
resolve      one task              which of the similar things go
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vlmill.pipeline.core.names import name_resolved_verdicts, name_verdicts
from vlmill.pipeline.core.step import Step
from vlmill.pipeline.engine.chain import Chain, ChainStep
from vlmill.pipeline.engine.store import File

if TYPE_CHECKING:
    from vlmill.pipeline.engine.build import Build


def resolve_duplicates(run: Build) -> None:
    """Find pairs over all sources, then say which of them go."""
    settings = run.recipe.dedupe
    if settings is None:
        return
    signatures = run.gather_files("signature")
    candidates = _run_each(run, "candidates", settings.candidates(), signatures)
    pairs = _run_each(run, "pairs", settings.pair_steps(), (*candidates, *signatures))
    if comparing := run.recipe.list_semantic_steps():
        pairs += _run_each(run, "semantic", comparing, run.gather_files("semantic"))
    filtered = tuple(file for filter_ in run.recipe.verdict_steps() for file in run.gather_files(filter_))
    stats_files, read = run.gather_files("image_stats"), run.gather_files("read")
    files = (*pairs, *candidates, *signatures, *filtered, *stats_files, *read)
    partitions = tuple(
        f"{source}/{partition.name}" for source in sorted(run.partitions) for partition in run.partitions[source]
    )
    step = run.recipe.resolve_step(settings, partitions)
    chain = Chain("all", (ChainStep("steps/dedupe/resolve", step),), files=files)
    for _ in run.run_chains("dedupe: resolve", [chain]):
        pass


def _run_each(run: Build, name: str, steps: Sequence[Step], files: tuple[File, ...]) -> tuple[File, ...]:
    """One chain per step, all over the same files; what they leave, named `<number>/<name>`."""
    chains = [
        Chain(f"{number:05d}", (ChainStep(f"steps/dedupe/{name}", step),), files=files)
        for number, step in enumerate(steps)
    ]
    found = [receipts[-1][1] for _, receipts in run.run_chains(f"dedupe: {name}", chains)]
    return tuple(
        replace(file, name=f"{receipt.partition}/{file.name}")
        for receipt in sorted(found, key=lambda receipt: receipt.partition)
        for file in receipt.files
    )


def list_verdicts(run: Build) -> dict[str, tuple[File]]:
    """What dedupe says of each partition, by `<source>/<partition>`."""
    if run.recipe.dedupe is None:
        return {}
    files = {file.name: file for file in run.manifest("steps/dedupe/resolve")[0].files}
    return {
        f"{partition.input_file.source}/{partition.name}": (
            replace(
                files[name_resolved_verdicts(f"{partition.input_file.source}/{partition.name}")],
                name=name_verdicts("dedupe"),
            ),
        )
        for partition in run.all_partitions()
    }
