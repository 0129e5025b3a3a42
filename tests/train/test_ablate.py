"""Ablations: the statistics on tables that are known, and variants of a tiny recipe from its file to the comparison."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import vlmill as api
from tests.helpers.small import vlmill
from tests.helpers.stages import COLOURS, MACHINE, picture, write_tokenizer
from tests.helpers.upstream import cauldron
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.reports.verify import verify_run
from vlmill.train import loop
from vlmill.train.ablation.paired import adjust_holm, compare_variants, compute_spread, linearise_ratios
from vlmill.train.ablation.power import Variation, find_detectable
from vlmill.train.ablation.report import write_ablation_notes
from vlmill.train.ablation.spec import Spec, find_ablation, list_trials, read_ablation
from vlmill.train.settings import Training

# -- statistics


def table(seeds, samples, seed=0):
    return np.random.default_rng(seed).normal(size=(seeds, samples))


def test_of_two_equal_recipes_nothing_is_said():
    found = compare_variants(table(3, 20), table(3, 20))
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_of_one_seed_it_is_the_paired_t_test_over_samples():
    one, other = table(1, 30, 1), table(1, 30, 2)
    expected = stats.ttest_rel(one[0], other[0])
    found = compare_variants(one, other)
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_where_samples_do_not_differ_it_is_the_t_test_over_seeds():
    by_seed = np.array([[0.1], [0.3], [0.25]])
    found = compare_variants(by_seed + np.zeros((3, 40)), np.zeros((3, 40)))
    expected = stats.ttest_1samp(by_seed[:, 0], 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.degrees == pytest.approx(2)


@given(seed=st.integers(0, 1000), seeds=st.integers(1, 4), samples=st.integers(2, 12), shift=st.floats(-3, 3))
def test_a_comparison_may_be_turned_round_and_its_interval_holds_the_difference(seed, seeds, samples, shift):
    one, other = table(seeds, samples, seed) + shift, table(seeds, samples, seed + 1)
    there, back = compare_variants(one, other), compare_variants(other, one)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.p == pytest.approx(back.p)
    assert there.low <= there.difference <= there.high
    assert 0 <= there.p <= 1
    assert (there.p < 0.05) == (there.low > 0 or there.high < 0)


@pytest.mark.parametrize(("seeds", "by_seed"), [(1, 0.0), (3, 0.0), (3, 0.1), (5, 0.05)])
def test_recipes_that_do_not_differ_are_seldom_told_apart(seeds, by_seed):
    """Right and wrong answers; trainings vary by `by_seed` about the same mean.

    One seed varies not at all, or it would be told.
    """
    random, found = np.random.default_rng(7), []
    for _ in range(300):
        hard = random.beta(1.5, 1.5, 60)
        chances = (np.clip(hard + random.normal(0, by_seed, (seeds, 1)), 0, 1) for _ in range(2))
        found.append(compare_variants(*((random.random((seeds, 60)) < chance).astype(float) for chance in chances)).p)
    assert np.mean(np.array(found) < 0.05) < 0.09
    assert np.median(found) > 0.3


def test_trainings_that_vary_as_much_as_recipes_differ_tell_nothing():
    varying = np.array([[0.2], [0.0], [0.1]]) + table(3, 200) * 0.1
    steady = np.full((3, 1), 0.1) + table(3, 200) * 0.1
    assert compare_variants(varying, np.zeros((3, 200))).p > 0.1
    assert compare_variants(steady, np.zeros((3, 200))).p < 0.01


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 6)), min_size=2, max_size=9))
def test_contributions_average_to_the_ratio_of_sums(samples):
    sums, weights = np.array([samples]).transpose(2, 0, 1).astype(float)
    assert linearise_ratios(sums, weights).mean() == pytest.approx(sums.sum() / weights.sum())


def test_holm_on_a_worked_example():
    assert adjust_holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_makes_nothing_smaller(given_p):
    corrected = adjust_holm(given_p)
    assert list(corrected) == list(given_p)
    assert all(given_p[name] <= corrected[name] <= 1 for name in given_p)
    assert max(corrected.values()) <= max(1.0, len(given_p) * max(given_p.values()))
    for one in given_p:
        assert all(corrected[one] <= corrected[other] for other in given_p if given_p[one] <= given_p[other])


def test_a_difference_over_one_sample_is_refused():
    with pytest.raises(ValueError, match="over one sample"):
        compare_variants(table(3, 1), table(3, 1))
    assert compute_spread([0.5]) is None


# -- from a file to the comparison

PART = {"projector": 3e-3, "vision": 3e-3, "text": 3e-3}
RECIPE = {
    "name": "tiny",
    "sources": {"quiz": {"kind": "cauldron", "files": "quiz.parquet", "licence": "CC0-1.0"}},
    "partition": {"rows": 16},
    "filters": [],
    "dedupe": None,
    "policies": {
        "small": {"kind": "letterbox", "side": 28, "patch": 14},
        "large": {"kind": "anyres", "side": 28, "patch": 14, "pinpoints": [[28, 56], [56, 28], [56, 56]]},
    },
    "tokenizer": "tokenizer.json",
    "stages": [
        {
            "name": "tune",
            "policy": "small",
            "mixture": {"shares": {"quiz": 1}, "epochs": 2, "sequence_length": 96, "held_out": {"quiz": 0.3}},
            "train": {"steps": 3, "sequences": 2, "learning_rate": PART},
        }
    ],
    "model": {
        "family": "llava_next",
        "vision": {"kind": "siglip", "hidden_size": 32, "layers": 1, "heads": 2, "image_size": 28, "patch_size": 14},
        "text": {"kind": "llama", "hidden_size": 32, "layers": 1, "heads": 2},
    },
}
SPEC = {
    "recipe": "recipe.yaml",
    "baseline": "plain",
    "variants": {
        "plain": {},
        "frozen": {"stages.tune.train.learning_rate": {"projector": 3.0e-3}},
        "tiles": {"stages.tune.policy": "large"},
    },
    "set": {"stages.tune.train.steps": 2},
    "seeds": [0, 7],
    "metric": "loss",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a recipe of one source and an ablation of it."""
    folder = tmp_path_factory.mktemp("ablation")
    write_tokenizer(folder / "tokenizer.json")
    rows = []
    for number in range(32):
        colour = list(COLOURS)[number % 4]
        file = folder / "picture.png"
        picture(colour, number).save(file)
        rows.append(([file.read_bytes()], [("What colour is it?", colour)]))
    cauldron(folder / "quiz.parquet", rows)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))
    return folder


