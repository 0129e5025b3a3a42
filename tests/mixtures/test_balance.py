"""Balance: of a group of n samples exactly min(n, cap), whatever the order of shards and rows."""

from __future__ import annotations

import json
import random
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.synthetic import Store, lone
from vlmill.mixtures.config import Balance, MixtureEntry, MixtureSettings
from vlmill.mixtures.report.stats import make_stats_table
from vlmill.mixtures.steps import balance
from vlmill.mixtures.steps.balance import GroupCaps, find_capped
from vlmill.mixtures.steps.conditions import check_where
from vlmill.mixtures.steps.lock import verify_lock
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError


def choose(shards, cap, seed=17):
    """The ids that stay of shards of (id, group), and the report."""
    caps = GroupCaps(Balance("topic", cap), seed)
    tables = [
        ([name for name, _ in rows], pl.Series([group for _, group in rows], dtype=pl.Float32)) for rows in shards
    ]
    for ids, groups in tables:
        caps.add(ids, groups)
    bounds = caps.find_bounds()
    kept = {
        name
        for ids, groups in tables
        for name, capped in zip(ids, find_capped(ids, groups, bounds, caps.key), strict=True)
        if not capped
    }
    return kept, caps.report()


TOPICS = st.lists(st.one_of(st.none(), st.integers(0, 6)), min_size=1, max_size=120)


@given(TOPICS, st.integers(1, 30), st.randoms(use_true_random=False), st.integers(1, 40))
def test_a_group_of_n_keeps_exactly_min_of_n_and_cap_in_any_order(topics, cap, shuffler, cut):
    rows = [(f"web/a.parquet#{number}", topic) for number, topic in enumerate(topics)]
    kept, report = choose([rows], cap)
    sizes = Counter(topics)
    left = Counter(topics[int(name.partition("#")[2])] for name in kept)
    assert all(left[topic] == (size if topic is None else min(size, cap)) for topic, size in sizes.items())
    assert report["kept"] + report["without"] == len(kept)
    assert report["without"] == sizes[None]
    assert sum(row["kept"] for row in report["sizes"]) == report["kept"]
    assert report["capped"] == sum(size > cap for topic, size in sizes.items() if topic is not None)
    shuffled = shuffler.sample(rows, len(rows))
    assert choose([shuffled[start : start + cut] for start in range(0, len(rows), cut)], cap)[0] == kept
    assert choose([rows], cap + 1)[0] >= kept


def test_what_is_remembered_is_bounded_and_changes_nothing(monkeypatch):
    draw = random.Random(5)
    rows = [[(f"a#{number}", draw.choice([0, 0, 0, 1])) for number in range(at, at + 50)] for at in range(0, 999, 50)]
    expected = choose(rows, 7)
    monkeypatch.setattr(balance, "MOST", 20)
    longest = []
    original = GroupCaps.add

    def add(self, ids, groups):
        original(self, ids, groups)
        longest.append(sum(found.height for found in self.hashes))

    monkeypatch.setattr(GroupCaps, "add", add)
    assert choose(rows, 7) == expected
    assert max(longest) <= 14 + 20 + 50


def test_other_seeds_choose_others_and_every_sample_has_the_same_chance():
    rows = [[(f"a#{number}", 0) for number in range(10)]]
    chosen = Counter(name for seed in range(400) for name in choose(rows, 3, seed)[0])
    assert sum(chosen.values()) == 1200
    assert min(chosen.values()) > 80
    assert max(chosen.values()) < 160


def select(tmp_path, topics, **settings):
    store = Store(tmp_path)
    store.add("web", lone([10] * len(topics)), per_shard=50, topics=topics)
    entries = {"web": {"repeat": 1, "balance": {"by": "topic", "cap": 12}, **settings}}
    counts = store.select(MixtureSettings(128, entries=entries))["web"]
    return store, counts, json.loads(store.inputs["web/selection.json"].read_text())


def test_an_entry_plans_so_many_of_each_topic_and_says_so(tmp_path):
    topics = [float(number % 3) if number % 7 else None for number in range(160)] + [9.0] * 5
    store, counts, report = select(tmp_path, topics)
    kept = np.load(store.inputs["web/sizes.npy"])["tokens"] > 0
    left = Counter(topic for topic, stays in zip(topics, kept, strict=True) if stays)
    assert left == {0.0: 12, 1.0: 12, 2.0: 12, 9.0: 5, None: 23}
    assert counts["samples"].lost["over_cap"] == 165 - 64
    assert report["balance"]["groups"] == 4
    assert report["balance"]["capped"] == 3
    lock, stats = store.lock(
        MixtureSettings(128, entries={"web": {"repeat": 1, "balance": {"by": "topic", "cap": 12}}})
    )
    assert stats["total"]["samples"] == 64
    assert "balance of web: 3 of 4 groups of topic over 12; 41 of 142 samples; 23 samples in none" in (
        make_stats_table(stats).caption
    )
    assert list(verify_lock(lock, store.inputs)) == []


def test_conditions_and_held_out_samples_come_before_and_take_after(tmp_path):
    topics = [float(number % 2) for number in range(100)]
    _, counts, report = select(tmp_path, topics, where="input_row < 60", take="first:20")
    assert report["balance"]["samples"] == 60
    assert report["balance"]["kept"] == 24
    assert counts["samples"].kept == 20
    assert +counts["samples"].lost == {"over_cap": 36, "not_taken": 44}


def test_groups_may_be_named_by_any_column_and_the_empty_name_is_none(tmp_path):
    store = Store(tmp_path)
    groups = ["doc"] * 30 + [""] * 20
    store.add("web", lone([10] * 50), groups=groups)
    entries = {"web": {"repeat": 1, "balance": {"by": "group", "cap": 4}}}
    counts = store.select(MixtureSettings(128, entries=entries))["web"]
    assert counts["samples"].kept == 24


def test_a_column_that_is_not_there_and_a_cap_of_nothing_are_refused():
    with pytest.raises(RecipeError, match="balance of 'web': there is no column 'topik'; did you mean 'topic'"):
        check_where(MixtureEntry("web", share=1, balance=Balance("topik", 3)), ["topic"])
    entries = {"web": {"share": 1, "balance": {"by": "topic", "cap": 0}}}
    with pytest.raises(RecipeError, match="balance by 'topic' has the cap 0; it is 1 or more"):
        parse_block(MixtureSettings, {"sequence_length": 128, "entries": entries}, "mixture")


def test_a_scaled_run_has_a_cap_that_is_as_much_less():
    entry = MixtureEntry("web", share=1, balance=Balance("topic", 200))
    assert entry.scaled(0.1).balance == Balance("topic", 20)
    assert entry.scaled(0.001).balance == Balance("topic", 1)
