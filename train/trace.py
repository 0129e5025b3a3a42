"""From a step of a training to the samples that it saw, and from a sample to the steps that saw it.

No torch: the plan says it all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlmill.mixtures.lineage import LineageTables
from vlmill.mixtures.reader import PlannedMixture, Segment, read_columns
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.other_names import offer_names
from vlmill.pipeline.recipe.schema import Stage
from vlmill.train.settings import read_training_settings
from vlmill.train.steps import StepSequences, count_steps


@dataclass(frozen=True, slots=True)
class SeenSegment:
    """A segment that a step saw, and where it came from."""

    sequence: int  # of the plan
    id: str
    first: int  # nodes [first, last) of the sample as the shard has it
    last: int | None
    tokens: int | None
    url: str  # of the document, where it has one
    images: tuple[
        tuple[str, str], ...
    ]  # (address or page, sha256 of the bytes as they came) of each image of the segment
    begin: int = 0  # from this token of the first node
    end: int = -1  # to this token of the last node; -1: all of it


def list_seen(root: Path, stage: str | None, step: int) -> Iterator[SeenSegment]:
    """Everything that a step saw, on all ranks, in the order of the plan.

    Raises:
        RecipeError: there is no such stage, or it has no such step.
        StoreError: the mixture is missing.
    """
    found, scale = _find_stage(root, stage)
    mixture, training = PlannedMixture(root, found.name), read_training_settings(found, scale)
    steps = count_steps(training, mixture.sequences)
    if not 0 <= step < steps:
        raise RecipeError(f"--step {step}: stage {found.name!r} has steps 0 to {steps - 1}")
    lineages = LineageTables(mixture)
    for sequence in StepSequences(mixture, training).list_numbers(step):
        for segment in mixture.sequence(sequence):
            yield _describe_seen(lineages, sequence, segment)


def find_steps(root: Path, stage: str, name: str) -> list[int]:
    """The steps of a stage that saw the sample called `name`, in order.

    Raises:
        RecipeError: there is no such stage.
        StoreError: the mixture is missing.
    """
    found, scale = _find_stage(root, stage)
    mixture, training = PlannedMixture(root, found.name), read_training_settings(found, scale)
    steps = StepSequences(mixture, training)
    found_in = {
        step
        for source, shard, place in find_sample(mixture, name)
        for sequence in find_sequences(mixture, source, shard, place)
        for step in steps.find_steps(sequence)
    }
    return sorted(found_in)


def list_trained_stages(root: Path) -> list[str]:
    """The stages of a run that have a mixture and settings to train on it."""
    stages = read_locked_recipe(root).stages
    return [stage.name for stage in stages if stage.train and (root / "mixtures" / stage.name).exists()]


def _find_stage(root: Path, name: str | None) -> tuple[Stage, float]:
    """A stage by its name, or the only one; and the scale of the recipe."""
    recipe = read_locked_recipe(root)
    stages = {stage.name: stage for stage in recipe.stages}
    if name is None and len(stages) == 1:
        return recipe.stages[0], recipe.scale
    if not stages:
        raise RecipeError(f"--step: {root} has no stages, so nothing is trained in steps")
    if name is None:
        raise RecipeError(f"--step: the recipe has several stages, say which with --stage: {', '.join(stages)}")
    if name not in stages:
        raise RecipeError(f"--stage {name}: the recipe has no such stage; {offer_names(recipe, name, stages)}")
    return stages[name], recipe.scale


def _describe_seen(lineages: LineageTables, sequence: int, segment: Segment) -> SeenSegment:
    line = lineages.find(segment)
    nodes = line["nodes"][segment.first : segment.last]
    images = tuple((node["url"] or "", node["sha256"]) for node in nodes if node["sha256"] is not None)
    return SeenSegment(
        sequence,
        line["id"],
        segment.first,
        segment.last,
        segment.tokens,
        line["url"],
        images,
        segment.begin,
        segment.end,
    )


def find_sample(mixture: PlannedMixture, name: str, below: str = "") -> Iterator[tuple[int, int, int]]:
    """Where a sample lies in the mixture's shards whose path begins with `below`: (source, shard, row)."""
    for source, listed in enumerate(mixture.lock["sources"]):
        for shard, file in enumerate(listed["shards"]):
            if not file["path"].startswith(below):
                continue
            ids = read_columns(mixture.root / file["index"], file["index_sha256"], ["id"])["id"].to_pylist()
            if name in ids:
                yield source, shard, ids.index(name)


def find_sequences(mixture: PlannedMixture, source: int, shard: int, row: int) -> Iterator[int]:
    """The sequences of the plan that hold segments of a sample."""
    for block in mixture.lock["plan"]["blocks"]:
        table = read_columns(mixture.folder / block["path"], block["sha256"], ["segments"])
        segments = table["segments"].combine_chunks()
        flat = segments.flatten()
        hit = np.logical_and.reduce(
            [
                flat.field(name).to_numpy() == value
                for name, value in (("source", source), ("shard", shard), ("row", row))
            ]
        )
        yield from (block["first"] + int(place) for place in np.unique(segments.value_parent_indices().to_numpy()[hit]))
