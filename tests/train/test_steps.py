"""Which sequences a step reads: every epoch another permutation of the plan, and each step a function of its number."""

from __future__ import annotations

from itertools import accumulate, chain, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from vlmill.train.steps import PlanOrder, list_step_sequences

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


@UNTIMED
@given(BLOCKS, SEEDS, st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.data())
def test_a_steps_sequences_depend_on_its_number_alone(blocks, seed, ranks, accumulation, data):
    size, order = 8, order_of(blocks, seed)
    whole = list(chain.from_iterable(epochs_of(order, 4 + size // sum(blocks))))
    step = data.draw(st.integers(0, len(whole) // size - 1))
    fresh = order_of(blocks, seed)  # as after a resume
    shares = [
        list_step_sequences(step, size, fresh, accumulation=accumulation, rank=rank, ranks=ranks)
        for rank in range(ranks)
    ]
    assert all(len(share) == accumulation for share in shares)
    together = [sequence for share in shares for micro in share for sequence in micro]
    assert together == whole[step * size : (step + 1) * size]


@UNTIMED
@given(BLOCKS, SEEDS, SEEDS)
def test_the_order_is_that_of_the_mixtures_seed(blocks, seed, other):
    assert epochs_of(order_of(blocks, seed), 3) == epochs_of(order_of(blocks, seed), 3)
    if seed != other and sum(blocks) > 40:
        assert epochs_of(order_of(blocks, seed), 3) != epochs_of(order_of(blocks, other), 3)
