"""The phases of a stage: stretches of its steps between which adapters change.

Most stages have one. At a change the loop ends with a checkpoint, and the next phase starts from it with other
adapters around the same weights (network.py). So a run that goes through a change and one that was killed there do
the same, on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmill.train.settings import Adapter, Training


@dataclass(frozen=True, slots=True)
class Phase:
    """Steps [first, last) of a stage, and the adapters that the model has had up to then, the present ones last."""

    first: int
    last: int
    adapters: tuple[Adapter, ...] = ()


def list_phases(training: Training, steps: int, before: Sequence[Adapter] = ()) -> tuple[Phase, ...]:
    """The phases of a stage of so many steps, in order; those that come to no step are passed over.

    Args:
        training: the settings.
        steps: of the stage.
        before: adapters of earlier stages that the first ones go on with, in the order in which they were there.
    """
    if not training.adapters:
        return (Phase(0, steps),)
    starts = [round(adapter.at * steps) for adapter in training.adapters]
    found = list[Phase]()
    for place, (first, last) in enumerate(zip(starts, [*starts[1:], steps], strict=True)):
        if first < last:
            found.append(Phase(first, last, (*before, *training.adapters[: place + 1])))
    return tuple(found)


def find_phase(phases: Sequence[Phase], done: int) -> int:
    """The place of the phase under which a checkpoint of `done` steps was written; the first where there is none."""
    return next((place for place, phase in enumerate(phases) if phase.first < done <= phase.last), 0)
