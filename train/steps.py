"""Steps and the rows of a plan: which rows a step reads, and how many steps a plan feeds. Arithmetic alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmill.pipeline.core.errors import RecipeError

if TYPE_CHECKING:
    from vlmill.train.settings import Training


def list_step_sequences(
    step: int, rows: int, plan_rows: int, *, accumulation: int = 1, rank: int = 0, ranks: int = 1
) -> list[list[int]]:
    """The plan rows that a rank reads in a step, cut into micro-batches.

    Step s of B rows is rows [s * B, (s + 1) * B) of the plan, which starts again at its end; a rank's slice and its
    micro-batches are consecutive.
    """
    mine = rows // ranks
    start, size = step * rows + rank * mine, mine // accumulation
    return [[number % plan_rows for number in range(first, first + size)] for first in range(start, start + mine, size)]


def count_steps(training: Training, plan_rows: int) -> int:
    """Steps of a stage over a plan of so many rows.

    Raises:
        RecipeError: the plan has too few rows.
    """
    if training.epochs is not None:
        steps, enough = training.epochs * plan_rows // training.rows, plan_rows >= training.rows
    else:
        steps = training.steps or 0
        enough = steps * training.rows <= plan_rows
    if not enough:
        raise RecipeError(
            f"train: {steps or 1} steps of {training.rows} rows want {(steps or 1) * training.rows} rows, and the plan has {plan_rows}; "
            "take fewer steps or rows, a larger budget for the mixture, or epochs in place of steps to pass over the plan several times"
        )
    return steps
