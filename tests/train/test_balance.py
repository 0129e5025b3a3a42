"""The sequences of a step are dealt over ranks so that none waits for another, and not one is lost or read twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmill.train.balance import (
    choose_bucket,
    deal_sequences,
    estimate_costs,
    group_alike,
    measure_imbalance,
)

UNTIMED = settings(deadline=None, max_examples=50)
FEW = st.integers(1, 6)


def draw_shapes(sequences: int, seed: int = 0) -> np.ndarray:
    """Tokens, pairs of tokens and tiles of sequences of 8,192 tokens: some of text alone, some with many pictures."""
    random = np.random.default_rng(seed)
    tokens = np.round(8192 * (1 - random.beta(1, 40, sequences)))
    documents = random.geometric(0.2, sequences)
    parts = [random.dirichlet(np.ones(count)) * tokens[number] for number, count in enumerate(documents.tolist())]
    tiles = random.binomial(24, random.beta(1, 1.5, sequences))
    return np.stack([tokens, [float((part**2).sum()) / 2 for part in parts], tiles], axis=1)


def of_model(shapes: np.ndarray) -> np.ndarray:
    """FLOPs under a vision tower of 0.4 and a language model of 1.7 billion parameters."""
    return np.stack([shapes[:, 2] * 3e11, shapes[:, 0] * 1.7e9 + shapes[:, 1] * 2e5], axis=1)


def of_small_model(shapes: np.ndarray) -> np.ndarray:
    """The same under 86 and 135 million parameters."""
    return np.stack([shapes[:, 2] * 6e10, shapes[:, 0] * 1.35e8 + shapes[:, 1] * 3.5e4], axis=1)


@UNTIMED
@given(FEW, FEW, FEW, st.integers(0, 1 << 32), st.sampled_from([0, 1, 5]))
def test_each_sequence_of_a_step_has_one_rank_and_one_micro_batch_of_as_many(ranks, accumulation, rest, seed, spread):
    sequences = ranks * accumulation * rest
    costs = np.random.default_rng(seed).integers(0, spread + 1, (sequences, 2))
    dealt = deal_sequences(costs, ranks, accumulation)
    assert dealt.shape == (ranks, accumulation, rest)
    assert sorted(dealt.ravel().tolist()) == list(range(sequences))
    assert np.array_equal(dealt, deal_sequences(costs, ranks, accumulation))
    assert np.all(np.diff(dealt, axis=2) > 0)


def test_one_rank_reads_a_step_in_the_order_of_the_plan():
    assert deal_sequences(of_model(draw_shapes(12)), 1, 3).tolist() == np.arange(12).reshape(1, 3, 4).tolist()


def test_what_cannot_be_dealt_evenly_is_refused():
    with pytest.raises(ValueError, match="10 sequences cannot be dealt over 4 ranks and 1 micro-batches"):
        deal_sequences(np.ones((10, 2)), 4)


@pytest.mark.parametrize("ranks", [8, 64, 512])
@pytest.mark.parametrize(("rest", "accumulation"), [(4, 1), (8, 2)])
def test_ranks_of_four_sequences_and_more_wait_for_less_than_three_percent(ranks, rest, accumulation):
    costs = of_model(draw_shapes(ranks * rest))
    contiguous = np.arange(len(costs)).reshape(ranks, accumulation, -1)
    assert measure_imbalance(costs, contiguous) > 1.05
    assert measure_imbalance(costs, deal_sequences(costs, ranks, accumulation)) < 1.03


@pytest.mark.parametrize("ranks", [8, 64])
def test_steps_of_a_bucket_leave_one_sequence_a_rank_within_the_bound(ranks):
    shapes = draw_shapes(64 * ranks)
    bucket = choose_bucket(shapes, ranks, ranks, 1)
    assert bucket > 1
    costs = of_small_model(shapes)  # where ranks wait longest
    filled = [
        some
        for numbers in np.split(np.arange(len(shapes)), len(shapes) // (bucket * ranks))
        for some in numbers[group_alike(estimate_costs(shapes[numbers]), bucket)]
    ]
    times = [measure_imbalance(costs[some], deal_sequences(costs[some], ranks)) for some in filled]
    assert np.mean(times) < 1.1


def test_steps_stand_alone_where_ranks_are_balanced_without():
    shapes = draw_shapes(512)
    assert choose_bucket(shapes, 8, 1, 1) == 1  # nobody waits
    assert choose_bucket(shapes, 32, 8, 1) == 1  # four sequences each
    assert choose_bucket(np.tile(shapes[:1], (512, 1)), 8, 8, 1) == 1  # all alike
    assert choose_bucket(shapes[:6], 8, 8, 1) == 1  # no step at all


def test_the_time_of_a_step_is_that_of_the_most_vision_and_the_most_text():
    costs = np.array([[4, 1], [0, 1], [0, 3], [0, 3]])
    assert measure_imbalance(costs, np.array([[[0], [2]], [[1], [3]]])) == (4 + 1 + 0 + 3) / 6
    assert measure_imbalance(np.zeros((2, 2)), np.array([[[0]], [[1]]])) == 1