def ablate(place, out, spec="spec.yaml", *more):
    return vlmill("ablate", place / spec, "--out", out, "--workers", 0, "--device", "cpu", "--threads", 1, *more)


def write_spec(place, name, **changes):
    (place / name).write_text(yaml.safe_dump({**SPEC, **changes}, sort_keys=False))
    return read_ablation(place / name)


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(place):
    """The ablation, run without interruption."""
    assert ablate(place, place / "whole") == 0
    return place / "whole"


def result(out):
    """What an ablation found, without what depends on the clock."""
    found = json.loads((out / "ablation.json").read_bytes())
    for variant in found["variants"].values():
        assert variant["cost"].pop("seconds") > 0
    return found


def test_in_python_an_ablation_is_its_report_and_runs_and_what_is_trained_is_kept(place, whole):
    logs = {path: path.stat().st_mtime_ns for path in whole.glob("*/*/train/*/log.jsonl")}
    found = api.ablate(place / "spec.yaml", whole, workers=0, machine=MACHINE)
    assert found.report == json.loads((whole / "ablation.json").read_bytes())
    assert {(variant, seed) for variant, seed in found.runs} == {
        (variant, seed) for variant in found.report["variants"] for seed in found.report["seeds"]
    }
    assert found.runs["frozen", found.report["seeds"][0]].verify() == []
    assert [path.is_file() for path in found.plots] == [True, True]
    assert {path: path.stat().st_mtime_ns for path in logs} == logs


def test_variants_are_trained_with_every_seed_and_compared(whole):
    found = result(whole)
    assert set(found["variants"]) == {"plain", "frozen", "tiles"}
    assert set(found["differences"]) == {"frozen", "tiles"}
    for name, difference in found["differences"].items():
        one, other = (np.mean(found["variants"][variant]["scores"]["loss"]) for variant in (name, "plain"))
        assert difference["difference"] == pytest.approx(one - other)
        assert difference["low"] <= difference["difference"] <= difference["high"]
        assert difference["corrected"] >= difference["p"]
        found_by_sample = Variation(**difference["variation"])
        assert difference["detectable"] == pytest.approx(find_detectable(found_by_sample, 2, found["samples"]))
    plain, frozen, tiles = (found["variants"][name] for name in ("plain", "frozen", "tiles"))
    assert len(plain["scores"]["exact"]) == 2
    assert plain["cost"]["steps"] == 2  # as `set` says for all
    assert frozen["cost"]["flops"] < plain["cost"]["flops"]
    assert tiles["cost"]["tiles"] > plain["cost"]["tiles"]
    assert found["samples"] > 4
    assert all((whole / name).stat().st_size for name in ("ablation.svg", "ablation.html"))


