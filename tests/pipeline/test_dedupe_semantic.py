"""Semantic duplicates: pairs of vectors within a cluster beside brute force, and which of them go."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.vectors import make_vectors, run_step, write_vectors
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, write_rows
from vlmill.pipeline.core.scores import read_embeddings
from vlmill.pipeline.core.vectors import quantise_vectors
from vlmill.pipeline.dedupe import semantic
from vlmill.pipeline.dedupe.ranked import hold_groups
from vlmill.pipeline.dedupe.semantic import PER_BAND, CompareVectors, FileVectors, SemanticRule
from vlmill.pipeline.dedupe.semantic_drops import drop_copies, find_copies, rank_things, select_things
from vlmill.pipeline.dedupe.signature import OUTLINE

CLUSTERS, FLOOR = 4, 0.9
STEP = CompareVectors(bucket=0, buckets=1, clusters=CLUSTERS, floor=FLOOR, priority={})


def outline(row, key):
    node = {"kind": "image", "role": "none", "turn": 0, "required": True, "key": key}
    node |= {"lines": None, "url": None, "reason": None}
    about = {"source": "web", "file": "a", "row": row, "page": -1, "unit": "page", "host": None, "text": 0}
    return {**about, "long": False, "shingles": 0, "words": 0, "nodes": [node]}


def file_part(folder, vectors, keys, clusters):
    """What `FileVectors` leaves of a partition whose samples show a picture each."""
    files = write_vectors(folder / "in", "looks", vectors)
    write_rows(folder / "in/outline.parquet", OUTLINE, [outline(row, int(key)) for row, key in enumerate(keys)])
    rows = np.arange(len(vectors), dtype=np.int32)
    assigned = {"sample": rows, "node": np.zeros_like(rows), "cluster": np.array(clusters, np.int32)}
    pl.DataFrame({**assigned, "similarity": 0.5}).write_parquet(folder / "in/topic.assigned.parquet")
    files |= {name: folder / "in" / name for name in ("outline.parquet", "topic.assigned.parquet")}
    return run_step(FileVectors("looks", "topic"), files, folder / "out")


def compare(folder, parts, step=STEP):
    """The pairs of partitions, each (vectors, keys, clusters), as {(one, other): similarity}, and the counts."""
    inputs = {
        f"web/{number:05d}/{name}": path
        for number, part in enumerate(parts)
        for name, path in file_part(folder / f"part{number}", *part).items()
    }
    (folder / "pairs").mkdir()
    counts = step.run(inputs, folder / "pairs")
    table = pl.read_parquet(folder / "pairs/semantic.pairs.parquet")
    assert (table["one"] < table["other"]).all()
    assert table.equals(table.sort("one", "other"))
    return {(one, other): cosine for one, other, cosine in table.iter_rows()}, counts["semantic_pairs"]


def brute_force(vectors, keys, clusters, floor=FLOOR):
    wide = vectors.astype(np.float64)
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    cosines = unit @ unit.T
    return {
        (min(keys[i], keys[j]), max(keys[i], keys[j])): cosines[i, j]
        for i in range(len(vectors))
        for j in range(i)
        if clusters[i] == clusters[j] and cosines[i, j] >= floor
    }


def made(number, seed, centres=12, spread=0.08):
    random = np.random.default_rng(seed)
    vectors = make_vectors(number, seed, length=24, centres=centres, spread=spread)
    keys = random.permutation(10**6)[:number] + 1
    return vectors, keys.tolist(), random.integers(0, CLUSTERS, number).tolist()


def near(found, expected):
    """The same pairs, but for those that rounding moves across the floor; and the same cosines."""
    apart = {pair for pair in {*found} ^ {*expected} if abs(({**expected, **found})[pair] - FLOOR) > 5e-4}
    assert not apart
    assert all(abs(found[pair] - expected[pair]) < 5e-4 for pair in {*found} & {*expected})
    return True


@pytest.mark.parametrize("seed", range(3))
def test_all_pairs_of_a_cluster_over_the_floor_are_found(tmp_path, seed):
    part = made(80, seed)
    expected = brute_force(*part)
    assert len(expected) > 20
    found, count = compare(tmp_path, [part])
    assert near(found, expected)
    assert count.came == count.kept == len(found)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_blocks_and_partitions_and_buckets_change_nothing(tmp_path, monkeypatch, size):
    vectors, keys, clusters = made(300, 5, centres=2, spread=0.02)
    expected, count = compare(tmp_path / "whole", [(vectors, keys, clusters)])
    assert count.lost[Reason.PAIR_CAP]
    monkeypatch.setattr(semantic, "ROWS", size)
    monkeypatch.setattr(semantic, "COLUMNS", 2 * size + 1)
    parts = [(vectors[part], keys[part], clusters[part]) for part in (slice(0, 110), slice(110, 111), slice(111, 300))]
    steps = [replace(STEP, bucket=bucket, buckets=3) for bucket in range(3)]
    found, left_out = dict[tuple[int, int], float](), 0
    for number, step in enumerate(steps):
        pairs, counts = compare(tmp_path / f"cut{number}", parts, step)
        assert not {*found} & {*pairs}
        found |= pairs
        left_out += counts.lost[Reason.PAIR_CAP]
    assert found == expected
    assert left_out == count.lost[Reason.PAIR_CAP]


def test_a_content_in_several_partitions_is_compared_once(tmp_path):
    vectors, keys, clusters = made(20, 2, centres=1)
    again = (vectors[:8], keys[:8], clusters[:8])
    assert (
        compare(tmp_path / "two", [(vectors, keys, clusters), again])[0]
        == (compare(tmp_path / "one", [(vectors, keys, clusters)])[0])
    )


def test_a_blob_leaves_a_number_of_pairs_that_grows_with_it_and_not_with_its_square(tmp_path):
    vectors, keys, _ = made(400, 1, centres=1, spread=0.001)
    found, count = compare(tmp_path, [(vectors, keys, [0] * 400)])
    places = {key: place for place, key in enumerate(keys)}
    taken = Counter((max(map(places.get, pair)), int(cosine * 100 + 1e-6)) for pair, cosine in found.items())
    assert max(taken.values()) == PER_BAND
    assert len(found) + count.lost[Reason.PAIR_CAP] == 400 * 399 // 2
    first = {pair for pair in found if keys[0] in pair}
    assert len(first) == 399  # the one that is preferred is compared with all


def test_of_sources_that_are_preferred_the_pairs_are_written_first(tmp_path):
    vectors, keys, _ = made(60, 1, centres=1, spread=0.001)
    inputs = {}
    for name, part in (("a", slice(0, 30)), ("b", slice(30, 60))):
        files = file_part(tmp_path / name, vectors[part], keys[part], [0] * 30)
        inputs |= {f"{name}/00000/{file}": path for file, path in files.items()}
    for first, step in ((0, STEP), (30, replace(STEP, priority={"a": 1, "b": 0}))):
        (tmp_path / f"pairs{first}").mkdir()
        step.run(inputs, tmp_path / f"pairs{first}")
        table = pl.read_parquet(tmp_path / f"pairs{first}/semantic.pairs.parquet")
        assert table.filter((pl.col("one") == keys[first]) | (pl.col("other") == keys[first])).height == 59


def test_the_evidence_is_the_vector_of_each_content_by_cluster(tmp_path):
    vectors, keys, clusters = made(30, 3)
    keys[9] = keys[4]
    clusters[9] = clusters[4]
    left = file_part(tmp_path, vectors, keys, clusters)
    places = pl.read_parquet(left["semantic.places.parquet"])
    assert places.height == 29
    assert places.select("cluster", "key").equals(places.select("cluster", "key").sort("cluster", "key"))
    stored = read_embeddings(tmp_path / "in/looks.embeddings.parquet", "looks").vectors
    evidence = np.load(left["semantic.evidence.npy"])
    assert np.array_equal(evidence, quantise_vectors(stored[places["sample"].to_numpy()]))
    assert 9 not in places["sample"]


# -- which of them go --------------------------------------------------------------------------------------------------


RULE = SemanticRule("image", 0.95, ())


def nodes_of(rows):
    """(order, node, key, unit) of images."""
    schema = {"order": pl.UInt32, "node": pl.Int32, "key": pl.UInt64, "unit": pl.String}
    frame = pl.DataFrame(rows, schema, orient="row")
    return frame.with_columns(kind=pl.lit("image"), role=pl.lit("none"))


def find_drops(things, pairs, rule):
    """What goes of things, where they are one task's."""
    groups = things.rename({"key": "group"})
    held = hold_groups(rank_things(groups), pairs.filter(pl.col("similarity") >= rule.min))
    return drop_copies(things, find_copies(groups, held), rule)


