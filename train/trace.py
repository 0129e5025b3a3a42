"""From a step of a training to the samples that it saw, and from a sample to the steps that saw it.

No torch: the plan says it all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vlmill.mixtures.lineage import LineageTables
from vlmill.mixtures.placement import explain_unplanned, find_sample, find_segments, find_sequences, list_unplanned
from vlmill.mixtures.reader import PlannedMixture, Segment
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
    id: str  # of the sample
    first: int  # nodes [first, last) of the sample as the shard has it
    last: int | None  # None: to the end
    tokens: int | None  # of the segment, None where it is not planned
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


@dataclass(frozen=True, slots=True)
class StageUse:
    """What a stage makes of a sample."""

    sequences: list[int]  # of the plan, that hold segments of it, in order
    steps: list[int]  # of the training, that read these, in order; none of a stage without a `train` block
    why: str  # why there is no sequence, or no step reads one; empty where one does
    left: list[int] = field(default_factory=list)  # nodes that shards have and none of the sequences holds, in order


def find_steps(root: Path, stage: str, name: str) -> list[int]:
    """The steps of a stage that saw the sample called `name`, in order.

    Raises:
        RecipeError: there is no such stage.
        StoreError: the mixture is missing.
    """
    found, scale = _find_stage(root, stage)
    mixture = PlannedMixture(root, found.name)
    places = find_sample(mixture, name)
    return _find_steps(mixture, found, scale, (one for place in places for one in find_sequences(mixture, *place)))


def _find_steps(mixture: PlannedMixture, stage: Stage, scale: float, sequences: Iterable[int]) -> list[int]:
    steps = StepSequences(mixture, read_training_settings(stage, scale))
    return sorted({step for sequence in sequences for step in steps.find_steps(sequence)})


def find_use(root: Path, stage: str, name: str) -> StageUse:
    """What a stage makes of the kept sample called `name`, or why nothing.

    Raises:
        RecipeError: there is no such stage.
        StoreError: the mixture is missing, or its tables are not those that it was made of.
    """
    found, scale = _find_stage(root, stage)
    mixture = PlannedMixture(root, found.name)
    places = list(find_sample(mixture, name))
    if not places:
        return StageUse([], [], _explain_absence(root, found, name.partition("/")[0]))
    held = [list(find_segments(mixture, *place)) for place in places]
    sequences = sorted({sequence for segments in held for sequence, _ in segments})
    if not sequences:
        return StageUse([], [], "; ".join(dict.fromkeys(explain_unplanned(mixture, *place) for place in places)))
    unplanned = [
        {*list_unplanned(mixture, Segment(*place), [segment for _, segment in segments])}
        for place, segments in zip(places, held, strict=True)
    ]
    left = sorted(set.intersection(*unplanned))  # of entries that share a source each has a place
    if not found.train:
        return StageUse(sequences, [], "the stage has no train block", left)
    steps = _find_steps(mixture, found, scale, sequences)
    training = count_steps(read_training_settings(found, scale), mixture.sequences)
    why = "" if steps else f"its {training:,} steps end before they come to it"
    return StageUse(sequences, steps, why, left)


def _explain_absence(root: Path, stage: Stage, source: str) -> str:
    """Why no shard of a stage's mixture holds a sample of a source."""
    recipe = read_locked_recipe(root)
    if any(source in recipe.find_members(name, stage.list_entry_names()) for name in stage.list_entry_names()):
        return f"policy {stage.policy} put it in no shard"
    return f"its mixture does not name {source}"


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
