"""Candidates, buckets, caps and clusters."""

from __future__ import annotations

import resource
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from tests.pipeline.test_dedupe_text import prose
from vlmill.pipeline.core.meter import METER
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    Node,
    Sample,
    SampleId,
    read_rows,
    write_image_stats,
    write_samples,
)
from vlmill.pipeline.dedupe import ComputeSignatures, Dedupe
from vlmill.pipeline.dedupe.candidates import BUCKET_BITS, IMAGE, TEXT, find_candidates
from vlmill.pipeline.dedupe.components import find_components
from vlmill.pipeline.dedupe.gather import FEW, cut_partitions

rows = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), unique=True, max_size=40)


def found(kind, filed, cap):
    """Pairs of keys, and how many were left out."""
    places, keys = np.array(sorted(filed), np.uint64).reshape(-1, 2).T
    first, second, excess = find_candidates(kind, places, keys, cap)
    return list(zip(keys[first].tolist(), keys[second].tolist(), strict=True)), excess


@given(rows)
def test_without_a_cap_all_that_share_a_place_are_candidates_once(filed):
    pairs, excess = found(TEXT, filed, cap=1000)
    expected = {tuple(sorted((a, b))) for (p, a), (q, b) in combinations(filed, 2) if p == q and a != b}
    assert sorted(expected) == pairs
    assert excess == 0


@given(rows, st.integers(1, 5))
def test_a_cap_leaves_groups_connected_and_counts_what_it_leaves_out(filed, cap):
    pairs, excess = found(TEXT, filed, cap)
    sizes = [sum(place == other for other, _ in filed) for place in range(6)]
    assert excess == sum(max(0, size - cap) * (size - cap - 1) // 2 for size in sizes)
    ends = np.array(pairs, np.uint64).reshape(-1, 2)
    keys = np.arange(10, dtype=np.uint64)
    labels = find_components(keys, ends[:, 0], ends[:, 1])
    for place in range(6):
        assert len({labels[key] for other, key in filed if other == place}) <= 1


def test_pictures_of_one_group_are_candidates_only_if_their_hashes_are_near():
    assert found(IMAGE, [(0b0, 1), (0b1111, 2), (2**40 - 1, 3)], cap=9)[0] == [(1, 2)]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40), st.sets(st.integers(0, 30)))
def test_components_are_those_of_the_edges_between_given_keys(edges, given_keys):
    keys = sorted(given_keys)
    label = {key: key for key in keys}
    for _ in keys:
        for one, other in edges:
            if one in label and other in label:
                label[one] = label[other] = min(label[one], label[other])
    ends = np.array(edges, np.uint64).reshape(-1, 2)
    labels = find_components(np.array(keys, np.uint64), ends[:, 0], ends[:, 1])
    assert labels.tolist() == [label[key] for key in keys]


def signed(folder, texts):
    """Inputs of pairs: one partition of documents."""
    folder.mkdir()
    write_samples(
        folder / "samples.parquet",
        (Sample(SampleId("web", "x", row), (Node("text", text=text),)) for row, text in enumerate(texts)),
    )
    write_image_stats(folder / "image_stats.parquet", [])
    ComputeSignatures(containment=False).run(
        {name: folder / name for name in ("samples.parquet", "image_stats.parquet")}, folder
    )
    return {f"web/0/{path.name}": path for path in folder.iterdir()}


def pairs_of(inputs, folder, **knobs):
    """Counts of the candidates and rows of the pairs, for each bucket and share."""
    folder = folder / "-".join(f"{name}{value}" for name, value in knobs.items())
    dedupe, counts, tables, made = Dedupe(**knobs), [], [], {}
    for step in dedupe.candidates():
        target = folder / f"candidates-{step.bucket:05d}"
        target.mkdir(parents=True)
        counts.append(step.run(inputs, target))
        made |= {f"{step.bucket:05d}/{path.name}": path for path in target.iterdir()}
    for step in dedupe.pair_steps():
        target = folder / f"pairs-{step.share:05d}"
        target.mkdir()
        step.run({**inputs, **made}, target)
        tables.append(list(read_rows(target / "text.pairs.parquet")))
    return list(zip(counts, tables, strict=True))


