"""Plans: every node once per epoch or counted, shares as declared, the same sequences however the work is divided."""

import json
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.synthetic import (
    Store,
    image,
    lone,
    quiz,
    text,
    web,
)
from vlmill.mixtures.config import MixtureSettings
from vlmill.mixtures.steps.lock import locate_shards, verify_lock
from vlmill.mixtures.steps.plan import SEQUENCES, Plan

FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def mixture(**more):
    return MixtureSettings(
        **{
            "sequence_length": 128,
            "tiles_per_sequence": 4,
            "shares": {"web": 0.5, "quiz": 0.3, "scans": 0.2},
            "pack_window": 64,
            **more,
        }
    )


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    store.add("web", web(1, 130, most_nodes=12))
    store.add("quiz", quiz(2, 90), per_shard=20)
    store.add(
        "scans",
        lone(np.random.default_rng(3).integers(20, 128, 60).tolist()),
        groups=[f"d{number // 3}" for number in range(60)],
    )
    return store


def segments(rows):
    return [segment for row in rows for segment in row["segments"]]


def test_no_row_exceeds_a_budget_and_sums_are_right(store):
    for row in store.plan(mixture(epochs=2)):
        assert row["tokens"] == sum(segment["tokens"] for segment in row["segments"]) <= 128
        assert row["tiles"] == sum(segment["tiles"] for segment in row["segments"]) <= 4


def read_visual(store, row):
    """Visual tokens of a sequence, of the lengths that its segments' nodes have."""
    total = 0
    for segment in row["segments"]:
        shard = store.shards[SOURCES[segment["source"]]][segment["shard"]]
        lengths = pq.read_table(store.inputs[shard.lengths]).to_pylist()[segment["row"]]
        total += sum(node["visual"] for node in lengths["nodes"][segment["first"] : segment["last"]])
    return total


SOURCES = ("web", "quiz", "scans")


