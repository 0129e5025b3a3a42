"""Which sequences a step reads: every epoch another permutation of the plan, and each step a function of its number."""

from __future__ import annotations

from itertools import accumulate, chain, pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmill.train.settings import Training
from vlmill.train.steps import PlanOrder, StepSequences

UNTIMED = settings(deadline=None, max_examples=50)
BLOCKS = st.lists(st.integers(1, 30), min_size=1, max_size=9)
SEEDS = st.integers(0, 2**32)


def order_of(blocks: list[int], seed: int) -> PlanOrder:
    return PlanOrder([0, *accumulate(blocks)], seed)


def epochs_of(order: PlanOrder, number: int) -> list[list[int]]:
    places = range(order.planned)
    return [[order.sequence(epoch * order.planned + place) for place in places] for epoch in range(number)]


@UNTIMED
@given(BLOCKS, SEEDS)
def test_every_epoch_is_a_permutation_of_the_plan_and_the_first_is_its_order(blocks, seed):
    first, *later = epochs_of(order_of(blocks, seed), 4)
    assert first == list(range(sum(blocks)))
    assert all(sorted(epoch) == first for epoch in later)


@UNTIMED
@given(st.lists(st.integers(20, 40), min_size=5, max_size=8), SEEDS, st.integers(2, 8))
def test_no_epoch_has_the_order_or_the_steps_of_another(blocks, seed, sequences):
    epochs = epochs_of(order_of(blocks, seed), 4)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    steps = [
        {frozenset(epoch[at : at + sequences]) for at in range(0, len(epoch) - sequences + 1, sequences)}
        for epoch in epochs
    ]
    for number, some in enumerate(steps):
        for others in steps[number + 1 :]:
            assert len(some & others) < len(some) / 2


@UNTIMED
@given(BLOCKS, SEEDS)
def test_the_half_that_a_sequence_is_not_of_lies_between_two_uses_of_it(blocks, seed):
    planned = sum(blocks)
    last = dict[int, int]()
    for place, sequence in enumerate(chain.from_iterable(epochs_of(order_of(blocks, seed), 4))):
        assert place - last.get(sequence, -planned) > planned // 2
        last[sequence] = place


@UNTIMED
@given(BLOCKS, SEEDS)
def test_a_reader_has_each_block_open_once_an_epoch_or_twice_where_the_middle_cuts_it(blocks, seed):
    starts = [0, *accumulate(blocks)]
    for epoch in epochs_of(order_of(blocks, seed), 4):
        block = [sum(start <= sequence for start in starts) for sequence in epoch]
        assert sum(one != other for one, other in pairwise(block)) <= len(blocks)


class Mixture:
    """A plan of sequences whose tiles are drawn."""

    def __init__(self, blocks: list[int], seed: int) -> None:
        starts = [0, *accumulate(blocks)]
        self.sequences = starts[-1]
        self.lock = {
            "seed": seed,
            "plan": {"sequences": self.sequences, "blocks": [{"first": first} for first in starts[:-1]]},
        }
        self.tiles = np.random.default_rng(seed).integers(0, 30, self.sequences)

    def measure(self, numbers):
        found = self.tiles[list(numbers)]
        return np.stack([np.full(len(found), 500.0), np.full(len(found), 50_000.0), found], axis=1)


@UNTIMED
@given(st.lists(st.integers(1, 30), min_size=2, max_size=9), SEEDS, st.sampled_from([None, 1, 4]), st.data())
def test_a_steps_sequences_depend_on_its_number_alone_and_each_bucket_reads_what_the_plan_has_there(
    blocks, seed, ranks, data
):
    size, mixture = (
        data.draw(st.sampled_from([size for size in (1, 4, 8) if size <= sum(blocks)])),
        Mixture(blocks, seed),
    )
    if ranks and size % ranks:
        ranks = 1
    training = Training(learning_rate={"text": 1.0}, sequences=size, epochs=3, ranks=ranks)
    whole = list(chain.from_iterable(epochs_of(mixture_order(mixture), 3)))
    steps = StepSequences(mixture, training)
    step = data.draw(st.integers(0, steps.steps - 1))
    bucket = range(step // steps.bucket * steps.bucket, min((step // steps.bucket + 1) * steps.bucket, steps.steps))
    together = [number for one in bucket for number in steps.list_numbers(one)]
    assert sorted(together) == sorted(whole[bucket.start * size : bucket.stop * size])
    if steps.bucket == 1:
        assert together == whole[step * size : (step + 1) * size]
    assert all(len(steps.list_numbers(one)) == size for one in bucket)
    assert StepSequences(mixture, training).list_numbers(step) == steps.list_numbers(step)  # as after a resume


@UNTIMED
@given(BLOCKS, SEEDS, st.sampled_from([None, 4]), st.data())
def test_the_steps_of_a_sequence_are_those_that_read_it(blocks, seed, ranks, data):
    size, mixture = min(4, sum(blocks)), Mixture(blocks, seed)
    training = Training(learning_rate={"text": 1.0}, sequences=size, epochs=3, ranks=ranks if size == ranks else None)
    steps, sequence = StepSequences(mixture, training), data.draw(st.integers(0, sum(blocks) - 1))
    assert steps.find_steps(sequence) == [step for step in range(steps.steps) if sequence in steps.list_numbers(step)]


def mixture_order(mixture: Mixture) -> PlanOrder:
    return PlanOrder.of(mixture.lock)


@UNTIMED
@given(BLOCKS, SEEDS, SEEDS)
def test_the_order_is_that_of_the_mixtures_seed(blocks, seed, other):
    assert epochs_of(order_of(blocks, seed), 3) == epochs_of(order_of(blocks, seed), 3)
    if seed != other and sum(blocks) > 40:
        assert epochs_of(order_of(blocks, seed), 3) != epochs_of(order_of(blocks, other), 3)
