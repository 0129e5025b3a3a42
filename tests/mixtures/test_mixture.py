"""The settings of a mixture, the solver, the lint, and what the select step leaves."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.synthetic import (
    OVERHEAD,
    Store,
    image,
    lone,
    quiz,
    text,
    web,
)
from vlmill.mixtures.algorithms.solve import Binding, Solution, solve_mixture
from vlmill.mixtures.config import MAX_REPETITION, MixtureEntry, MixtureSettings
from vlmill.mixtures.report.warnings import warn_of_settings
from vlmill.mixtures.steps.conditions import check_where
from vlmill.mixtures.steps.select import list_selects
from vlmill.mixtures.steps.selection import Selection
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError, StoreError

UNTIMED = settings(deadline=None)


def mixture(**settings):
    return MixtureSettings(sequence_length=128, **settings)


def holdings(samples, tokens, **more):
    return {
        "samples": samples,
        "tokens": tokens,
        "images": samples,
        "text": tokens,
        "visual": 0,
        "supervised": tokens,
        **more,
    }


def test_shares_repeats_and_parts_are_three_ways_to_say_it():
    assert mixture(shares={"web": 0.4}).resolved() == (MixtureEntry("web", share=0.4),)
    assert mixture(repeat={"web": 4}).resolved() == (MixtureEntry("web", repeat=4.0),)
    assert mixture(entries={"web": 0.4, "quiz": {"share": 0.6, "take": "first:5"}}).resolved() == (
        MixtureEntry("web", share=0.4),
        MixtureEntry("quiz", share=0.6, take="first:5"),
    )
    assert mixture(entries=[{"source": "web"}, {"source": "web"}], max_repetition=3).labels() == ("web", "web@2")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "one of shares, repeat and entries; this one has none"),
        ({"shares": {"web": 1}, "repeat": {"web": 1}}, "this one has shares and repeat"),
        ({"shares": {"web": 1}, "epochs": 2, "tokens": 5}, "one budget at most"),
        ({"shares": {"web": 0}}, "share of 'web' is 0"),
        ({"shares": {"web": math.inf}}, r"shares\.web: Input should be a finite number, not inf"),
        ({"shares": {"web": 1}, "tokens": "inf"}, r"tokens: Input should be a finite number, not 'inf'"),
        ({"shares": {"web": 1}, "pack_window": 0}, "pack_window is 0"),
        ({"entries": {"web": 1, "quiz": {}}}, "either all entries have a share or none has"),
        ({"entries": {"web": {"share": 1, "repeat": 1}}}, "a share or a repeat, not both"),
        ({"entries": {"web": {"take": "some"}}}, "'some'; allowed: all, first:N, end:N, random:N"),
        (
            {"entries": {"web": {"sequence_length": 129}}},
            "sequence_length of 'web' is 129; a sequence holds 128 at most",
        ),
        ({"entries": {"web": {"take": "first:0%"}}}, "'first:0%'; N is above 0"),
        ({"entries": {"web": {"take": "random:110%"}}}, "'random:110%'; N is above 0, and a percentage at most 100%"),
        ({"shares": {"web": 1}, "held_out": {"web": 1.5}}, "held_out of 'web' is 1.5; it is a fraction from 0 to 1"),
        ({"repeat": {"web": 0}}, "repeat of 'web' is 0.*or the source held out whole: held_out: {web: 1}"),
        ({"shares": {"web": 0, "quiz": 1}, "held_out": {"web": 0.9}}, "share of 'web' is 0"),
        ({"shares": {"web": -1, "quiz": 1}, "held_out": {"web": 1}}, "share of 'web' is -1"),
        ({"shares": {"web": 2, "quiz": 1}, "held_out": {"web": 1}}, "'web' is 1, so .* its share is 0 then, not 2"),
        (
            {"entries": {"web": {}}, "held_out": {"web": 1}},
            "keeps all of every source, so there is nothing to train on",
        ),
        ({"share": {"web": 1}}, "unknown key 'share'; did you mean 'shares'"),
        ({"shares": {"web": 1}, "unit": "words"}, "unit"),
    ],
)
def test_what_contradicts_itself_is_refused_with_what_was_allowed(settings, message):
    with pytest.raises(RecipeError, match=message):
        parse_block(MixtureSettings, {"sequence_length": 128, **settings}, "mixture")


def test_numbers_in_the_scientific_notation_of_yaml_are_read():
    assert (
        parse_block(
            MixtureSettings, {"sequence_length": 128, "shares": {"web": 1}, "tokens": "3.2e9"}, "mixture"
        ).tokens
        == 3.2e9
    )


@pytest.mark.parametrize(
    ("take", "left"), [("all", 200), ("first:30", 30), ("end:10%", 20), ("random:0.5%", 1), ("random:900", 200)]
)
def test_take_is_a_number_or_a_percentage(take, left):
    assert MixtureEntry("web", take=take).taken(200) == left


def test_one_epoch_of_shares_as_the_sources_are_passes_each_once():
    solution = solve_mixture(mixture(shares={"web": 30, "quiz": 10}), [holdings(30, 3000), holdings(10, 100)])
    assert solution.repetition == pytest.approx((1, 1))
    assert not solution.binding


def test_a_token_budget_is_met_and_shares_too():
    solution = solve_mixture(
        mixture(shares={"web": 0.4, "quiz": 0.6}, unit="tokens", tokens=5000), [holdings(30, 3000), holdings(10, 1000)]
    )
    assert solution.repetition == pytest.approx((2000 / 3000, 3000 / 1000))


@pytest.mark.parametrize(
    "declared",
    [
        {"shares": {"web": 1, "exam": 0}},
        {"repeat": {"web": 1, "exam": 0}},
        {"entries": {"web": {}, "exam": {}}},
        {"shares": {"web": 1}},
        {"repeat": {"web": 1}},
        {"entries": {"web": {}}},
    ],
)
def test_a_source_that_is_held_out_whole_keeps_no_share_from_being_met(declared):
    settings = mixture(**declared, held_out={"exam": 1}, strict=True)
    solution = solve_mixture(settings, [holdings(30, 3000), holdings(0, 0)])
    assert solution.repetition == (1, 0)
    assert not solution.binding


def test_repeats_are_passes():
    solution = solve_mixture(
        mixture(repeat={"web": 0.04, "quiz": 4}, epochs=2), [holdings(30, 3000), holdings(10, 1000)]
    )
    assert solution.repetition == pytest.approx((0.08, 8))


def test_a_cap_that_binds_leaves_its_part_of_the_budget_to_the_others():
    solution = solve_mixture(
        mixture(
            entries={"web": 0.2, "pairs": 0.3, "quiz": {"share": 0.5, "max_repetition": 2}}, unit="tokens", tokens=6000
        ),
        [holdings(30, 3000), holdings(30, 3000), holdings(10, 1000)],
    )
    assert solution.repetition == pytest.approx((1600 / 3000, 2400 / 3000, 2))
    assert [(binding.constraint, binding.entry, binding.wanted) for binding in solution.binding] == [
        ("max_repetition", "quiz", pytest.approx(3))
    ]
    assert solution.exact_up_to == pytest.approx(4000)


def test_where_all_caps_bind_the_budget_gives_way():
    solution = solve_mixture(
        mixture(shares={"web": 0.5, "quiz": 0.5}, unit="tokens", tokens=1e6, max_repetition=2),
        [holdings(30, 3000), holdings(10, 1000)],
    )
    assert solution.repetition == (2, 2)
    assert str(solution.binding[-1]) == "the caps allow 8,000 tokens of a budget of 1,000,000"


def test_what_two_capped_sources_leave_does_not_repeat_the_third_without_bound():
    capped = {"share": 50, "max_repetition": 1}
    entries = {"web": capped, "pairs": capped, "quiz": {"share": 10}}
    available = [holdings(1000, 100_000), holdings(1000, 100_000), holdings(10, 1_000)]
    solution = solve_mixture(mixture(entries=entries, unit="tokens", tokens=355_000), available)
    assert solution.repetition == (1, 1, MAX_REPETITION)
    assert [str(binding) for binding in solution.binding[-2:]] == [
        "quiz may be passed 16 times, the mixture asks for 32.27",
        "the caps allow 216,000 tokens of a budget of 355,000",
    ]
    raised = {**entries, "quiz": {"share": 10, "max_repetition": 200}}
    assert solve_mixture(mixture(entries=raised, unit="tokens", tokens=355_000), available).repetition[2] == 155


def test_repeats_say_themselves_how_often_and_are_bounded_by_nothing_else():
    solution = solve_mixture(mixture(repeat={"web": 1, "quiz": 40}), [holdings(30, 3000), holdings(10, 100)])
    assert solution.repetition == (1, 40)
    assert not solution.binding


def test_a_part_without_the_unit_of_shares_is_said_to_bind():
    solution = solve_mixture(
        mixture(shares={"web": 0.5, "chat": 0.5}, unit="images"), [holdings(30, 3000), holdings(10, 1000, images=0)]
    )
    assert solution.repetition == pytest.approx((1, 0))
    assert str(solution.binding[0]) == "chat holds nothing of the unit that shares count, so it gets no share"


def test_a_strict_mixture_is_refused_with_the_ways_out():
    with pytest.raises(
        RecipeError, match=r"quiz may be passed 2 times, the mixture asks for 3.*lower the budget to `tokens: 4000`"
    ):
        solve_mixture(
            mixture(shares={"web": 0.5, "quiz": 0.5}, unit="tokens", tokens=6000, max_repetition=2, strict=True),
            [holdings(60, 6000), holdings(10, 1000)],
        )


AMOUNTS = st.lists(
    st.tuples(st.floats(0.01, 1), st.integers(1, 10**6), st.none() | st.floats(0.1, 5)), min_size=1, max_size=8
)


@UNTIMED
@given(AMOUNTS, st.floats(0.1, 4))
def test_the_answer_is_the_nearest_mixture_that_the_caps_allow(amounts, epochs):
    entries = [
        MixtureEntry(f"s{number}", share=share, max_repetition=cap) for number, (share, _, cap) in enumerate(amounts)
    ]
    tokens = np.array([amount for _, amount, _ in amounts], float)
    solution = solve_mixture(
        MixtureSettings(128, entries=tuple(entries), unit="tokens", epochs=epochs),
        [holdings(1, amount) for _, amount, _ in amounts],
    )
    used = np.array(solution.repetition)
    caps = np.array([cap or MAX_REPETITION for _, _, cap in amounts])
    levels = used * tokens / [share for share, _, _ in amounts]
    capped = used >= caps * (1 - 1e-9)
    assert np.all(used <= caps * (1 + 1e-9))
    if not capped.all():  # the conditions of Karush, Kuhn and Tucker for the least divergence
        assert used @ tokens == pytest.approx(epochs * tokens.sum())
        assert np.ptp(levels[~capped]) < 1e-6 * levels.max()
        assert np.all(levels[capped] <= levels[~capped].max() * (1 + 1e-9))


def image_stats(licences=None, too_long=0, no_text=0):
    nodes = {"in": 100, "kept": 100 - too_long, "dropped": {"too_long": too_long}, "failed": {}}
    samples = {"in": 12, "kept": 10, "dropped": {"held_out": 2, "no_text": no_text}, "failed": {}}
    return {"licences": licences or {"CC0-1.0": 10}, "counts": {"nodes": nodes, "samples": samples}}


@pytest.mark.parametrize(
    ("settings", "more", "used", "warning"),
    [
        ({"entries": [{"source": "web"}] * 2}, {"shared": {"web": 3}}, 1, "web: 3 samples stand in several entries"),
        ({"shares": {"web": 0.3}}, {}, 1, "the shares add up to 0.3"),
        ({"entries": {"web": {"take": "first:10%"}}}, {}, 1, "random:10% is as many from all of it"),
        (
            {"entries": {"web": {"take": "random:11"}}},
            {},
            1,
            "take random:11 asks for more than the 10 samples there are",
        ),
        ({"shares": {"web": 1}}, {"planned": 0}, 1, "less than one sample"),
        (
            {"shares": {"web": 1}, "max_repetition": 2},
            {"binding": Binding("max_repetition", "web", 3, 2)},
            2,
            "web may be passed 2 times, the mixture asks for 3",
        ),
        ({"shares": {"web": 1}}, {}, 9, "passed 9 times; a smaller max_repetition would bound that"),
        (
            {"shares": {"web": 1}},
            {"binding": Binding("max_repetition", "web", 150, 16)},
            16,
            "web may be passed 16 times, the mixture asks for 150; that is the default, max_repetition allows more",
        ),
        (
            {"shares": {"web": 1}},
            {"planned": 11},
            1,
            "full sequences would hold 11 of it each, and there are 10: as no sequence holds",
        ),
        ({"shares": {"web": 1}}, {"licences": {"": 3}}, 1, "3 samples without a licence"),
        ({"shares": {"web": 1}}, {"no_text": 2}, 1, "2 of 12 samples are images without a text and are left out"),
        ({"shares": {"web": 1}}, {"too_long": 20}, 1, "20% of its nodes do not fit a sequence"),
    ],
)
def test_lint_says_what_a_person_should_look_at(settings, more, used, warning):
    asked = mixture(**settings)
    count = len(asked.labels())
    solution = Solution((used,) * count, (more.pop("binding"),) if "binding" in more else (), None)
    planned = holdings(more.pop("planned", 5), 100)
    shared = more.pop("shared", None)
    found = warn_of_settings(asked, [image_stats(**more)] * count, solution, [planned] * count, shared=shared)
    assert len(found) == 1
    assert warning in found[0]


def selected(tmp_path, settings=None, documents=None, **more):
    """The selection of one source, its report and the store."""
    store = Store(tmp_path)
    store.add("web", documents or web(1, 120), per_shard=50, **more)
    asked = mixture(entries={"web": {"repeat": 1, **(settings or {})}}, tiles_per_sequence=4, unit="tokens")
    counts = store.select(asked)["web"]
    report = json.loads(store.inputs["web/selection.json"].read_text())
    return Selection.open(store.inputs, "web", "tokens", 17, 2), report, counts, store


def test_what_fits_a_row_takes_eight_bytes_and_what_was_cut_stands_apart(tmp_path):
    selection, report, _, store = selected(
        tmp_path, documents=[*lone([100, 128]), [text(100), image(), text(90)], [image()], [image(127)]]
    )
    assert selection.sizes.itemsize == 8
    assert selection.sizes["tokens"].tolist() == [100, 128, 1, 0, 0]
    assert selection.cuts[["sample", "first", "last", "tokens"]].tolist() == [(2, 0, 2, 118), (2, 2, 3, 92)]
    assert report["counts"]["samples"]["dropped"] == {"no_text": 1, "too_long": 1}
    assert store.inputs["web/sizes.npy"].stat().st_size == 192 + 5 * 8  # behind numpy's header


def test_an_image_without_a_text_is_lost_as_such_and_not_held_out(tmp_path):
    store = Store(tmp_path)
    store.add("web", [[image()] if row % 2 else [image(), text(5)] for row in range(60)], per_shard=20)
    store.select(mixture(entries={"web": {"repeat": 1}}, held_out={"web": 0.3}))
    dropped = json.loads(store.inputs["web/selection.json"].read_text())["counts"]["samples"]["dropped"]
    held = np.load(store.inputs["web/held_out.npy"])
    assert dropped == {"no_text": 30, "held_out": len(held)}
    assert len(held)
    assert not (held["row"] % 2).any()


def test_a_sample_of_large_numbers_is_kept_whole(tmp_path):
    store = Store(tmp_path)
    store.add("web", [[text(70_000)], [text(10)]])
    store.select(MixtureSettings(100_000, repeat={"web": 1}, unit="tokens"))
    selection = Selection.open(store.inputs, "web", "tokens", 17, 2)
    assert selection.weights(np.array([0, 1])).tolist() == [70_002, 12]
    assert selection.segments(np.array([1, 0])).tokens.tolist() == [12, 70_002]


def test_every_node_is_kept_or_lost_for_a_reason(tmp_path):
    selection, report, counts, _ = selected(tmp_path, {"take": "random:60%"}, web(3, 120, most_nodes=20))
    kept = sum(int(s["last"] - s["first"]) for s in selection.cuts) + int(selection.sizes["nodes"].sum(dtype=int))
    assert counts["nodes"].kept == kept
    assert counts["nodes"].balanced()
    assert report["counts"]["samples"]["dropped"]["not_taken"] == 48


def test_sums_per_shard_are_those_of_its_samples(tmp_path):
    selection, report, _, _ = selected(tmp_path, documents=[*web(4, 60, most_nodes=20), *quiz(5, 60)])
    assert selection.shards["tokens"].sum() == selection.weights(np.flatnonzero(selection.sizes["tokens"])).sum()
    assert (
        report["available"]["tokens"]
        == report["available"]["text"] + report["available"]["visual"] + report["available"]["segments"] * OVERHEAD
    )


@pytest.mark.parametrize("count", [0, 1, 37, 119, 120, 250])
def test_the_sum_of_the_first_items_is_that_of_the_items_one_by_one(tmp_path, count):
    selection, _, _, _ = selected(tmp_path, documents=lone(np.random.default_rng(0).integers(5, 100, 120).tolist()))
    samples = np.concatenate([np.empty(0, int), *(samples for _, samples in selection.items(0, count))])
    prefix = selection.prefix(count)
    assert samples.size == count == prefix["samples"]
    assert prefix["tokens"] == selection.weights(samples).sum()
    assert prefix["text"] == prefix["tokens"] - count * OVERHEAD
    assert prefix["visual"] == prefix["images"] == 0
    assert selection.count_for(prefix["tokens"]) == count


@pytest.mark.parametrize(("take", "rows"), [("first:5", [0, 1, 2, 3, 4]), ("end:3", [117, 118, 119])])
def test_a_prefix_is_a_prefix(tmp_path, take, rows):
    selection, _, _, _ = selected(tmp_path, {"take": take}, lone([10] * 120))
    assert np.flatnonzero(selection.sizes["tokens"]).tolist() == rows


def test_a_random_take_comes_from_all_shards_and_stays_the_same(tmp_path):
    first, _, _, _ = selected(tmp_path / "a", {"take": "random:30"}, lone([10] * 120))
    second, _, _, _ = selected(tmp_path / "b", {"take": "random:30"}, lone([10] * 120))
    assert first.shards["samples"].sum() == 30
    assert np.all(first.shards["samples"] > 0)
    assert np.array_equal(first.sizes, second.sizes)


def test_where_is_a_condition_on_the_columns_of_index_and_lengths(tmp_path):
    selection, _, counts, _ = selected(tmp_path, {"where": "images <= 1 and text > 20 and licence = 'CC0-1.0'"})
    assert 0 < counts["samples"].kept < 120
    assert np.all(selection.units["images"] <= 1)


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("pictures > 1", 'unable to find column "pictures"'),
        ("images >", "unable to parse"),
        ("images", "it gives Int32, not true or false"),
        ("max(images) > 1", "it gives one answer for all rows of a shard"),
        ("licence > 3", "string"),
    ],
)
def test_a_wrong_condition_is_refused_with_the_columns_there_are_before_there_are_shards_or_after(tmp_path, where, why):
    said = rf"where of 'web': '{re.escape(where)}' is no condition \(.*{re.escape(why)}.*\)"
    message = f"{said}; columns: id, file.*; a number that rows bring is one by a signal of kind brought"
    with pytest.raises(RecipeError, match=message):
        selected(tmp_path, {"where": where})
    with pytest.raises(RecipeError, match=message.replace("Int32", "Int64")):
        check_where(MixtureEntry("web", share=1, where=where))


def test_a_condition_that_can_be_asked_is_not_refused_ahead():
    check_where(MixtureEntry("web", share=1, where="licence = 'CC0-1.0' and images <= 4 and id like 'web/%'"))


def small_budget(tmp_path, tokens, **more):
    store = Store(tmp_path)
    store.add("web", lone([100] * 40))
    store.add("quiz", lone([50] * 40))
    return store.mix(mixture(shares={"web": 0.9, "quiz": 0.1}, unit="tokens", tokens=tokens, **more))


def test_a_budget_under_one_sample_is_refused(tmp_path):
    with pytest.raises(
        RecipeError, match="the budget `tokens: 10` gives web, quiz less than one sample; a larger budget"
    ):
        small_budget(tmp_path, 10)


def test_a_share_under_one_sample_is_a_note_and_refused_by_a_strict_mixture(tmp_path):
    assert (
        "quiz: its share comes to less than one sample, so it gets none"
        in small_budget(tmp_path / "a", 200)["warnings"]
    )
    with pytest.raises(RecipeError, match="`tokens: 200` gives quiz less than one sample.*without `strict` the others"):
        small_budget(tmp_path / "b", 200, strict=True)
    assert not small_budget(tmp_path / "c", 2000, strict=True)["binding"]


def test_pages_of_a_document_are_held_out_together_and_alike_in_every_stage(tmp_path):
    store = Store(tmp_path)
    groups = [f"document-{number // 4}" for number in range(200)]
    store.add("scans", lone([20] * 200), groups=groups)
    held = []
    for asked in ({"shares": {"scans": 1}}, {"entries": {"scans": {"take": "first:10"}}, "unit": "tokens"}):
        store.select(mixture(**asked, held_out={"scans": 0.2}))
        places = np.load(store.inputs["scans/held_out.npy"])
        held.append([int(shard) * 50 + int(row) for shard, row in places])
    assert held[0] == held[1]
    assert 16 < len(held[0]) < 64
    assert all(
        groups.count(name) == 4 == [groups[row] for row in held[0]].count(name)
        for name in {groups[row] for row in held[0]}
    )
    assert not set(held[0]) & set(np.flatnonzero(np.load(store.inputs["scans/sizes.npy"])["tokens"]).tolist())


def test_tables_that_do_not_belong_to_their_shard_are_refused(tmp_path):
    store = Store(tmp_path)
    store.add("web", lone([10] * 4))
    store.inputs[store.shards["web"][0].lengths] = Store(tmp_path / "other").root / "gone"
    other = Store(tmp_path / "other")
    other.add("web", lone([10] * 5))
    store.inputs[store.shards["web"][0].lengths] = other.inputs[other.shards["web"][0].lengths]
    with pytest.raises(StoreError, match=r"has 5 rows, its shard .* 4 samples"):
        store.select(mixture(shares={"web": 1}))


def test_a_part_without_shards_is_refused(tmp_path):
    store = Store(tmp_path)
    store.add("web", lone([10]))
    with pytest.raises(RecipeError, match="no source 'quiz' with shards of this stage's policy; allowed: web"):
        list_selects(mixture(shares={"quiz": 1}), store.shards, 17, OVERHEAD)