def test_buckets_together_hold_what_one_bucket_holds(tmp_path):
    texts = [prose(100, number // 3) + " and more" * (number % 3) for number in range(30)]
    inputs = signed(tmp_path / "partition", texts)
    ((_, whole),) = pairs_of(inputs, tmp_path, buckets=1)
    partitions = [rows for _, rows in pairs_of(inputs, tmp_path, buckets=7)]
    assert len(whole) >= 30
    assert sorted(tuple(row.values()) for rows in partitions for row in rows) == [tuple(row.values()) for row in whole]
    assert all(row["one"] < row["other"] for row in whole)
    assert sum(bool(rows) for rows in partitions) > 1


def test_progress_counts_the_pairs_that_are_compared(tmp_path):
    texts = [prose(100, number // 3) + " and more" * (number % 3) for number in range(30)]
    inputs, noted = signed(tmp_path / "partition", texts), Counter()
    with METER.told_to(noted.update):
        ((_, whole),) = pairs_of(inputs, tmp_path, buckets=1)
    assert noted["pairs"] >= len(whole) >= 30
    assert noted["rows"] == 0


def test_there_may_be_as_many_buckets_as_leading_bits_tell_apart():
    assert len(Dedupe(buckets=1 << BUCKET_BITS).pair_steps()) == 1 << BUCKET_BITS


def test_what_a_cap_leaves_out_is_in_the_books(tmp_path):
    texts = [prose(300, 1) + f" {number}" for number in range(12)]
    inputs = signed(tmp_path / "partition", texts)
    ((free, _),) = pairs_of(inputs, tmp_path, buckets=1)
    assert (free["text_candidates"].kept, free["text_candidates"].lost[Reason.PAIR_CAP]) == (66, 0)
    ((capped, rows),) = pairs_of(inputs, tmp_path, buckets=1, cap=2)
    assert capped["text_candidates"].balanced()
    assert capped["text_candidates"].lost[Reason.PAIR_CAP] > 0
    keys = np.unique([[row["one"], row["other"]] for row in rows])
    assert keys.size == 12


def test_places_are_sorted_so_that_a_bucket_is_a_run_of_row_groups(tmp_path):
    signed(tmp_path / "partition", [prose(60, number) for number in range(300)])
    with pq.ParquetFile(tmp_path / "partition" / "text.places.parquet") as file:
        assert file.num_row_groups > 1
        bounds = [file.metadata.row_group(number).column(0).statistics for number in range(file.num_row_groups)]
    assert all(before.max <= after.min for before, after in pairwise(bounds))
    assert bounds[-1].max > 1 << 63


def test_places_of_blocks_and_few_open_files_give_the_same_pairs(tmp_path, monkeypatch):
    """Three hundred partitions of the same texts, and 64 files that may be open besides those that are."""
    texts = [prose(100, number // 2) + " and more" * (number % 2) for number in range(12)]
    inputs = {
        f"web/{number:05d}/{name.rpartition('/')[2]}": path
        for name, path in signed(tmp_path / "partition", texts).items()
        for number in range(300)
    }
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 64, limits[1]))
    try:
        ((counts, rows),) = pairs_of(inputs, tmp_path, buckets=1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert counts["text_candidates"].kept == len(rows) == 6
    partitions = [f"web/{number:05d}" for number in range(300)]
    steps = cut_partitions(partitions, containment=False)
    assert [step.first for step in steps] == list(range(0, 300, FEW))
    monkeypatch.setattr("vlmill.pipeline.dedupe.gather.SLICE", 3000)
    placed = {}
    for number, step in enumerate(steps):
        target = tmp_path / f"places-{number:05d}"
        target.mkdir()
        step.run(inputs, target)
        placed |= {f"places/{number:05d}/{path.name}": path for path in target.iterdir()}
    (step,) = Dedupe(buckets=1).candidates()
    (tmp_path / "again").mkdir()
    step.run(placed, tmp_path / "again")
    made = tmp_path / "buckets1/candidates-00000"
    assert {path.name: path.read_bytes() for path in made.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()
    }
