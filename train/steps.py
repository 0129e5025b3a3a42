"""Steps and the sequences of a plan: which sequences a step reads, and how many steps a plan feeds.

Nothing here knows of a model or of how many ranks there are.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from itertools import pairwise
from operator import index
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from vlmill.mixtures.algorithms.order import make_order_key, permute_index
from vlmill.pipeline.core.errors import RecipeError
from vlmill.train import balance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vlmill.mixtures.reader import PlannedMixture
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

    def find_place(self, sequence: int, epoch: int) -> int:
        """Where in an epoch a sequence of the plan is read."""
        if epoch == 0:
            return sequence
        pieces, starts = self._arrange(epoch)
        number = next(number for number, (first, last) in enumerate(pieces) if first <= sequence < last)
        first, last = pieces[number]
        return starts[number] + int(np.flatnonzero(self._shuffle(epoch, first, last - first) == sequence - first)[0])

    def _arrange_pieces(self, epoch: int) -> tuple[list[tuple[int, int]], list[int]]:
        """The pieces of the plan in the order of an epoch, and where each begins in it."""
        arranged = [
            half[number]
            for side, half in enumerate(self._halves)
            for number in self.permute(len(half), "blocks", epoch, side)
        ]
        sizes = [last - first for first, last in arranged]
        return arranged, [0, *np.cumsum(sizes)[:-1].tolist()]

    def _shuffle_piece(self, epoch: int, first: int, size: int) -> np.ndarray:
        return self.permute(size, "sequences", epoch, first)

    def permute(self, size: int, *parts: str | int) -> np.ndarray:
        """A shuffle of [0, size) by the mixture's seed."""
        return permute_index(np.arange(size), size, make_order_key(self._seed, "plan", *parts))


class StepSequences:
    """Which sequences of the plan each step of a training reads.

    Step s of B sequences reads places [s * B, (s + 1) * B) of the order. Where the stage's `ranks` would then wait for
    each other, several steps are a bucket: they share out their places so that the sequences of a step cost alike, and
    come in a keyed order. Behind a bucket everything is as without it. Safe to share among threads.

    Args:
        mixture: Of the stage.
        training: Its settings.
    """

    def __init__(self, mixture: PlannedMixture, training: Training) -> None:
        self.order, self._mixture = PlanOrder.of(mixture.lock), mixture
        self.size, self.steps = training.sequences, count_steps(training, mixture.sequences)
        self.bucket = 1
        if training.ranks is not None:
            first = range(min(balance.LOOKED_AT * self.size, mixture.sequences))
            self.bucket = balance.choose_bucket(
                mixture.measure(first), self.size, training.ranks, training.accumulation
            )
        self._share_out = lru_cache(2)(self._share_out_bucket)

    def list_numbers(self, step: int) -> list[int]:
        """The sequences of a step, in the order of their places."""
        number, inside = divmod(step, self.bucket)
        return self._share_out(number)[inside]

    def find_steps(self, sequence: int) -> list[int]:
        """The steps that read a sequence, in order."""
        epochs = range(-(-self.steps * self.size // self.order.planned))
        places = (epoch * self.order.planned + self.order.find_place(sequence, epoch) for epoch in epochs)
        buckets = sorted({place // (self.size * self.bucket) for place in places})
        steps = (range(number * self.bucket, min((number + 1) * self.bucket, self.steps)) for number in buckets)
        return [step for some in steps for step in some if sequence in self.list_numbers(step)]

    def _share_out_bucket(self, number: int) -> list[list[int]]:
        """The sequences of each step of a bucket."""
        first = number * self.bucket
        steps = min(self.bucket, self.steps - first)
        places = range(first * self.size, (first + steps) * self.size)
        numbers = [self.order.sequence(place) for place in places]
        if steps == 1:
            return [numbers]
        alike = balance.group_alike(balance.estimate_costs(self._mixture.measure(numbers)), steps)
        turns = self.order.permute(steps, "bucket", number)
        return [[numbers[place] for place in sorted(group)] for group in alike[turns].tolist()]


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


def check_shares(training: Training, ranks: int) -> None:
    """Refuse what cannot be dealt.

    Raises:
        RecipeError: ranks and micro-batches do not divide the sequences of a step.
    """
    parts, share = training.accumulation * ranks, training.sequences // training.accumulation
    if training.sequences % parts:
        fitting = ", ".join(str(number) for number in range(1, min(share, ranks) + 1) if share % number == 0)
        raise RecipeError(
            f"train.sequences: {training.sequences} sequences cannot be cut into {training.accumulation} "
            f"micro-batches for each of {ranks} ranks; give a multiple of {parts}, or take fewer ranks: {fitting}"
        )


def check_share(training: Training, rank: int, ranks: int, readers: int) -> None:
    """Refuse a share of the steps that does not exist: a negative rank would count from the last.

    Raises:
        RecipeError: as `check_shares`.
        ValueError: there is no such rank, or less than one rank or reader.
        TypeError: one is no whole number.
    """
    for name, value in {"ranks": ranks, "readers": readers}.items():
        if index(value) < 1:
            raise ValueError(f"{name}={value}: give 1 or more")
    if not 0 <= index(rank) < ranks:
        raise ValueError(f"rank={rank}: of {ranks} ranks there are 0 to {ranks - 1}")
    check_shares(training, ranks)


def describe_steps(training: Training) -> dict[str, Any]:
    """What decides which sequences a step reads, beside the plan, by its keys in a recipe."""
    return {
        "train.sequences": training.sequences,
        "train.accumulation": training.accumulation,
        "train.ranks": training.ranks,
    }