def test_seeds_change_the_training_and_nothing_else(whole):
    locks = [yaml.safe_load((whole / "plain" / seed / "recipe.lock.yaml").read_text()) for seed in ("0", "7")]
    assert [lock["stages"][0]["train"].pop("seed") for lock in locks] == [0, 7]
    assert locks[0] == locks[1]
    logs = [(whole / "plain" / seed / "train" / "tune" / "log.jsonl").read_text().splitlines() for seed in ("0", "7")]
    first, second = (json.loads(log[0]) for log in logs)
    assert first["tokens"] == second["tokens"]
    assert first["loss"] != second["loss"]


def test_what_variants_share_is_there_once_and_every_run_is_sound(whole):
    folders = sorted((whole / "data").iterdir())
    assert len(folders) == 2  # one mixture under each of two policies
    read_by = [
        {path.stat().st_ino for path in folder.glob("steps/quiz/read/*") if ".receipt." in path.name}
        for folder in folders
    ]
    assert read_by[0] == read_by[1] != set()
    assert (whole / "plain" / "0" / "shards").resolve() == (whole / "frozen" / "7" / "shards").resolve()
    for run in ("plain/0", "frozen/7", "tiles/0"):
        assert list(verify_run(whole / run)) == []


def test_a_run_that_is_there_lends_its_files_and_stays_as_it_is(place, tmp_path):
    source_run = tmp_path / "run"
    assert vlmill("build", place / "recipe.yaml", "--out", source_run, "--workers", 0) == 0
    before = contents(source_run)
    write_spec(place, "lent.yaml", seeds=[1], variants={name: SPEC["variants"][name] for name in ("plain", "tiles")})
    assert ablate(place, tmp_path / "out", "lent.yaml", "--from", source_run) == 0
    assert contents(source_run) == before
    lent = {path.stat().st_ino for path in source_run.glob("shards/quiz/small/*.tar")}
    for folder in (tmp_path / "out" / "data").iterdir():
        assert lent == {path.stat().st_ino for path in folder.glob("shards/quiz/small/*.tar")}
    assert "One seed" in next(write_ablation_notes(json.loads((tmp_path / "out" / "ablation.json").read_bytes())))


def test_a_folder_that_is_no_run_lends_nothing(place, tmp_path, capsys):
    assert ablate(place, tmp_path / "out", "spec.yaml", "--from", place) == 1
    assert "holds no run" in capsys.readouterr().err


def test_a_killed_ablation_goes_on_and_finds_the_same(place, whole, tmp_path, monkeypatch):
    update, steps = loop._take_step, []

    def dying(*arguments):
        steps.append(arguments[3])
        if len(steps) == 4:  # in the second run
            raise KeyboardInterrupt
        return update(*arguments)

    monkeypatch.setattr(loop, "_take_step", dying)
    assert ablate(place, tmp_path / "out") == 130
    monkeypatch.undo()
    done = tmp_path / "out" / "plain" / "0" / "train" / "tune" / "result.json"
    made = done.stat().st_mtime_ns
    assert not (tmp_path / "out" / "ablation.json").exists()
    assert ablate(place, tmp_path / "out") == 0
    assert done.stat().st_mtime_ns == made
    assert result(tmp_path / "out") == result(whole)


def test_steps_that_a_plan_cannot_feed_are_refused_before_any_training(place, tmp_path, capsys):
    variants = {"plain": {}, "long": {"stages.tune.train.steps": 999}}
    write_spec(place, "long.yaml", seeds=[0], variants=variants)
    assert ablate(place, tmp_path / "out", "long.yaml") == 1
    assert "variant 'long', stage 'tune': train: 999 steps" in " ".join(capsys.readouterr().err.split())
    assert not list((tmp_path / "out").glob("**/log.jsonl"))


