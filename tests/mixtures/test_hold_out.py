"""Held out by picture: no picture of a held-out sample is trained on, unless a source hangs together, which is said."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from itertools import pairwise
from math import log2
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.synthetic import Store, image, quiz
from vlmill.mixtures.algorithms.order import make_order_key
from vlmill.mixtures.config import MixtureSettings
from vlmill.mixtures.report.shared_pictures import SharedPictures, find_shared_pictures
from vlmill.mixtures.steps.hold_out import LARGEST, Rows, choose_held_out
from vlmill.pipeline.dedupe.links import HELD, NumberTable, connect_links
from vlmill.pipeline.dedupe.pairs import PAIRS


def mixture(**settings):
    return MixtureSettings(sequence_length=256, **{"shares": {"quiz": 1}, **settings})


def rows_of(pictures, start=0):
    """A shard of documents that show these pictures."""
    named = [(row, f"{number:016x}") for row, shown in enumerate(pictures) for number in shown]
    table = pl.DataFrame(named, schema={"row": pl.Int32, "sha256": pl.String}, orient="row")
    return Rows(pl.Series([f"quiz#{start + row}" for row in range(len(pictures))], dtype=pl.String), table)


def choose(shards, seed, fraction, near=(), held=HELD):
    """Which rows of each shard of the source quiz are held out."""
    with TemporaryDirectory() as folder:
        found = choose_held_out(iter(shards), "quiz", seed, fraction, near, Path(folder), held)
        assert not list(Path(folder).iterdir())
    return found


def find_sides(pictures, held):
    """The pictures that held-out rows show, and those that others show."""
    return [
        {number for shown, out in zip(pictures, held, strict=True) if out is side for number in shown}
        for side in (True, False)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_no_picture_of_a_held_out_sample_is_trained_on(seed):
    random = np.random.default_rng(seed)
    pictures = [[n // 8] for n in range(400)] + [[100 + n // 2, 101 + n // 2] for n in range(0, 60, 4)]
    pictures = [pictures[place] for place in random.permutation(len(pictures))]
    cut = len(pictures) // 3
    held = choose([rows_of(pictures[:cut]), rows_of(pictures[cut:], cut)], seed, 0.2)
    held = np.concatenate(held).tolist()
    out, trained = find_sides(pictures, held)
    assert out
    assert trained
    assert not out & trained


def test_what_is_held_out_depends_on_no_order_and_on_no_other_source():
    pictures = [[n // 3] for n in range(90)]
    (held,) = choose([rows_of(pictures)], 3, 0.2)
    whole = rows_of(pictures)
    order = np.random.default_rng(0).permutation(90)
    place = {int(row): new for new, row in enumerate(order)}
    turned = Rows(
        pl.Series([whole.documents[int(row)] for row in order]),
        whole.pictures.with_columns(pl.col("row").replace_strict(place, return_dtype=pl.Int32)).reverse(),
    )
    (again,) = choose([turned], 3, 0.2)
    assert again.tolist() == held[order].tolist()
    assert 0 < held.sum() < 90


def test_a_picture_on_every_page_does_not_hold_out_all_or_nothing():
    pictures = [[7, 100 + n] for n in range(300)]
    held = [choose([rows_of(pictures)], seed, 0.1)[0].sum() for seed in range(4)]
    assert all(10 <= number <= 60 for number in held), held


def test_samples_without_pictures_are_held_out_one_by_one_and_a_source_may_be_empty():
    (held,) = choose([rows_of([[]] * 400)], 1, 0.25)
    assert 60 <= held.sum() <= 140
    assert choose([rows_of([])], 1, 0.25)[0].size == 0


def test_all_of_a_source_may_be_held_out_whatever_its_pictures():
    held = choose([rows_of([[7, 100 + n] for n in range(50)]), rows_of([[]] * 20, start=50), rows_of([], 70)], 1, 1)
    assert [(rows.dtype, rows.size, rows.all()) for rows in held] == [
        (bool, 50, True),
        (bool, 20, True),
        (bool, 0, True),
    ]


def write_pairs(folder, near, similarity=0.99):
    """Pairs of pictures as dedupe leaves them, in two files, and one pair in each that is not near enough."""
    paths = []
    for number in range(2):
        mine = [*near[number::2], (1 << 60, 1 << 61)]
        ends = {"one": [min(pair) for pair in mine], "other": [max(pair) for pair in mine]}
        paths.append(folder / f"{number}.image.pairs.parquet")
        table = {**ends, "similarity": [similarity] * (len(mine) - 1) + [0.5]}
        pq.write_table(pa.table(table, schema=PAIRS), paths[-1])
    return paths


def find_shared(store, mixture, near=()):
    lock, _ = store.lock(mixture)
    pairs = write_pairs(store.root, near)
    found = find_shared_pictures(store.root, lock, store.inputs["held_out.parquet"], pairs, 0.9)
    return found, lock["held_out"]["samples"]


def test_the_stage_counts_held_out_samples_whose_picture_is_trained_on(tmp_path):
    store = Store(tmp_path)
    store.add("quiz", quiz(1, 120), per_shard=40, pictures=[[n // 4] for n in range(120)])
    found, held = find_shared(store, mixture(held_out={"quiz": 0.2}))
    assert found == SharedPictures(0, {}, {})
    assert held
    logo = Store(tmp_path / "logo")
    logo.add("quiz", quiz(1, 120), per_shard=40, pictures=[[5] for _ in range(120)])
    found, held = find_shared(logo, mixture(held_out={"quiz": 0.2}))
    assert found == SharedPictures(held, {"quiz": held}, {})
    assert held
    assert find_shared(logo, mixture())[0] == SharedPictures(0, {}, {})


def test_a_sample_of_images_alone_trains_on_no_picture(tmp_path):
    store = Store(tmp_path)
    alone = [[image()] if n % 2 else nodes for n, nodes in enumerate(quiz(1, 120))]
    store.add("quiz", alone, per_shard=40, pictures=[[n // 2] for n in range(120)])
    found, held = find_shared(store, mixture(held_out={"quiz": 0.2}))
    assert held
    assert found == SharedPictures(0, {}, {})


def test_pictures_that_another_source_trains_on_are_counted_by_source_the_same_and_the_similar(tmp_path):
    store = Store(tmp_path)
    store.add("quiz", quiz(1, 60), per_shard=200, pictures=[[n] for n in range(60)])
    store.add("web", quiz(2, 60), per_shard=200, pictures=[[n] for n in range(60)], shown_by="quiz")
    store.add("scans", quiz(3, 60), per_shard=200, pictures=[[n] for n in range(60)])
    asked = mixture(shares={"quiz": 1, "web": 1, "scans": 1}, held_out={"quiz": 0.3})
    pairs = [[store.key("quiz", n), store.key("scans", n)] for n in range(0, 60, 2)]
    found, held = find_shared(store, asked, pairs)
    out = set(pl.read_parquet(store.inputs["held_out.parquet"])["row"].to_list())
    assert len(out) == held
    assert found == SharedPictures(held, {"web": held}, {"scans": sum(row % 2 == 0 for row in out)})
    turned, _ = find_shared(store, asked, pairs[::-1])
    assert turned == found


@pytest.mark.parametrize("seed", range(3))
def test_shared_pictures_are_the_same_in_blocks_of_any_size(tmp_path, seed):
    random, store = np.random.default_rng(seed), Store(tmp_path)
    shown = {
        source: [random.integers(0, 40, random.integers(0, 4)).tolist() for _ in range(90)]
        for source in ("quiz", "web", "scans")
    }
    by = {"quiz": "quiz", "web": "quiz", "scans": "scans"}
    for number, (source, pictures) in enumerate(shown.items()):
        store.add(source, quiz(number, 90), per_shard=20, pictures=pictures, shown_by=by[source])
    names = [(source, number) for source in ("quiz", "scans") for number in range(40)]
    near = [tuple(names[place] for place in random.choice(len(names), 2, replace=False)) for _ in range(30)]
    asked = mixture(shares=dict.fromkeys(shown, 1), held_out={"quiz": 0.3, "scans": 0.1})
    lock, _ = store.lock(asked)
    table = store.inputs["held_out.parquet"]
    held = pl.read_parquet(table).rows()
    labels = [source["name"] for source in lock["sources"]]
    out = {(labels[source], 20 * shard + row) for source, shard, row in held}
    trained = {
        (by[source], number, source)
        for source, pictures in shown.items()
        for row, numbers in enumerate(pictures)
        for number in numbers
        if (source, row) not in out
    }
    like = {(one, other) for pair in near for one, other in (pair, pair[::-1])}
    same, alike = set(), set()
    for source, row in out:
        for number in shown[source][row]:
            mine = (by[source], number)
            same |= {(source, row, at) for name, seen, at in trained if (name, seen) == mine}
            alike |= {(source, row, at) for name, seen, at in trained if (mine, (name, seen)) in like}
    alike -= same

    def count(found):
        totals = [at for _, _, at in found]
        return {at: totals.count(at) for at in totals}

    wanted = SharedPictures(len({(source, row) for source, row, _ in same | alike}), count(same), count(alike))
    pairs = write_pairs(tmp_path, [(store.key(*one), store.key(*other)) for one, other in near])
    for block in (1, 7, 1 << 17):
        assert find_shared_pictures(store.root, lock, table, pairs, 0.9, block) == wanted
    assert wanted.samples
    assert wanted.same
    assert wanted.near


# -- pictures that are nearly the same


@pytest.mark.parametrize("seed", range(4))
def test_no_picture_that_is_nearly_one_of_a_held_out_sample_is_trained_on(seed):
    pictures = [[n // 2] for n in range(400)]
    near = np.array([[n, n + 1] for n in range(0, 200, 2)] + [[n, 9999] for n in range(199)], np.uint64)
    (held,) = choose([rows_of(pictures)], seed, 0.2, [near])
    out, trained = find_sides(pictures, held.tolist())
    assert out
    assert trained
    assert not {number // 2 for number in out} & {number // 2 for number in trained}
    assert (choose([rows_of(pictures)], seed, 0.2, [near[::-1, ::-1]])[0] == held).all()
    (exact,) = choose([rows_of(pictures)], seed, 0.2)
    assert exact.tolist() != held.tolist()


def test_where_most_pictures_are_nearly_the_same_they_are_held_out_by_the_same_alone():
    pictures = [[n // 4] for n in range(400)]
    chain = np.array([[n, n + 1] for n in range(80)], np.uint64)
    (held,) = choose([rows_of(pictures)], 3, 0.2, [chain])
    out, trained = find_sides(pictures, held.tolist())
    assert len(out) > 5
    assert not out & trained


def test_select_reads_the_pairs_from_the_similarity_on_that_dedupe_takes_for_the_same(tmp_path):
    store = Store(tmp_path)
    store.add("quiz", quiz(1, 120), per_shard=200, pictures=[[n] for n in range(120)])
    ends = [(store.key("quiz", n), store.key("quiz", n + 60)) for n in range(60)]
    similarity = [0.99 if n % 2 else 0.93 for n in range(60)]
    pairs = {"one": [min(pair) for pair in ends], "other": [max(pair) for pair in ends], "similarity": similarity}
    store.inputs["0000/image.pairs.parquet"] = tmp_path / "image.pairs.parquet"
    pq.write_table(pa.table(pairs, schema=PAIRS), tmp_path / "image.pairs.parquet")
    split = []
    for near in (0.97, 0.9, None):
        store.select(mixture(held_out={"quiz": 0.3}), near=near)
        out = set(np.load(store.inputs["quiz/held_out.npy"])["row"].tolist())
        split.append([n for n in range(60) if (n in out) != (n + 60 in out)])
    assert split[1] == []
    assert split[0]
    assert all(n % 2 == 0 for n in split[0])
    assert any(n % 2 for n in split[2])


# -- in pieces


def spread(number):
    """A key of a small number, anywhere among all keys."""
    return number * 0x9E3779B97F4A7C15 % 2**64


def label_by_search(links):
    """The smallest node that each node is connected to, by a walk over all."""
    near, labels = {}, {}
    for one, other in links:
        near.setdefault(one, []).append(other)
        near.setdefault(other, []).append(one)
    for start in sorted(near):
        waiting = [start]
        while waiting:
            if (node := waiting.pop()) not in labels:
                labels[node] = start
                waiting += near[node]
    return labels


def choose_by_search(shards, seed, fraction, near):
    """What `choose` finds, a row at a time."""
    bound = int(fraction * 2**64)
    keys = [[make_order_key(seed, "held_out", "quiz", name) for name in shard.documents] for shard in shards]
    links = [(key, key) for names in keys for key in names]
    for names, shard in zip(keys, shards, strict=True):
        links += [(names[row], int(sha256[:16], 16)) for row, sha256 in shard.pictures.rows()]
    nodes = {node for link in links for node in link}
    same = label_by_search(links)
    alike = label_by_search([*links, *(pair for pair in near if nodes >= set(pair))])

    def find_large(label):
        counts = Counter(label(key) for names in keys for key in names)
        return {at for at, n in counts.items() if n > 1 and n > max(LARGEST, fraction) * counts.total()}

    apart = find_large(alike.get)

    def label(key):
        return same[key] if alike[key] in apart else alike[key]

    large = find_large(label)

    def is_out(key):
        return (key if label(key) in large else make_order_key(seed, "held_out", "quiz", str(label(key)))) < bound

    return [[is_out(key) for key in names] for names in keys]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 120),
    st.integers(1, 150),
    st.integers(0, 150),
    st.integers(1, 4),
    st.sampled_from([0.02, 0.3, 0.6]),
    st.integers(8, 150),
)
def test_pieces_of_any_size_choose_what_a_search_through_all_rows_does(seed, rows, pictures, pairs, cuts, share, held):
    random = np.random.default_rng(seed)
    names = [f"page {number}" for number in random.integers(0, rows, rows)]
    shown = [random.integers(0, pictures, random.choice([0, 1, 1, 2])).tolist() for _ in range(rows)]
    near = [tuple(map(spread, pair)) for pair in random.integers(0, pictures + 9, (pairs, 2)).tolist()]
    shards = []
    for places in np.array_split(np.arange(rows), cuts):
        found = rows_of([[spread(number) for number in shown[row]] for row in places])
        shards.append(Rows(pl.Series([names[row] for row in places], dtype=pl.String), found.pictures))
    parts = [part for part in np.array_split(np.array(near, np.uint64).reshape(-1, 2), 2) if len(part)]
    held_out = choose(shards, seed, share, parts, held)
    assert [found.tolist() for found in held_out] == choose_by_search(shards, seed, share, near)


@pytest.mark.parametrize("shape", ["chain", "ring", "star"])
@pytest.mark.parametrize("held", [100, 5000])
def test_rounds_over_files_are_bounded_by_the_logarithm(tmp_path, monkeypatch, shape, held):
    keys = [spread(number) for number in range(1, 513)]
    links = [(keys[7], key) for key in keys if key != keys[7]] if shape == "star" else list(pairwise(keys))
    if shape == "ring":
        links.append((keys[-1], keys[0]))
    tables, make_like = [], NumberTable.make_like
    monkeypatch.setattr(NumberTable, "make_like", lambda table: tables.append(1) or make_like(table))
    table = NumberTable(tmp_path, 3, held)
    table.add_turned(*np.array(links, np.uint64).T)
    stars = connect_links(table)
    rows = np.concatenate([part.T for number in range(3) for part in stars.read(number)])
    assert {tuple(row) for row in rows.tolist()} == {
        (one, other) for key in keys if key != min(keys) for one, other in ((key, min(keys)), (min(keys), key))
    }
    assert len(tables) / 2 <= log2(512) + 2


@pytest.mark.parametrize("logo", [True, False])
def test_memory_does_not_grow_with_rows_nor_with_those_that_show_one_picture(logo):
    def list_shards(number):
        for start in range(0, 500 * number, 500):
            yield rows_of([[spread(row // 3), *([7] if logo else [])] for row in range(start, start + 500)], start)

    def measure_peak(number):
        near = (np.array([[spread(n), spread(n + 1)] for n in range(start, 300)], np.uint64) for start in (0, 99))
        tracemalloc.start()
        choose(list_shards(number), 3, 0.2, near, held=1000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    measure_peak(2)  # what is made once
    few, many = measure_peak(4), measure_peak(16)
    assert many - few < 6000 * 8, "less than eight bytes a row"
