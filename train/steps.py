"""Steps and the sequences of a plan: which sequences a step reads, and how many steps a plan feeds.

Arithmetic alone.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from vlmill.mixtures.algorithms.order import make_order_key, permute_index
from vlmill.pipeline.core.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vlmill.train.settings import Training

SHUFFLED = 4
"""Blocks whose shuffled order is held in memory."""


class PlanOrder:
    """Which sequence of a plan is read at each place of a training that passes over it again and again.

    The first epoch has the order of the plan, each later one an order of its own. As with the epochs of a source, the
    plan is halved for good: an epoch is one half, its blocks shuffled and the sequences of each block shuffled, then
    the other. So between two uses of a sequence lies the whole half that it is not of, and a reader has one block open
    at a time. Safe to share among threads.

    Args:
        starts: The first sequence of each block, and the number of all.
        seed: Of the mixture: trainings that differ in their own seed read the same.
    """

    def __init__(self, starts: Sequence[int], seed: int) -> None:
        self.planned, self._seed = starts[-1], seed
        middle = (self.planned + 1) // 2
        bounds = sorted({*starts, middle})
        pieces = list(pairwise(bounds))  # a block that the middle cuts is two of them
        self._halves = [[p for p in pieces if p[1] <= middle], [p for p in pieces if p[0] >= middle]]
        self._arrange = lru_cache(2)(self._arrange_pieces)
        self._shuffle = lru_cache(SHUFFLED)(self._shuffle_piece)

    @classmethod
    def of(cls, lock: Mapping[str, Any]) -> Self:
        """The order over the plan of a stage's lock."""
        starts = [block["first"] for block in lock["plan"]["blocks"]]
        return cls([*starts, lock["plan"]["sequences"]], lock["seed"])

    def sequence(self, place: int) -> int:
        """The number of the sequence at a place, counted from 0 through all epochs."""
        epoch, inside = divmod(place, self.planned)
        if epoch == 0:
            return inside
        pieces, starts = self._arrange(epoch)
        number = bisect_right(starts, inside) - 1
        first, last = pieces[number]
        return first + int(self._shuffle(epoch, first, last - first)[inside - starts[number]])

    def _arrange_pieces(self, epoch: int) -> tuple[list[tuple[int, int]], list[int]]:
        """The pieces of the plan in the order of an epoch, and where each begins in it."""
        arranged = [
            half[number]
            for side, half in enumerate(self._halves)
            for number in self._permute(len(half), "blocks", epoch, side)
        ]
        sizes = [last - first for first, last in arranged]
        return arranged, [0, *np.cumsum(sizes)[:-1].tolist()]

    def _shuffle_piece(self, epoch: int, first: int, size: int) -> np.ndarray:
        return self._permute(size, "sequences", epoch, first)

    def _permute(self, size: int, *parts: str | int) -> np.ndarray:
        return permute_index(np.arange(size), size, make_order_key(self._seed, "plan", *parts))


def list_step_sequences(
    step: int, sequences: int, order: PlanOrder, *, accumulation: int = 1, rank: int = 0, ranks: int = 1
) -> list[list[int]]:
    """The sequences of the plan that a rank reads in a step, cut into micro-batches.

    Step s of B sequences is places [s * B, (s + 1) * B) of the order; a rank's slice and its micro-batches are
    consecutive.
    """
    mine = sequences // ranks
    start, size = step * sequences + rank * mine, mine // accumulation
    return [
        [order.sequence(place) for place in range(first, first + size)] for first in range(start, start + mine, size)
    ]


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
