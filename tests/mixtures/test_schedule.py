"""Shares that move within a stage: every prefix keeps to them, totals are integrals, caps and budgets hold."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.helpers.synthetic import Store, lone, quiz
from tests.mixtures.test_stats import shown
from vlmill.mixtures.algorithms.order import merge_sources
from vlmill.mixtures.algorithms.schedule import Curve, Schedule, find_schedule
from vlmill.mixtures.algorithms.solve import solve_mixture
from vlmill.mixtures.config import MixtureEntry, MixtureSettings
from vlmill.mixtures.page import plots
from vlmill.mixtures.report.stats import make_schedule_table
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError

UNTIMED = settings(deadline=None)
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FALLS, RISES = [[0, 0.8], [1, 0.2]], [[0, 0.2], [1, 0.8]]


@st.composite
def schedules(draw):
    """Shares of two to five sources, some of them 0 for a while, at two to five points."""
    inner = draw(st.lists(st.integers(1, 99), max_size=3, unique=True))
    at = [0.0, *(place / 100 for place in sorted(inner)), 1.0]
    share = st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0, 3.0])
    found = np.array([[draw(share) for _ in at] for _ in range(draw(st.integers(2, 5)))])
    found[0] += found.sum(axis=0) == 0
    found[:, 0] += 0.01 * (found.sum(axis=1) == 0)  # no source has none at all
    return Schedule(tuple(at), tuple(map(tuple, (found / found.sum(axis=0)).tolist())))


def follow(schedule, lengths):
    """Per prefix and source: what it has beyond what it should have had when all have had so much."""
    totals = [sum(items) for items in lengths]
    order = list(merge_sources(totals, [0] * len(totals), [iter(items) for items in lengths], schedule))
    assert Counter(order) == Counter({source: len(items) for source, items in enumerate(lengths) if items})
    curves, whole = schedule.draw(totals)
    counts, spent, found = [0] * len(totals), np.zeros(len(totals)), []
    for source in order:
        spent[source] += lengths[source][counts[source]]
        counts[source] += 1
        time = whole.find_time(spent.sum())
        found.append(spent - [curve.amount(time) for curve in curves])
    return np.array(found)


@UNTIMED
@given(schedules(), st.integers(20, 400))
def test_every_prefix_is_within_one_sample_of_the_schedule(schedule, samples):
    counts = [round(samples * mean) for mean in schedule.compute_means()]
    if sum(counts):
        assert np.abs(follow(schedule, [[1] * count for count in counts])).max() <= 1 + 1e-6


@UNTIMED
@given(schedules(), st.lists(st.lists(st.integers(1, 500), min_size=1, max_size=60), min_size=5, max_size=5))
def test_with_lengths_and_any_totals_every_prefix_is_within_the_longest_sample(schedule, lengths):
    lengths = lengths[: len(schedule.shares)]
    longest = max(max(items) for items in lengths)
    assert np.abs(follow(schedule, lengths)).max() <= longest + 1e-3


@UNTIMED
@given(schedules(), st.integers(20, 200), st.integers(0, 200))
def test_a_merge_goes_on_from_any_start(schedule, samples, start):
    counts = [round(samples * mean) for mean in schedule.compute_means()]
    whole = list(merge_sources(counts, [0] * len(counts), [iter([1] * count) for count in counts], schedule))
    before = Counter(whole[:start])
    spent = [before[source] for source in range(len(counts))]
    rest = [iter([1] * (count - had)) for count, had in zip(counts, spent, strict=True)]
    assert list(merge_sources(counts, spent, rest, schedule)) == whole[start:]


@UNTIMED
@given(st.lists(st.integers(1, 200), min_size=2, max_size=6))
def test_a_schedule_that_stands_still_keeps_the_promise_of_fixed_shares(counts):
    shares = [count / sum(counts) for count in counts]
    schedule = Schedule((0.0, 0.3, 1.0), tuple((share,) * 3 for share in shares))
    assert np.abs(follow(schedule, [[1] * count for count in counts])).max() <= 1 + 1e-6


@given(schedules(), st.floats(0, 1))
@example(
    Schedule(
        (0.0, 0.01, 0.02, 0.03, 1.0),
        ((0.970873786407767, 1.0, 1.0, 1.0, 1.0), *[(0.009708737864077669, 0.0, 0.0, 0.0, 0.0)] * 3),
    ),
    1.0,
)
def test_a_curve_and_its_inverse_agree(schedule, time):
    curves, whole = schedule.draw([1000] * len(schedule.shares))
    for curve in (*curves, whole):
        amount = curve.amount(time)
        assert curve.find_time(amount) <= time + 1e-6
        assert curve.find_time(amount, last=True) >= time - 1e-6
        for found in (curve.find_time(amount), curve.find_time(amount, last=True)):
            assert curve.amount(found) == pytest.approx(amount, abs=1e-6)


@given(schedules())
def test_the_mean_share_is_the_integral(schedule):
    fine = np.linspace(0, 1, 20_001)
    for shares, mean in zip(schedule.shares, schedule.compute_means(), strict=True):
        assert np.trapezoid(np.interp(fine, schedule.at, shares), fine) == pytest.approx(mean, abs=1e-4)
    assert sum(schedule.compute_means()) == pytest.approx(1)


def test_a_curve_of_no_rate_waits_until_more_comes():
    curve = Curve.of((0.0, 0.5, 0.75, 1.0), (0.0, 0.0, 4.0, 0.0), 1.0)
    assert curve.amounts == (0.0, 0.0, 0.5, 1.0)
    assert (curve.find_time(0.0), curve.find_time(0.0, last=True)) == (0.0, 0.5)
    assert (curve.find_time(1.0), curve.find_time(1.0, last=True)) == (1.0, 1.0)
    assert list(accumulate([curve.amount(0.75)])) == [0.5]


# -- what a recipe may say


def test_a_share_is_a_number_or_points_of_one():
    mixture = parse_block(MixtureSettings, {"sequence_length": 8, "shares": {"web": FALLS, "quiz": 0.5}}, "mixture")
    web, still = mixture.resolved()
    assert web.moves
    assert web.points == ((0.0, 0.8), (1.0, 0.2))
    assert not still.moves
    assert mixture.moves
    schedule = find_schedule(mixture, [{"samples": 9, "tokens": 9}] * 2)
    assert schedule.at == (0.0, 1.0)
    assert schedule.shares[0] == pytest.approx((0.8 / 1.3, 0.2 / 0.7))


@pytest.mark.parametrize(
    ("share", "said"),
    [
        ([[0, 0.5]], r"share of 'web' moves along \[0.0\]; two or more points"),
        ([[0.5, 1], [0.5, 2]], "each a larger fraction of the budget"),
        ([[0, 0], [1, 0]], "is 0 at every point"),
        ([[0, 1], [2, 1]], "less than or equal to 1"),
        ([[0, 1], [1, -1]], "greater than or equal to 0"),
        ({0: 1, 1: 2}, "share"),
        (-1, "must be a finite number above 0"),
    ],
)
def test_points_that_cannot_be_meant_are_refused(share, said):
    with pytest.raises(RecipeError, match=said):
        parse_block(MixtureEntry, {"source": "web", "share": share}, "entry")


def test_a_point_at_which_nothing_has_a_share_is_refused_by_its_place():
    mixture = MixtureSettings(8, shares={"web": ((0, 1), (0.5, 0), (1, 1)), "none": ((0, 0), (0.5, 9), (1, 0))})
    there, nothing = {"samples": 9, "tokens": 90}, {"samples": 0, "tokens": 0}
    with pytest.raises(RecipeError, match="at 0.5 of the budget no source has a share above 0"):
        solve_mixture(mixture, [there, nothing])


# -- solved, planned, counted


def test_the_solver_takes_the_mean_and_caps_hold():
    there = [{"samples": 1000, "tokens": 1000}, {"samples": 100, "tokens": 100}]
    moving = MixtureSettings(8, shares={"web": ((0, 0.9), (1, 0.5)), "quiz": ((0, 0.1), (1, 0.5))}, tokens=1000)
    still = MixtureSettings(8, shares={"web": 0.7, "quiz": 0.3}, tokens=1000)
    assert solve_mixture(moving, there).repetition == pytest.approx(solve_mixture(still, there).repetition)
    capped = MixtureSettings(
        8, shares={"web": ((0, 0.9), (1, 0.5)), "quiz": ((0, 0.1), (1, 0.5))}, tokens=1000, max_repetition=2
    )
    solution = solve_mixture(capped, there)
    assert solution.repetition == pytest.approx((0.8, 2))
    assert [binding.entry for binding in solution.binding] == ["quiz"]


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    store.add("web", lone(np.random.default_rng(1).integers(5, 60, 400).tolist()), per_shard=60)
    store.add("quiz", quiz(2, 300), per_shard=60)
    return store


def mixture(**more):
    return MixtureSettings(
        **{
            "sequence_length": 128,
            "tiles_per_sequence": 8,
            "shares": {"web": FALLS, "quiz": RISES},
            "epochs": 2,
            **more,
        }
    )


@pytest.mark.parametrize("unit", ["samples", "tokens", "supervised"])
def test_a_plan_moves_from_window_to_window_and_its_totals_are_the_integrals(store, unit):
    rows = store.plan(mixture(unit=unit, windows_per_block=4))
    mix = store.mix(mixture(unit=unit, windows_per_block=4))
    assert mix["mixture"]["pack_window"] == mix["samples"] // 32
    planned = [entry["planned"][unit] for entry in mix["entries"]]
    assert planned[0] / sum(planned) == pytest.approx(0.5, abs=0.01)
    half = len(rows) // 2
    held = [[0, 0], [0, 0]]
    for place, row in enumerate(rows):
        for segment in row["segments"]:
            held[place >= half][segment["source"]] += 1 if unit == "samples" else segment["tokens"]
    if unit != "supervised":
        assert held[0][0] / sum(held[0]) == pytest.approx(0.65, abs=0.05)
        assert held[1][0] / sum(held[1]) == pytest.approx(0.35, abs=0.05)


@FEW
@given(st.integers(1, 9))
def test_rows_are_the_same_however_windows_are_divided_into_blocks(store, windows):
    whole = store.plan(mixture(unit="tokens", windows_per_block=100))
    assert store.plan(mixture(unit="tokens", windows_per_block=windows)) == whole


def test_statistics_show_what_was_due_and_what_there_is_along_the_plan(store):
    _, stats = store.lock(mixture(unit="tokens", held_out={"web": 0.1}))
    assert [source["declared"] for source in stats["sources"]] == [0.5, 0.5]
    schedule = stats["schedule"]
    assert len(schedule["ends"]) == 20
    assert schedule["ends"][-1] == 1
    begins = [0, *schedule["ends"][:-1]]
    for begin, end, due, has in zip(begins, schedule["ends"], schedule["due"][0], schedule["has"][0], strict=True):
        assert due == pytest.approx(0.8 - 0.6 * (begin + end) / 2, abs=0.01)
        assert has == pytest.approx(due, abs=0.05)
    said = " ".join(shown(make_schedule_table(stats)).split())
    assert "shares in tokens along the plan" in said
    assert "web" in said
    assert f"{schedule['has'][0][-1]:.1%}" in said


def test_sources_that_stand_still_share_a_column(store):
    store.add("still", lone([20] * 100))
    _, stats = store.lock(mixture(shares={"web": FALLS, "quiz": RISES, "still": 1.0}))
    drawn = shown(make_schedule_table(stats)).splitlines()
    start = next(place for place, line in enumerate(drawn) if "others" in line)
    headings, *lines = drawn[start:]
    assert headings.split() == ["at", "web", "quiz", "others"]
    assert lines[0].split()[0] == "0.05"
    assert float(lines[0].split()[-1].rstrip("%")) == pytest.approx(50, abs=3)


def test_the_page_plots_the_schedule(store):
    _, stats = store.lock(mixture())
    chart = plots._plot_schedule(stats, {"web": "#111", "quiz": "#222"}).to_dict()
    drawn = chart["data"]["values"] if "data" in chart else chart["layer"][0]["data"]["values"]
    assert {(row["source"], row["planned"]) for row in drawn} == {
        (source["name"], share)
        for source, found in zip(stats["sources"], stats["schedule"]["has"], strict=True)
        for share in found
    }
    assert drawn[0]["declared"] == pytest.approx(0.785, abs=0.01)


def test_a_mixture_whose_shares_stand_still_has_no_schedule(store):
    _, stats = store.lock(mixture(shares={"web": 0.5, "quiz": 0.5}))
    assert "schedule" not in stats


def test_a_sum_that_is_odd_somewhere_is_noted_with_its_place(store):
    odd = mixture(shares={"web": ((0, 0.5), (0.5, 0.9), (1, 0.5)), "quiz": 0.5})
    assert "at 0.5 of the budget the shares add up to 1.4; they are read as proportions" in store.mix(odd)["warnings"]


def test_a_lock_of_moving_shares_is_borne_out_by_its_files(store):
    from vlmill.mixtures.steps.lock import verify_lock

    lock, _ = store.lock(mixture(held_out={"web": 0.1}))
    assert list(verify_lock(lock, store.inputs)) == []
