"""The order of a mixture: keyed shuffles, a source's endless walk, and the interleaving of sources by share."""

from collections import Counter
from itertools import islice, repeat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmill.mixtures.algorithms.order import SourceOrder, make_order_key, make_order_keys, merge_sources, permute_index

UNTIMED = settings(deadline=None)
KEYS = st.integers(0, 2**64 - 1)


@UNTIMED
@given(st.integers(1, 3000) | st.integers(4000, 20_000), KEYS)
def test_a_shuffle_is_a_bijection(size, key):
    assert sorted(permute_index(np.arange(size), size, key)) == list(range(size))


@UNTIMED
@given(st.integers(1, 10**12), KEYS, st.data())
def test_a_shuffle_is_a_function_of_the_index(size, key, data):
    index = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)))
    together = permute_index(index, size, key)
    assert together.tolist() == [int(permute_index(index[at : at + 1], size, key)[0]) for at in range(index.size)]
    assert together.min() >= 0
    assert together.max() < size


def test_a_shuffle_depends_on_its_key_and_stays_the_same_for_good():
    assert permute_index(np.arange(10), 10, make_order_key(17, "web")).tolist() == [8, 7, 0, 2, 3, 6, 4, 5, 9, 1]
    assert permute_index(np.arange(5), 5000, make_order_key(17, "web")).tolist() == [4743, 4685, 3674, 1240, 2490]
    assert (
        permute_index(np.arange(10), 10, make_order_key(18, "web")).tolist()
        != permute_index(np.arange(10), 10, make_order_key(17, "web")).tolist()
    )


def test_all_shuffles_of_four_are_about_equally_likely():
    seen = Counter(tuple(permute_index(np.arange(4), 4, make_order_key(number)).tolist()) for number in range(2400))
    assert len(seen) == 24
    assert 50 < min(seen.values()) <= max(seen.values()) < 150  # of 100, five standard deviations


@pytest.mark.parametrize("size", [4000, 20_000])
def test_a_shuffle_leaves_no_trace_of_the_order_it_came_in(size):
    shuffled = permute_index(np.arange(size), size, 5)
    assert abs(np.corrcoef(shuffled, np.arange(size))[0, 1]) < 4 / size**0.5
    assert abs(np.corrcoef(shuffled[:-1], shuffled[1:])[0, 1]) < 4 / size**0.5


def deviations(totals, lengths):
    """Per prefix and source: what it has beyond its share."""
    order = list(merge_sources(totals, [0] * len(totals), [iter(items) for items in lengths]))
    counts, spent, clock, found = [0] * len(totals), np.zeros(len(totals)), 0, []
    for source in order:
        length = lengths[source][counts[source]]
        counts[source] += 1
        spent[source] += length
        clock += length
        found.append(spent - np.array(totals) / sum(totals) * clock)
    assert counts == [len(items) for items in lengths]
    return np.array(found)


@UNTIMED
@given(st.lists(st.integers(1, 120), min_size=1, max_size=12))
def test_every_prefix_is_within_one_sample_of_its_share(counts):
    assert np.abs(deviations(counts, [[1] * count for count in counts])).max() <= 1 + 1e-9


@pytest.mark.parametrize("small", [10, 60, 300])
def test_one_large_and_many_small_sources_stay_within_one_sample(small):
    counts = [2000] + [1 + number % 3 for number in range(small)]
    assert np.abs(deviations(counts, [[1] * count for count in counts])).max() <= 1 + 1e-9


@UNTIMED
@given(st.lists(st.lists(st.integers(1, 2048), min_size=1, max_size=40), min_size=1, max_size=10))
def test_with_lengths_every_prefix_is_within_the_longest_sample(lengths):
    longest = max(max(items) for items in lengths)
    found = deviations([sum(items) for items in lengths], lengths)
    assert found.min() >= -longest - 1e-6
    assert all(found[:, source].max() < max(items) + 1e-6 for source, items in enumerate(lengths))


def test_a_source_of_three_samples_is_spread_over_a_hundred_thousand():
    order = merge_sources([99_997, 3], [0, 0], [repeat(1, 99_997), repeat(1, 3)])
    places = [place / 100_000 for place, source in enumerate(order) if source == 1]
    assert places == pytest.approx([0, 1 / 3, 2 / 3], abs=1e-4)


