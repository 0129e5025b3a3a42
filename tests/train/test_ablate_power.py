"""Which differences an ablation can show: the calculation against simulated ablations, and what a plan says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmill.train.ablation.paired import compare_variants
from vlmill.train.ablation.plan import AblationPlan, describe_plan, make_power_table
from vlmill.train.ablation.power import (
    Variation,
    compute_power,
    estimate_variation,
    find_detectable,
    find_samples,
)
from vlmill.train.ablation.report import describe_differences, make_ablation_table, write_ablation_notes

DRAWN = st.builds(Variation, seeds=st.floats(0, 0.1), samples=st.floats(0, 0.3), answers=st.floats(0.05, 0.5))


def simulate(random, difference, variation, seeds, samples):
    """A table of differences as the model of power.py draws them."""
    by_seed = random.normal(0, variation.seeds, (seeds, 1))
    by_sample = random.normal(0, variation.samples, (1, samples))
    return difference + by_seed + by_sample + random.normal(0, variation.answers, (seeds, samples))


@pytest.mark.parametrize(
    ("variation", "seeds", "samples"),
    [
        (Variation(seeds=0.0, samples=0.2, answers=0.4), 3, 200),
        (Variation(seeds=0.02, samples=0.1, answers=0.35), 5, 300),
        (Variation(seeds=0.05, samples=0.1, answers=0.35), 5, 100),
        (Variation(seeds=0.03, samples=0.0, answers=0.3), 8, 50),
        (Variation(seeds=0.02, samples=0.2, answers=0.3), 1, 100),
    ],
)
def test_a_difference_is_seen_as_often_as_was_said(variation, seeds, samples):
    """In ablations that are drawn by the model and judged by the test that ablations are judged by."""
    difference, random = find_detectable(variation, seeds, samples), np.random.default_rng(5)
    drawn = variation if seeds > 1 else Variation(0.0, variation.samples, variation.answers)  # these very trainings
    tables = (simulate(random, difference, drawn, seeds, samples) for _ in range(600))
    seen = np.mean([compare_variants(table, np.zeros_like(table)).p < 0.05 for table in tables])
    assert seen == pytest.approx(0.8, abs=0.06)
    assert compute_power(difference, variation, seeds, samples) == pytest.approx(0.8, abs=1e-3)


def test_of_one_seed_it_is_the_power_of_the_paired_t_test():
    """Half a standard deviation takes 34 pairs (Cohen's d of 0.5, two-sided, 80 %; G*Power's example)."""
    variation = Variation(seeds=0.5, samples=0.6, answers=0.8)  # 1.0 together, and seeds are not asked
    assert find_samples(0.5, variation, 1) == 34


def test_without_a_difference_five_in_a_hundred_are_seen():
    assert compute_power(0.0, Variation(0.03, 0.1, 0.3), 5, 300) == pytest.approx(0.05)


@given(variation=DRAWN, seeds=st.integers(3, 12), samples=st.integers(20, 2000))
@settings(max_examples=40, deadline=None)
def test_more_seeds_show_smaller_differences_and_larger_differences_are_seen_more_often(variation, seeds, samples):
    smallest = find_detectable(variation, seeds, samples)
    assert find_detectable(variation, seeds + 4, samples) < smallest
    powers = [compute_power(part * smallest, variation, seeds, samples) for part in (0.5, 1, 2)]
    assert powers == sorted(powers)
    assert 0.05 <= powers[0] < 0.8 < powers[2] <= 1


def test_samples_do_not_make_up_for_trainings_that_vary():
    steady, unsteady = (Variation(seeds, 0.1, 0.35) for seeds in (0.02, 0.04))
    needed = find_samples(0.05, steady, 5)
    assert find_detectable(steady, 5, needed) <= 0.05 < find_detectable(steady, 5, needed - 1)
    assert find_samples(0.05, unsteady, 5) is None
    assert find_samples(0.05, unsteady, 12) is not None


def test_the_variation_of_a_table_is_found_again():
    random, wanted = np.random.default_rng(3), Variation(seeds=0.05, samples=0.2, answers=0.3)
    found = [estimate_variation(simulate(random, 0.1, wanted, 6, 400)) for _ in range(200)]
    for name in ("seeds", "samples", "answers"):
        squares = [getattr(one, name) ** 2 for one in found]
        assert np.mean(squares) == pytest.approx(getattr(wanted, name) ** 2, rel=0.12), name


def test_too_few_seeds_or_samples_are_refused():
    with pytest.raises(ValueError, match="1 x 20"):
        estimate_variation(np.zeros((1, 20)))
    with pytest.raises(ValueError, match="at least 1 and 2"):
        compute_power(0.1, Variation(0, 0, 1), 3, 1)


def test_binary_answers_are_near_enough_to_the_model():
    """Right and wrong answers of three questions each, at the evaluation size of the shipped ablations."""
    random, seeds, samples, found = np.random.default_rng(9), 5, 400, []
    hard = random.beta(2, 2, samples)
    for gain in (0.0, 0.05):
        seen = []
        for _ in range(150):
            tables = []
            for shift in (gain, 0.0):
                chance = np.clip(hard + shift + random.normal(0, 0.014, (seeds, 1)), 0, 1)
                tables.append(random.binomial(3, chance, (seeds, samples)) / 3)
            seen.append(compare_variants(*tables))
        found.append(seen)
    differences = [one.difference for one in found[1]]
    variation = estimate_variation_of(random, hard, seeds, samples)
    said = compute_power(float(np.mean(differences)), variation, seeds, samples)
    assert np.mean([one.p < 0.05 for one in found[1]]) == pytest.approx(said, abs=0.1)
    assert np.mean([one.p < 0.05 for one in found[0]]) < 0.1


def estimate_variation_of(random, hard, seeds, samples):
    """The mean variation of tables drawn in the same way."""
    found = []
    for _ in range(40):
        chances = [np.clip(hard + random.normal(0, 0.014, (seeds, 1)), 0, 1) for _ in range(2)]
        one, other = (random.binomial(3, chance, (seeds, samples)) / 3 for chance in chances)
        found.append(estimate_variation(one - other))
    return Variation(
        *(float(np.sqrt(np.mean([getattr(v, n) ** 2 for v in found]))) for n in Variation.__dataclass_fields__)
    )


def plan_of(metric, variation, seeds):
    return AblationPlan(Path("out"), metric, ("a", "b"), seeds, {"a": 4, "b": 8}, 400, variation)


def test_a_plan_says_what_its_seeds_and_samples_can_show():
    variation = Variation(0.043, 0.1, 0.25)
    trained, seen, wanted = describe_plan(plan_of("exact", variation, tuple(range(9))))
    assert "18 trainings of 4 to 8 steps, compared by exact on 400 held-out samples" in trained
    assert f"a difference of {100 * find_detectable(variation, 9, 400):.1f} points in 80%" in seen
    assert wanted == f"Five points with 9 seeds take {find_samples(0.05, variation, 9)} held-out samples."
    assert describe_plan(plan_of("exact", variation, (0, 1, 2)))[-1] == "Five points with 3 seeds take more seeds."
    assert describe_plan(plan_of("exact", variation, (0,)))[-1].startswith("One seed:")
    assert make_power_table(plan_of("exact", variation, (0, 1))).row_count == 5


def test_of_a_metric_that_no_pilot_measured_a_plan_says_so():
    assert "not known beforehand" in describe_plan(plan_of("loss", None, (0, 1)))[-1]
    assert make_power_table(plan_of("loss", None, (0, 1))) is None
    assert "points" not in describe_plan(plan_of("loss", Variation(0.1, 0.1, 0.5), (0, 1)))[-1]


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_a_difference_without_any_variance_is_said_to_show_nothing(seeds):
    nowhere = {"low": 0.0, "high": 0.0, "detectable": None}
    found = {"metric": "exact", "seeds": seeds, "differences": {"flat": nowhere}}
    said = " ".join(write_ablation_notes(found))
    assert "flat: the difference from the baseline came out without any variance" in said
    assert "shows differences from" not in said
    found["differences"]["varied"] = {"low": -0.1, "high": 0.2, "detectable": 0.3}
    said = " ".join(write_ablation_notes(found))
    assert "flat: the difference" in said
    assert "varied: " not in said
    assert ("from 30.0 on (the steadiest variant) or 30.0 on" in said) == (len(seeds) > 1)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_difference_without_any_variance_has_no_p_and_nothing_that_it_could_show(seeds):
    random = np.random.default_rng(3)
    tables = {"base": np.zeros((seeds, 30)), "flat": np.zeros((seeds, 30)), "above": np.full((seeds, 30), 0.2)}
    tables["varied"] = random.normal(1, 1, (seeds, 30))
    found = describe_differences(tables, "base")
    for name in ("flat", "above"):
        assert [found[name][key] for key in ("p", "corrected", "detectable")] == [None] * 3
    assert found["varied"]["corrected"] == pytest.approx(3 * found["varied"]["p"])
    cost = {"steps": 1, "tokens": 1, "flops": 1, "seconds": 1}
    variants = {name: {"scores": {"exact": table.mean(axis=1)}, "cost": cost} for name, table in tables.items()}
    shown = {"seeds": [*range(seeds)], "metric": "exact", "samples": 30, "variants": variants, "differences": found}
    columns = {column.header: list(column.cells) for column in make_ablation_table(shown).columns}
    assert columns["difference"][:3] == ["baseline", "+0.0", "+20.0"]
    assert columns["95 % interval"][:3] == columns["p"][:3] == columns["p (Holm)"][:3] == ["", "-", "-"]
    assert columns["p"][3] != "-"