@pytest.mark.parametrize("patches", [4 * 40, 4 * 25])
def test_no_row_exceeds_a_budget_of_patches(store, patches):
    free, bound = mixture(epochs=2), mixture(epochs=2, patches_per_sequence=patches)
    assert max(read_visual(store, row) for row in store.plan(free)) > patches // 4  # else it would not bind
    rows = store.plan(bound)
    lock, stats = store.lock(bound)
    numbers = stats["packing"]["visual_per_sequence"]
    assert (numbers["most"], numbers["budget"]) == (max(row["visual"] for row in rows), patches // 4)
    assert numbers["mean"] == pytest.approx(np.mean([row["visual"] for row in rows]), abs=1e-5)
    for row in rows:
        assert row["visual"] == read_visual(store, row) <= patches // 4
        assert row["tokens"] <= 128
        assert row["tiles"] == sum(segment["tiles"] for segment in row["segments"]) <= 4
    assert list(verify_lock(lock, store.inputs)) == []
    lock["visual_per_sequence"] = numbers["most"] - 1
    assert any("visual tokens of its sequences exceed" in said for said in verify_lock(lock, store.inputs))


def test_what_exceeds_a_budget_of_patches_alone_is_counted_as_lost(store):
    whole = store.select(mixture())
    few = store.select(mixture(patches_per_sequence=4 * 6))
    assert few["web"]["nodes"].kept < whole["web"]["nodes"].kept
    assert few["scans"]["nodes"] == whole["scans"]["nodes"]  # texts alone


def test_a_budget_of_patches_that_never_binds_changes_no_sequence(store):
    free, wide = store.plan(mixture(epochs=2)), store.plan(mixture(epochs=2, patches_per_sequence=1 << 40))
    assert max(sum(s["tiles"] for s in row["segments"]) for row in wide) <= 4
    assert sum(len(row["segments"]) for row in wide) == sum(len(row["segments"]) for row in free)
    assert len(wide) <= 1.05 * len(free)


def test_in_whole_epochs_every_node_comes_once_each_or_is_a_counted_loss(store):
    shares = {"web": 1, "quiz": 2, "scans": 3}
    rows = store.plan(mixture(shares={}, repeat=shares))
    counts = store.select(mixture(shares={}, repeat=shares))
    for source, (label, epochs) in enumerate(shares.items()):
        mine = [segment for segment in segments(rows) if segment["source"] == source]
        nodes = Counter((s["epoch"], s["shard"], s["row"], node) for s in mine for node in range(s["first"], s["last"]))
        assert set(nodes.values()) == {1}
        assert len(nodes) == epochs * counts[label]["nodes"].kept
        assert {key[0] for key in nodes} == set(range(epochs))


def test_held_out_samples_are_in_no_row(store):
    lock, _ = store.lock(mixture(held_out={"scans": 0.3}, epochs=3))
    held = {tuple(row.values()) for row in pq.read_table(store.inputs["held_out.parquet"]).to_pylist()}
    planned = {
        (s["source"], s["shard"], s["row"])
        for path in store.inputs
        if path.startswith("plan/")
        for row in pq.read_table(store.inputs[path]).to_pylist()
        for s in row["segments"]
    }
    assert held
    assert not held & planned
    assert lock["held_out"]["samples"] == len(held)


@pytest.mark.parametrize("unit", ["samples", "images", "text", "visual", "supervised", "tokens"])
def test_shares_hold_in_every_unit(store, unit):
    shares = {"web": 0.7, "quiz": 0.3}
    _, stats = store.lock(mixture(shares=shares, unit=unit, epochs=8, max_repetition=99))
    for source in stats["sources"]:
        assert source["realised"][unit] == pytest.approx(shares[source["name"]], abs=0.005)


def test_shares_of_tokens_hold_at_the_end_of_every_window(store):
    windows, longest = 64, 300
    asked = mixture(unit="tokens", epochs=6, pack_window=windows, windows_per_block=1)
    mix = store.mix(asked)
    spent = np.zeros(3)
    for block in range(mix["blocks"]):
        Plan(block).run(store.inputs, store.root)
        for segment in segments(pq.read_table(store.root / f"{block:05d}.parquet").to_pylist()):
            spent[segment["source"]] += segment["tokens"]
        assert np.abs(spent - spent.sum() * np.array([0.5, 0.3, 0.2])).max() <= longest


def test_a_small_source_is_in_every_window_that_its_share_reaches(tmp_path):
    store = Store(tmp_path)
    store.add("large", lone([10] * 3000), per_shard=500)
    store.add("small", lone([10] * 3))
    shares = {"large": 0.95, "small": 0.05}
    rows = store.plan(MixtureSettings(64, shares=shares, pack_window=100, windows_per_block=1, max_repetition=99))
    mix = json.loads(store.inputs["mix.json"].read_text())
    inside = Counter()
    for block in range(mix["blocks"] - 1):
        found = [
            s["source"]
            for row in pq.read_table(store.inputs[f"plan/{block:05d}.parquet"]).to_pylist()
            for s in row["segments"]
        ]
        inside[found.count(1)] += 1
    assert set(inside) <= {4, 5, 6}
    assert sum(len(row["segments"]) for row in rows) == mix["samples"]


@FEW
@given(st.integers(1, 9), st.sampled_from(["samples", "tokens"]))
def test_rows_are_the_same_however_windows_are_divided_into_blocks(store, windows, unit):
    whole = store.plan(mixture(unit=unit, epochs=2, windows_per_block=100))
    assert store.plan(mixture(unit=unit, epochs=2, windows_per_block=windows)) == whole


def test_a_block_is_planned_without_the_others_and_always_in_the_same_bytes(store, tmp_path):
    mix = store.mix(mixture(epochs=2))
    assert mix["blocks"] == 1
    mix = store.mix(mixture(epochs=2, windows_per_block=2))
    files = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for block in reversed(range(mix["blocks"])) if folder == "b" else range(mix["blocks"]):
            Plan(block).run(store.inputs, tmp_path / folder)
        files.append([(path.name, path.read_bytes()) for path in sorted((tmp_path / folder).iterdir())])
    assert files[0] == files[1]
    assert len(files[0]) > 2


def uses(rows):
    """(source, shard, row) -> the plan row and epoch of each of its uses, in the order of rows."""
    found = defaultdict(list)
    for number, row in enumerate(rows):
        for use in sorted({(s["source"], s["shard"], s["row"], s["epoch"]) for s in row["segments"]}):
            found[use[:3]].append((number, use[3]))
    return found


def check_repeats(rows):
    """No row holds a sample of two epochs, and an epoch of a source is through before its next begins."""
    for places in uses(rows).values():
        numbers = [number for number, _ in places]
        epochs = [epoch for _, epoch in places]
        assert epochs == sorted(epochs)
        assert all(len({e for n, e in places if n == number}) == 1 for number in numbers)
    first, last = {}, {}
    for number, row in enumerate(rows):
        for segment in row["segments"]:
            last[segment["source"], segment["epoch"]] = number
            first.setdefault((segment["source"], segment["epoch"]), number)
    for (source, epoch), number in last.items():
        assert number <= first.get((source, epoch + 1), number)


@FEW
@given(
    st.lists(st.integers(1, 25), min_size=1, max_size=3),
    st.sampled_from(["samples", "tokens"]),
    st.sampled_from([1, 7, 64, 4096]),
    st.integers(1, 9),
)
def test_no_row_holds_a_sample_twice_and_an_epoch_is_through_before_the_next(
    tmp_path_factory, sizes, unit, window, epochs
):
    store = Store(tmp_path_factory.mktemp("store"))
    for source, size in enumerate(sizes):
        store.add(str(source), quiz(source, size) if source % 2 else web(source, size, most_nodes=12), per_shard=7)
    shares = {str(source): 1 for source in range(len(sizes))}
    rows = store.plan(mixture(shares=shares, unit=unit, pack_window=window, epochs=epochs))
    check_repeats(rows)


@pytest.mark.parametrize("step", [2, 8])
def test_no_step_holds_a_sample_twice_where_half_a_source_fills_more(tmp_path, step):
    store = Store(tmp_path)
    random = np.random.default_rng(0)
    store.add("quiz", lone(random.integers(10, 40, 160).tolist()), per_shard=40)
    store.add("pairs", lone(random.integers(5, 100, 900).tolist()), per_shard=40)
    rows = store.plan(mixture(shares={"quiz": 0.5, "pairs": 0.5}, pack_window=512, epochs=2))
    for start in range(0, len(rows), step):
        for places in uses(rows[start : start + step]).values():
            assert len({epoch for _, epoch in places}) == 1
    assert sum(row["tokens"] for row in rows) / len(rows) / 128 > 0.96


def test_copies_are_half_an_epoch_apart_across_windows_too(tmp_path):
    store = Store(tmp_path)
    store.add("quiz", lone(np.random.default_rng(0).integers(10, 40, 160).tolist()), per_shard=160)
    rows = store.plan(mixture(shares={"quiz": 1}, pack_window=100, epochs=12))
    per_half = len(rows) / 24
    gaps = [after - before for places in uses(rows).values() for (before, _), (after, _) in pairwise(places)]
    assert min(gaps) > 0.7 * per_half


def test_one_sample_takes_as_many_sequences_as_it_comes_times(tmp_path):
    store = Store(tmp_path)
    store.add("quiz", lone([10]))
    rows = store.plan(mixture(shares={"quiz": 1}, epochs=100, max_repetition=100))
    assert [[s["epoch"] for s in row["segments"]] for row in rows] == [[epoch] for epoch in range(100)]
    assert any(
        "no sequence holds a sample twice" in warning
        for warning in json.loads(store.inputs["mix.json"].read_text())["warnings"]
    )


def test_no_row_holds_a_sample_of_two_parts_of_a_source(store):
    entries = [{"source": "quiz", "share": 0.5, "take": "first:10"}, {"source": "quiz", "share": 0.5}]
    rows = store.plan(mixture(shares={}, entries=entries, epochs=4))
    for row in rows:
        found = {(s["shard"], s["row"], s["source"], s["epoch"]) for s in row["segments"]}
        assert len({use[:2] for use in found}) == len(found)


def test_a_budget_of_sequences_is_met_nearly_where_sequences_stay_emptier(tmp_path):
    store = Store(tmp_path)
    store.add("web", lone([10, 12, 14]))
    asked = MixtureSettings(128, shares={"web": 1}, sequences=70, max_repetition=99)
    assert len(store.plan(asked)) == pytest.approx(70, rel=0.05)


def test_another_seed_is_another_order_of_the_same_samples(store):
    repeat = {"shares": {}, "repeat": {"web": 1, "quiz": 1, "scans": 1}}
    first, second = (segments(store.plan(mixture(**repeat), seed)) for seed in (17, 18))
    names = [[(s["source"], s["shard"], s["row"], s["first"]) for s in found] for found in (first, second)]
    assert names[0] != names[1]
    assert sorted(names[0]) == sorted(names[1])


def test_another_part_leaves_the_order_inside_a_source_alone(store):
    def walk(shares):
        return [
            (s["shard"], s["row"])
            for s in segments(store.plan(mixture(shares=shares, pack_window=1, epochs=0.5)))
            if s["source"] == 0
        ]

    alone, beside = walk({"web": 1}), walk({"web": 0.5, "quiz": 0.5})
    shorter = min(len(alone), len(beside))
    assert alone[:shorter] == beside[:shorter]


def test_the_rows_of_a_step_are_a_small_image_of_the_window(tmp_path):
    store = Store(tmp_path)
    store.add("web", lone(np.random.default_rng(0).integers(20, 128, 600).tolist()), per_shard=200)
    store.add("pairs", lone([9] * 600), per_shard=200)
    rows = store.plan(MixtureSettings(128, shares={"web": 0.7, "pairs": 0.3}, unit="tokens", epochs=2))
    held = np.array(
        [[sum(s["tokens"] for s in row["segments"] if s["source"] == source) for source in (0, 1)] for row in rows]
    )
    steps = held[: len(held) // 32 * 32].reshape(-1, 32, 2).sum(axis=1)
    assert np.abs(steps[:, 1] / steps.sum(axis=1) - 0.3).max() < 0.05


def test_rows_of_a_window_do_not_come_by_length(tmp_path):
    store = Store(tmp_path)
    store.add("web", lone(np.random.default_rng(0).integers(5, 128, 2000).tolist()), per_shard=500)
    rows = store.plan(MixtureSettings(128, shares={"web": 1}))
    counts = [len(row["segments"]) for row in rows]
    assert abs(np.corrcoef(counts, range(len(counts)))[0, 1]) < 0.1


def test_a_budget_of_rows_is_met_nearly(tmp_path):
    store = Store(tmp_path)
    store.add("web", lone(np.random.default_rng(0).integers(5, 128, 2000).tolist()), per_shard=500)
    assert len(store.plan(MixtureSettings(128, shares={"web": 1}, sequences=700))) == pytest.approx(700, rel=0.02)


def test_a_source_may_have_its_own_length(store):
    rows = store.plan(
        mixture(shares={}, entries={"web": {"share": 0.5}, "scans": {"share": 0.5, "sequence_length": 40}}, epochs=1)
    )
    assert (
        max(s["tokens"] for s in segments(rows) if s["source"] == 1)
        <= 40
        < max(s["tokens"] for s in segments(rows) if s["source"] == 0)
    )


def test_a_source_in_two_parts_is_two_sources_of_the_plan(store):
    entries = [
        {"source": "quiz", "share": 0.5, "take": "first:10"},
        {"source": "quiz", "share": 0.5},
        {"source": "web", "share": 1.0},
    ]
    lock, stats = store.lock(mixture(shares={}, entries=entries, held_out={"quiz": 0.1}))
    assert [source["label"] for source in lock["sources"]] == ["quiz", "quiz@2", "web"]
    assert stats["warnings"][0].startswith("quiz: 10 samples stand in several entries, so they may come more often")
    held = pq.read_table(store.inputs["held_out.parquet"])["source"].to_pylist()
    assert set(held) == {0}


@pytest.mark.parametrize(("least", "said"), [(6, False), (4, True)])
def test_entries_of_one_source_that_share_no_sample_are_not_warned_of(store, monkeypatch, least, said):
    monkeypatch.setattr("vlmill.mixtures.steps.mix.ROWS", 7)
    entries = [
        {"source": "web", "share": 0.5, "where": "nodes < 6"},
        {"source": "web", "share": 0.5, "where": f"nodes >= {least}"},
    ]
    _, stats = store.lock(mixture(shares={}, entries=entries))
    assert any("stand in several entries" in warning for warning in stats["warnings"]) == said


def test_the_lock_names_every_block_and_its_first_row(store):
    lock, _ = store.lock(mixture(epochs=4, windows_per_block=2))
    blocks = lock["plan"]["blocks"]
    assert [block["first"] for block in blocks] == np.cumsum(
        [0, *(block["sequences"] for block in blocks[:-1])]
    ).tolist()
    assert lock["plan"]["sequences"] == sum(block["sequences"] for block in blocks)
    every = [row for block in blocks for row in pq.read_table(store.inputs[block["path"]]).to_pylist()]
    for number in (0, 1, blocks[1]["first"] - 1, blocks[1]["first"], lock["plan"]["sequences"] - 1):
        block, row = locate_shards(lock, number)
        assert pq.read_table(store.inputs[blocks[block]["path"]]).to_pylist()[row] == every[number]
    with pytest.raises(IndexError, match=f"sequences 0 to {len(every) - 1}, not {len(every)}"):
        locate_shards(lock, len(every))


def test_a_lock_that_nothing_was_changed_under_is_sound(store):
    lock, _ = store.lock(mixture(epochs=2, held_out={"scans": 0.2}))
    assert list(verify_lock(lock, store.inputs)) == []


def test_a_changed_block_a_changed_list_and_changed_tables_are_found(store, tmp_path):
    lock, _ = store.lock(mixture(held_out={"scans": 0.2}))
    rows = pq.read_table(store.inputs["plan/00000.parquet"])
    pq.write_table(rows.slice(1), store.inputs["plan/00000.parquet"])
    store.inputs["held_out.parquet"].write_bytes(b"")
    other = Store(tmp_path / "other")
    other.add("quiz", [[text(5, "user"), text(3, "assistant")]] + [[image(9)]] * 19, per_shard=20)
    store.inputs[store.shards["quiz"][0].lengths] = other.inputs[other.shards["quiz"][0].lengths]
    assert list(verify_lock(lock, store.inputs)) == [
        "plan/00000.parquet is not the file that was locked",
        "held_out.parquet is not the file that was locked",
        "quiz: the samples that the tables yield now are not those that were locked",
    ]


def test_the_columns_of_a_plan_are_those_that_trainers_rely_on():
    assert [f"{field.name} {field.type}" for field in SEQUENCES] == [
        "tokens int32",
        "tiles int32",
        (
            "segments list<item: struct<source: int16 not null, shard: int32 not null, row: int32 not null, first: "
            "int32 not null, last: int32 not null, epoch: int16 not null, tokens: int32 not null, tiles: int32 not "
            "null, begin: int32 not null, end: int32 not null> not null>"
        ),
    ]
