"""Steps and the sequences of a plan: which sequences a step reads, and how many steps a plan feeds.

Arithmetic alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmill.pipeline.core.errors import RecipeError

if TYPE_CHECKING:
    from vlmill.train.settings import Training


def list_step_sequences(
    step: int, sequences: int, planned: int, *, accumulation: int = 1, rank: int = 0, ranks: int = 1
) -> list[list[int]]:
    """The sequences of the plan that a rank reads in a step, cut into micro-batches.

    Step s of B sequences is sequences [s * B, (s + 1) * B) of the plan, which starts again at its end; a rank's slice
    and its micro-batches are consecutive.
    """
    mine = sequences // ranks
    start, size = step * sequences + rank * mine, mine // accumulation
    return [[number % planned for number in range(first, first + size)] for first in range(start, start + mine, size)]


def count_steps(training: Training, planned: int) -> int:
    """Steps of a stage over a plan of so many sequences.

    Raises:
        RecipeError: the plan has too few sequences.
    """
    if training.epochs is not None:
        steps, enough = training.epochs * planned // training.sequences, planned >= training.sequences
    else:
        steps = training.steps or 0
        enough = steps * training.sequences <= planned
    if not enough:
        raise RecipeError(
            f"train: {steps or 1} steps of {training.sequences} sequences want {(steps or 1) * training.sequences} "
            f"sequences, and the plan has {planned}; take fewer steps or sequences, a larger budget for the "
            "mixture, or epochs in place of steps to pass over the plan several times"
        )
    return steps