@UNTIMED
@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=30), min_size=1, max_size=5), st.integers(0, 100))
def test_a_merge_goes_on_from_any_start(lengths, start):
    totals = [sum(items) for items in lengths]
    whole = list(merge_sources(totals, [0] * len(totals), [iter(items) for items in lengths]))
    before = Counter(whole[:start])
    spent = [sum(items[: before[source]]) for source, items in enumerate(lengths)]
    rest = merge_sources(totals, spent, [iter(items[before[source] :]) for source, items in enumerate(lengths)])
    assert list(rest) == whole[start:]


def test_samples_without_weight_still_come():
    lengths = [[0, 5, 0, 5], [5, 5]]
    assert Counter(merge_sources([10, 10], [0, 0], [iter(items) for items in lengths])) == {0: 4, 1: 2}


WALKS = st.builds(
    SourceOrder,
    samples=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any).map(np.array),
    key=KEYS,
    window=st.integers(1, 5),
)


def visited(walk, start, stop):
    """(epoch, shard, sample) of each item."""
    items = []
    for span in walk.spans(start, stop):
        owner = np.repeat(span.shards, walk.samples[span.shards])
        inside = np.concatenate([np.arange(walk.samples[shard]) for shard in span.shards])
        items += [(span.half // 2, int(owner[place]), int(inside[place])) for place in span.places]
    return items


@UNTIMED
@given(WALKS, st.integers(1, 3))
def test_every_epoch_visits_every_sample_once(walk, epochs):
    items = visited(walk, 0, epochs * walk.size)
    everything = {(shard, sample) for shard, count in enumerate(walk.samples) for sample in range(count)}
    for epoch in range(epochs):
        here = [item[1:] for item in items if item[0] == epoch]
        assert len(here) == walk.size
        assert set(here) == everything


@UNTIMED
@given(WALKS, st.integers(0, 60), st.integers(0, 60))
def test_a_stretch_of_a_walk_needs_nothing_before_it(walk, start, length):
    whole = visited(walk, 0, start + length)
    assert visited(walk, start, start + length) == whole[start:]


@UNTIMED
@given(WALKS)
def test_a_walk_has_no_more_shards_open_than_its_window(walk):
    windows, _ = walk.windows(0)
    assert all(len(window) <= walk.window for window in windows)
    for window, items in zip(windows, _by_window(walk, windows), strict=True):
        assert {shard for _, shard, _ in items} <= set(window.tolist())


def _by_window(walk, windows):
    items = iter(visited(walk, 0, walk.size))
    return [list(islice(items, int(walk.samples[window].sum()))) for window in windows]


@UNTIMED
@given(WALKS)
def test_between_two_uses_of_a_sample_lies_the_half_that_it_is_not_of(walk):
    halves = {span.half: [] for span in walk.spans(0, 3 * walk.size)}
    for span in walk.spans(0, 3 * walk.size):
        owner = np.repeat(span.shards, walk.samples[span.shards])
        inside = np.concatenate([np.arange(walk.samples[shard]) for shard in span.shards])
        halves[span.half] += [(int(owner[place]), int(inside[place])) for place in span.places]
    assert list(halves) == sorted(halves)
    for half, samples in halves.items():
        assert set(samples) == set(halves.get(half % 2, samples))
        assert not set(samples) & set(halves.get(1 - half % 2, ()))
    sizes = [len(halves[half]) for half in range(2) if half in halves]
    assert walk.size == 1 or min(sizes) >= (walk.size - walk.samples.max()) // 2
    assert (walk.samples > 0).sum() > walk.window or max(sizes) <= walk.size // 2 + 1


def test_epochs_differ_in_their_order():
    walk = SourceOrder(np.array([10] * 10), 5, 4)
    first, second = visited(walk, 0, 100), visited(walk, 100, 200)
    assert [item[1:] for item in first] != [item[1:] for item in second]
    assert [window.tolist() for window in walk.windows(0)[0]] != [window.tolist() for window in walk.windows(1)[0]]


def test_keys_of_many_are_the_keys_of_each():
    names = ["web/a.parquet#1", 'a "b" \\', "Grüße 🙂", ""]
    assert make_order_keys(17, "web", last=names).tolist() == [make_order_key(17, "web", name) for name in names]
    assert make_order_keys(last=[]).size == 0