def test_a_plan_trains_nothing_and_settings_of_the_line_are_those_of_all_variants(place, tmp_path, capsys):
    shorter = (
        "--set",
        "seeds=[3]",
        "--set",
        "stages.tune.train.steps=1",
        "--set",
        "variants.tiles.model.text.layers=2",
    )
    assert ablate(place, tmp_path / "out", "spec.yaml", "--plan", *shorter) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "3 variants x 1 seeds: 3 trainings of 1 steps, compared by loss on" in said
    assert "Which differences of loss they could show is not known beforehand" in said
    assert not list((tmp_path / "out").glob("**/log.jsonl"))
    locks = {
        name: yaml.safe_load((tmp_path / f"out/{name}/3/recipe.lock.yaml").read_text()) for name in SPEC["variants"]
    }
    assert {lock["stages"][0]["train"]["steps"] for lock in locks.values()} == {1}
    assert {name: lock["model"]["text"]["layers"] for name, lock in locks.items()} == {
        "plain": 1,
        "frozen": 1,
        "tiles": 2,
    }


def test_another_recipe_is_not_trained_into_a_folder_that_is_there(place, whole, capsys):
    write_spec(place, "other.yaml", set={"stages.tune.train.steps": 3})
    assert ablate(place, whole, "other.yaml") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "was made for another recipe" in said
    assert "train.steps: 2 there, 3 here" in said


def test_a_folder_in_which_nothing_was_trained_is_made_anew_for_another_recipe(place, tmp_path, capsys):
    out = tmp_path / "out"
    assert ablate(place, out, "spec.yaml", "--set", "stages.tune.train.steps=100000") == 1
    assert "the plan has" in capsys.readouterr().err
    held = out / f"plain/{SPEC['seeds'][0]}"
    was = (held / "mixtures").readlink()
    longer = ("--set", "stages.tune.mixture.epochs=4")
    assert ablate(place, out, "spec.yaml", "--plan", *longer) == 0
    lock = yaml.safe_load((held / "recipe.lock.yaml").read_text())
    assert lock["stages"][0]["train"]["steps"] == 2
    assert lock["stages"][0]["mixture"]["epochs"] == 4
    assert (held / "mixtures").readlink() != was
    assert (held / "mixtures").is_dir()


# -- what a file may say


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "plane"}, "did you mean 'plain'"),
        ({"variants": {"plain": {}}}, "nothing to compare"),
        ({"variants": {"plain": {}, "a/b": {}}}, "'a/b' is to name a folder"),
        ({"seeds": [1, 1]}, "each once"),
        ({"metric": "bleu"}, "metric"),
        ({"sets": {}}, "unknown key 'sets'"),
    ],
)
def test_a_file_that_compares_nothing_is_refused(place, changes, message):
    with pytest.raises(RecipeError, match=message):
        write_spec(place, "wrong.yaml", **changes)


def test_a_wrong_variant_is_refused_before_anything_is_built(place):
    spec = write_spec(place, "wrong.yaml", variants={"plain": {}, "odd": {"stages.tune.train.sequencez": 2}})
    with pytest.raises(RecipeError, match=r"variant 'odd'.*unknown key 'sequencez'.*did you mean 'sequences'"):
        list_trials(spec, {}, None)


def test_variants_that_hold_nothing_out_in_common_are_refused(place):
    spec = write_spec(place, "wrong.yaml", variants={"plain": {}, "none": {"stages.tune.mixture.held_out": {}}})
    with pytest.raises(RecipeError, match=r"variants.none: .* hold out no source in common"):
        list_trials(spec, {}, None)


def test_an_ablation_that_is_not_shipped_is_answered_with_the_nearest_name():
    with pytest.raises(RecipeError, match="did you mean 'quickstart'"):
        find_ablation("quickstar")


def test_the_ablation_of_the_manual_is_one():
    text = (Path(__file__).parents[2] / "docs/evaluation.md").read_text(encoding="utf-8")
    (block,) = (found for found in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "baseline:" in found)
    spec = parse_block(Spec, yaml.safe_load(block), "docs/evaluation.md")
    assert spec.baseline == "letterbox"
    for trains in ({"epochs": 1}, {"steps": 5}):  # whichever of both the reader's recipe has
        given = {"learning_rate": {"text": 1e-3}, **trains}
        given |= {key.removeprefix("stages.tune.train."): value for key, value in spec.set.items()}
        assert parse_block(Training, given, "train").steps == 2000


def test_an_untrained_run_cannot_be_reported_on(whole, tmp_path):
    from vlmill.train.ablation.report import make_report

    (tmp_path / "recipe.lock.yaml").write_text((whole / "plain/0/recipe.lock.yaml").read_text())
    spec = Spec("recipe.yaml", "a", {"a": {}, "b": {}}, seeds=(0,))
    with pytest.raises(StoreError, match="stage 'tune' is not trained yet"):
        make_report(spec, {("a", 0): tmp_path, ("b", 0): Path(whole / "plain/0")})