def drop(rows, pairs, rule=RULE, sources=()):
    schema = {"one": pl.UInt64, "other": pl.UInt64, "similarity": pl.Float64}
    orders = sorted({row[0] for row in rows})
    named = pl.DataFrame({"order": pl.Series(orders, dtype=pl.UInt32), "source": [*sources] or ["web"] * len(orders)})
    table = pl.DataFrame([(*sorted(pair), cosine) for pair, cosine in pairs.items()], schema, orient="row")
    found = find_drops(select_things(nodes_of(rows), named, rule), table, rule)
    return {(order, node): (keeper, score) for order, node, _, score, keeper in found.iter_rows()}


GRAPHS = st.dictionaries(
    st.tuples(st.integers(0, 14), st.integers(0, 14)).filter(lambda pair: pair[0] < pair[1]),
    st.integers(90, 100).map(lambda hundredths: hundredths / 100),
)


@given(GRAPHS, st.randoms(use_true_random=False))
@settings(max_examples=80)
def test_what_goes_is_similar_to_one_that_stays_and_no_two_that_stay_are_similar(pairs, random):
    rows = [(number, 0, number + 1, "page") for number in range(15)]
    pairs = {(one + 1, other + 1): cosine for (one, other), cosine in pairs.items()}
    found = drop(rows, pairs)
    gone = {order for order, node in found if node == WHOLE_SAMPLE}
    assert len(gone) == len(found)
    similar = {pair: cosine for pair, cosine in pairs.items() if cosine >= RULE.min}
    assert not [pair for pair in similar if not {key - 1 for key in pair} & gone]
    for (order, _), (keeper, score) in found.items():
        assert keeper < order
        assert keeper not in gone
        assert score == similar[keeper + 1, order + 1]
        others = [similar.get((kept + 1, order + 1), 0) for kept in range(order) if kept not in gone]
        assert score == max(others)
    shuffled = [*pairs.items()]
    random.shuffle(shuffled)
    assert drop(random.sample(rows, len(rows)), dict(shuffled)) == found


