"""Packing under two budgets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmill.mixtures.algorithms.pack import pack_segments
from vlmill.mixtures.steps.window import find_stretches

UNTIMED = settings(deadline=None)
SEGMENTS = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 6)), max_size=80)


def packed(segments, sequence_tokens=100, sequence_tiles=6):
    tokens, tiles = (np.array([segment[at] for segment in segments], np.int64) for at in (0, 1))
    return pack_segments(tokens, tiles, sequence_tokens, sequence_tiles)


@UNTIMED
@given(SEGMENTS)
def test_every_segment_is_in_one_row_and_no_row_exceeds_a_budget(segments):
    rows = packed(segments)
    assert len(rows) == len(segments)
    assert sorted(set(rows.tolist())) == list(range(len(set(rows.tolist()))))
    for budget, at in ((100, 0), (6, 1)):
        assert np.all(np.bincount(rows, [segment[at] for segment in segments]) <= budget) or not segments


@UNTIMED
@given(SEGMENTS)
def test_two_rows_that_fit_into_one_are_not_left(segments):
    rows = packed(segments)
    sums = [np.bincount(rows, [segment[at] for segment in segments]) for at in (0, 1)] if segments else []
    for first in range(len(set(rows.tolist())) - 1):
        assert sums[0][first] + sums[0][first + 1] > 100 or sums[1][first] + sums[1][first + 1] > 6


def test_rows_come_out_full_where_segments_allow_it():
    random = np.random.default_rng(0)
    tokens = np.minimum(random.lognormal(6.2, 1.0, 4096).astype(np.int64) + 74, 2048)
    rows = pack_segments(tokens, np.ones(4096, np.int64), 2048, 32)
    assert tokens.sum() / 2048 / (rows.max() + 1) > 0.97


def test_rows_come_out_full_where_both_budgets_bind():
    random = np.random.default_rng(0)
    images = random.geometric(0.4, 4096).clip(max=24)
    tokens = np.minimum(random.lognormal(6.2, 1.0, 4096).astype(np.int64) + images * 64 + 8, 8192)
    rows = pack_segments(tokens, images, 8192, 24)
    fewest = max(tokens.sum() / 8192, images.sum() / 24)
    assert fewest / (rows.max() + 1) > 0.97


@pytest.mark.parametrize("segment", [(101, 0), (1, 7)])
def test_what_fits_no_row_is_refused_by_name(segment):
    with pytest.raises(ValueError, match="does not fit a sequence of 100 and 6"):
        packed([segment])


SOURCES = st.lists(
    st.tuples(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 6)), min_size=1, max_size=12), st.integers(1, 30)),
    min_size=1,
    max_size=4,
)


def window(sources):
    """The columns of a window in which each source comes so often, evenly: half of its samples, then the other."""
    uses = []
    for source, (costs, times) in enumerate(sources):
        for item in range(times):
            epoch, sample = divmod(item, len(costs))
            half = 2 * epoch + int(sample >= (len(costs) + 1) // 2)
            uses.append(((item + 0.5) / times, source, sample, half, *costs[sample]))
    columns = np.array(sorted(uses)).T.astype(np.int64)[1:]
    named = dict(zip(("source", "row", "half", "tokens", "tiles"), columns, strict=True))
    return {**named, "position": np.arange(columns.shape[1]), "shard": np.zeros(columns.shape[1], np.int64)}


def check_rows(columns, rows, apart):
    """What a row may hold: within its budgets, no sample twice, and one row at most where two stretches meet."""
    assert sorted(set(rows.tolist())) == list(range(rows.max() + 1))
    for budget, name in ((100, "tokens"), (6, "tiles")):
        assert np.all(np.bincount(rows, columns[name]) <= budget)
    meeting = []
    for row in range(rows.max() + 1):
        mine = rows == row
        assert len(set(apart.sample[mine].tolist())) == mine.sum()
        begin, end = apart.begin[apart.use[mine]].max(), apart.end[apart.use[mine]].min()
        assert begin <= end
        meeting += [begin] if begin == end else []
    assert len(set(meeting)) == len(meeting)


@UNTIMED
@given(SOURCES)
def test_no_row_holds_a_sample_twice_and_each_stands_in_its_stretch(sources):
    columns = window(sources)
    apart = find_stretches(columns, [str(source) for source in range(len(sources))])
    rows = pack_segments(columns["tokens"], columns["tiles"], 100, 6, apart)
    if apart is None:
        assert all(times <= (len(costs) + 1) // 2 for costs, times in sources)
    else:
        check_rows(columns, rows, apart)


@UNTIMED
@given(SOURCES)
def test_no_row_holds_a_sample_of_two_parts_twice(sources):
    columns = window(sources)
    apart = find_stretches(columns, ["web"] * len(sources))
    rows = pack_segments(columns["tokens"], columns["tiles"], 100, 6, apart)
    if apart is None:
        assert len(sources) == 1
    else:
        check_rows(columns, rows, apart)


def test_rows_come_out_as_full_when_a_source_comes_again_and_again():
    random = np.random.default_rng(0)
    costs = [(int(tokens), 0) for tokens in random.integers(6, 30, 400)]
    columns = window([(costs, 2400)])
    rows = pack_segments(columns["tokens"], columns["tiles"], 100, 6, find_stretches(columns, ["web"]))
    assert columns["tokens"].sum() / 100 / (rows.max() + 1) > 0.98


def test_a_short_sample_that_comes_often_costs_no_rows():
    random = np.random.default_rng(0)
    costs = [(int(tokens), 0) for tokens in random.lognormal(3.5, 0.7, 2000).clip(3, 100)]
    columns = window([(costs, 1000), ([(2, 0)], 100)])
    rows = pack_segments(columns["tokens"], columns["tiles"], 100, 6, find_stretches(columns, ["web", "one"]))
    assert columns["tokens"].sum() / 100 / (rows.max() + 1) > 0.98
