"""Texts that stand in longer ones."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.pipeline.test_dedupe import document, edited, page, reasons, run
from tests.pipeline.test_dedupe_pairs import pairs_of, signed
from tests.pipeline.test_dedupe_text import WORDS, prose, spelled_out
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE
from vlmill.pipeline.dedupe import Dedupe
from vlmill.pipeline.dedupe.contained import find_contained, rank_texts
from vlmill.pipeline.dedupe.ranked import hold_groups
from vlmill.pipeline.dedupe.text import (
    SHINGLE,
    WINDOW,
    choose_fingerprints,
    compute_containment,
    hash_in_order,
    hash_shingles,
)

PAGE = prose(300, 1)
HEADER, FOOTER = prose(70, 2), prose(70, 3)


def gone(items, **knobs):
    return {(name.rpartition("#")[2], verdict.reason) for (name, _), verdict in run(items, **knobs).items()}


@given(st.integers(1, 120), st.integers(1, 120), st.integers(0, 9))
def test_containment_is_the_share_of_the_smaller_set(first, second, seed):
    draw = random.Random(seed)
    one, other = (" ".join(draw.choices(WORDS[:40], k=size)) for size in (first, second))
    sets = spelled_out(one), spelled_out(other)
    expected = round(len(sets[0] & sets[1]) / min(map(len, sets)), 4)
    assert compute_containment(hash_shingles(one), hash_shingles(other)) == expected
    assert compute_containment(hash_shingles(other), hash_shingles(one)) == expected


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 99))
def test_texts_that_have_enough_tokens_in_a_row_share_a_fingerprint_wherever_they_stand(a, b, c, d, seed):
    """The promise of winnowing."""
    shared = prose(WINDOW + SHINGLE - 1, seed)
    one, other = f"{prose(a, seed + 1)} {shared} {prose(b, seed + 2)}", f"{prose(c, seed + 3)} {shared} {prose(d, 4)}"
    fingerprints = [choose_fingerprints(hash_in_order(text)) for text in (one, other)]
    assert np.intersect1d(*fingerprints).size


def test_few_shingles_are_fingerprints_and_short_texts_have_one():
    assert 2000 / 12 < choose_fingerprints(hash_in_order(prose(2000, 1))).size < 2000 / 6
    assert choose_fingerprints(hash_in_order("one two three")).size == 1


def test_a_page_in_a_longer_one_goes_if_the_recipe_says_so():
    half = " ".join(PAGE.split()[:150])
    items = [document(0, half), document(1, PAGE), document(2, f"{HEADER} {PAGE} {FOOTER}"), document(3, prose(90, 9))]
    assert run(items) == {}
    found = run(items, containment=0.8)
    assert reasons(found) == {(items[row].name, WHOLE_SAMPLE): Reason.CONTAINED_TEXT for row in (0, 1)}
    assert {verdict.other for verdict in found.values()} == {items[2].name}
    assert {verdict.score for verdict in found.values()} == {1.0}


def test_the_share_that_the_recipe_names_decides():
    words = PAGE.split()
    items = [document(0, " ".join([*words[:150], *prose(50, 5).split()])), document(1, PAGE)]
    assert run(items, containment=0.8) == {}
    assert gone(items, containment=0.7) == {("0", Reason.CONTAINED_TEXT)}


def test_what_stands_in_two_documents_does_not_make_these_the_same():
    notice = prose(40, 7)
    items = [document(0, notice), *(document(row, f"{prose(200, row)} {notice}") for row in range(1, 6))]
    assert gone(items, containment=0.8) == {("0", Reason.CONTAINED_TEXT)}


def test_the_longer_one_is_kept_whatever_the_priorities_and_of_equals_the_first():
    small, large = " ".join(PAGE.split()[:120]), PAGE
    items = [document(0, small, source="a"), document(0, large, source="b")]
    for priority in ({"a": 1, "b": 2}, {"a": 2, "b": 1}):
        assert {name for name, _ in run(items, containment=0.8, priority=priority)} == {items[0].name}
    other = " ".join([*PAGE.split()[:240], *prose(60, 5).split()])
    assert gone([document(5, PAGE), document(3, other)], containment=0.7) == {("5", Reason.CONTAINED_TEXT)}


def test_copies_of_what_is_contained_go_with_it_and_name_what_is_kept():
    small = " ".join(PAGE.split()[:200])
    items = [document(0, small), document(1, edited(small, 100)), document(2, small), document(3, PAGE)]
    found = run(items, containment=0.8)
    assert {name for name, _ in found} == {item.name for item in items[:3]}
    assert {verdict.other for verdict in found.values()} == {items[3].name}


def test_what_is_contained_in_what_went_stays():
    """The first stands in the second alone, the second in the third."""
    words = PAGE.split()
    first, second, third = words[100:180], words[100:300], [*words[140:300], *prose(200, 8).split()]
    items = [document(row, " ".join(text)) for row, text in enumerate((first, second, third))]
    assert gone(items, containment=0.75) == {("1", Reason.CONTAINED_TEXT)}


def test_a_page_with_its_picture_does_not_fall_for_a_longer_text():
    items = [page(0, "p1", " ".join(PAGE.split()[:100])), page(1, "p1", PAGE), document(0, PAGE)]
    assert run(items, containment=0.5) == {}


def test_what_a_filter_dropped_holds_nothing():
    items = [document(0, " ".join(PAGE.split()[:100])), document(1, PAGE, filtered=(WHOLE_SAMPLE,))]
    assert run(items, containment=0.5) == {}


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=2, max_size=9),
    st.integers(1, 4),
    st.integers(0, 99),
    st.integers(1, 9),
)
def test_verdicts_do_not_depend_on_partitions_buckets_or_order(spans, cuts, seed, buckets):
    words = PAGE.split()
    texts = [" ".join(words[40 * start : 40 * (start + length)]) for start, length in spans]
    items = [document(row, text) for row, text in enumerate(texts) if text]
    expected = run(items, cuts=1000, buckets=1, containment=0.8)
    found = run(items, cuts=cuts, shuffled=seed, buckets=buckets, containment=0.8)
    assert {place: verdict.other for place, verdict in found.items()} == {
        place: verdict.other for place, verdict in expected.items()
    }
    assert not {name for name, _ in found} & {verdict.other for verdict in found.values()}


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30),
)
def test_each_text_in_turn_from_the_longest_on_is_kept_unless_one_that_is_kept_holds_it(sizes, edges):
    count = len(sizes)
    edges = sorted({(min(pair), max(pair)) for pair in edges if pair[0] != pair[1] and max(pair) < count})
    texts = pl.DataFrame(
        {"order": range(count), "text": range(count), "group": range(count), "shingles": sizes},
        pl.Schema({"order": pl.UInt32, "text": pl.UInt64, "group": pl.UInt64, "shingles": pl.Int32}),
    )
    schema = pl.Schema({"one": pl.UInt64, "other": pl.UInt64, "similarity": pl.Float64})
    pairs = pl.DataFrame([(one, other, 0.9) for one, other in edges], schema, orient="row")
    kept = list[int]()
    for order in sorted(range(count), key=lambda order: (-sizes[order], order)):
        if not any({(order, other), (other, order)} & set(edges) for other in kept):
            kept.append(order)
    assert sorted(
        set(range(count)) - set(find_contained(texts, hold_groups(rank_texts(texts), pairs))["order"])
    ) == sorted(kept)


def test_nothing_more_is_written_where_containment_is_not_looked_for(tmp_path):
    inputs = signed(tmp_path / "partition", [PAGE, HEADER])
    assert "web/0/contained.places.parquet" not in inputs
    ((counts, _),) = pairs_of(inputs, tmp_path, buckets=1)
    assert "contained_candidates" not in counts


def test_a_threshold_below_what_is_measured_is_refused():
    with pytest.raises(ValidationError, match=r"greater than or equal to 0\.5"):
        Dedupe(containment=0.3)