def test_of_a_chain_the_ends_stay():
    rows = [(order, 0, order + 1, "page") for order in range(3)]
    assert drop(rows, {(1, 2): 0.96, (2, 3): 0.97}) == {(1, WHOLE_SAMPLE): (0, 0.96)}


def test_the_same_content_again_is_a_duplicate_and_what_a_filter_took_is_no_keeper():
    rows = [(1, 0, 8, "page"), (2, 0, 8, "page"), (3, 0, 9, "page")]
    assert drop(rows, {(7, 8): 0.99, (7, 9): 0.99}) == {(2, WHOLE_SAMPLE): (1, 1.0)}


def test_a_page_goes_with_all_of_its_images_and_a_document_loses_one():
    rows = [(0, 0, 1, "page"), (1, 0, 2, "page"), (1, 1, 3, "page"), (2, 0, 4, "document"), (2, 1, 5, "document")]
    pairs = {(1, 2): 0.96, (1, 4): 0.98}
    assert drop(rows, pairs) == {(2, 0): (0, 0.98)}
    assert drop(rows, {**pairs, (1, 3): 0.99}) == {(1, WHOLE_SAMPLE): (0, 0.96), (2, 0): (0, 0.98)}


def test_conversations_and_other_sources_are_not_asked():
    rows = [(0, 0, 1, "turns"), (1, 0, 2, "page"), (2, 0, 3, "page"), (3, 0, 4, "page")]
    pairs = {(1, 2): 1.0, (2, 3): 0.99, (2, 4): 0.99}
    sources = ("quiz", "a-1", "b", "a-2")
    assert set(drop(rows, pairs, sources=sources)) == {(2, WHOLE_SAMPLE), (3, WHOLE_SAMPLE)}
    assert set(drop(rows, pairs, replace(RULE, sources=("a-*",)), sources)) == {(3, WHOLE_SAMPLE)}


def test_texts_of_documents_are_compared_and_captions_and_turns_are_not():
    rows = [(0, 0, 1, "document"), (1, 0, 2, "document"), (2, 1, 3, "page"), (3, 0, 4, "document")]
    nodes = nodes_of(rows).with_columns(kind=pl.lit("text"), role=pl.Series(["none", "none", "none", "user"]))
    named = pl.DataFrame({"order": pl.Series(range(4), dtype=pl.UInt32), "source": "web"})
    table = pl.DataFrame({"one": [1, 1, 1], "other": [2, 3, 4], "similarity": [0.97] * 3})
    table = table.cast({"one": pl.UInt64, "other": pl.UInt64})
    rule = SemanticRule("text", 0.95, ())
    found = find_drops(select_things(nodes, named, rule), table, rule)
    assert found.rows() == [(1, 0, "semantic_text", 0.97, 0)]
