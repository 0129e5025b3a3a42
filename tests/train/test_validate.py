"""What is said of a recipe before any work that training would say after it."""

from __future__ import annotations

import re

import pytest

from tests.helpers.small import vlmill, write_recipe
from vlmill.api.runs import open_run
from vlmill.mixtures.build import read_stage_mixture, validate_mixtures, verify_locks
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.files import write_atomically
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.train.digests import write_result
from vlmill.train.validate import list_short_plans, validate_whole_recipe, warn_of_short_plans


def small_recipe(folder, **sets):
    write_recipe(folder)
    return load_recipe(str(folder / "recipe.yaml"), sets=sets)[0]


def test_what_training_would_say_is_said_before_the_data_are_built(tmp_path):
    validate_whole_recipe(small_recipe(tmp_path))
    wrong = small_recipe(tmp_path, **{"policies.small.side": "84", "model.vision.patch_size": "28"})
    with pytest.raises(RecipeError, match=r"policies\.small\.side is 84, and model\.vision\.image_size is 56"):
        validate_whole_recipe(wrong)
    align = "stages.align"
    short = {f"{align}.mixture.sequences": "3", f"{align}.mixture.epochs": "null", f"{align}.train.steps": "2"}
    with pytest.raises(
        RecipeError, match=r"stages\.align\.train: 2 steps of 2 sequences want 4 sequences, and the plan has 3"
    ):
        validate_whole_recipe(small_recipe(tmp_path, **short))
    validate_whole_recipe(small_recipe(tmp_path, **{**short, f"{align}.mixture.sequences": "4"}))


FALLS = "[[0, 0.4], [1, 0.1]]"


def test_shares_that_move_are_not_passed_twice(tmp_path):
    moving = {"stages.align.mixture.shares.web": FALLS, "stages.align.train.steps": "null"}
    validate_whole_recipe(small_recipe(tmp_path, **moving, **{"stages.align.train.epochs": "1"}))
    with pytest.raises(RecipeError, match=r"train\.epochs is 2, and shares .* write train.epochs: 1 and .*epochs: 2"):
        validate_whole_recipe(small_recipe(tmp_path, **moving, **{"stages.align.train.epochs": "2"}))


def test_a_training_that_ends_before_the_shares_have_moved_to_their_end_is_noted(tmp_path):
    write_recipe(tmp_path)
    sets = ["stages.align.mixture.epochs=20", "stages.align.mixture.max_repetition=99", "stages.align.train.steps=3"]
    moving = [*sets, f"stages.align.mixture.shares.web={FALLS}"]
    arguments = [item for one in moving for item in ("--set", one)]
    root = tmp_path / "run"
    assert vlmill("build", tmp_path / "recipe.yaml", "--out", root, "--workers", 0, *arguments) == 0
    (said,) = list_short_plans(root, read_locked_recipe(root))
    assert "align: train.steps reads 6 of the " in said
    assert "that move do not come to their end; train.epochs: 1 in place of steps" in said
    stats = open_run(root).stage("align").stats
    due = stats["schedule"]["due"][[source["name"] for source in stats["sources"]].index("web")]
    assert due[0] > 1.5 * due[-1]
    assert list(verify_locks(root)) == []


@pytest.mark.parametrize(
    ("train", "tokens", "wanted"),
    [
        ({"steps": 10, "sequences": 8}, 39 * 512, "10 steps of 8 want 80"),
        ({"steps": 10, "sequences": 8}, 40 * 512, ""),
        ({"steps": 10, "sequences": 8}, 160 * 512, ""),
        ({"steps": 10, "sequences": 8}, 161 * 512, "10 steps of 8 read 80 of them, the others never"),
        ({"epochs": 1, "sequences": 8}, 900 * 512, ""),
        ({"epochs": 1, "sequences": 8}, 3 * 512, "1 steps of 8 want 8"),
        ({"epochs": 3, "sequences": 8}, 4 * 512, ""),
        ({"steps": 10, "sequences": 8}, None, ""),
    ],
)
def test_a_plan_that_is_clearly_shorter_or_longer_than_its_training_is_said_by_estimate(
    tmp_path, train, tokens, wanted
):
    sets = {f"stages.align.train.{name}": str(value) for name, value in {"steps": "null", **train}.items()}
    recipe = small_recipe(tmp_path, **sets)
    assert read_stage_mixture(recipe, recipe.stages[0]).sequence_length == 512
    said = list(warn_of_short_plans(recipe, {"align": tokens}))
    assert len(said) == bool(wanted)
    assert wanted in "".join(said)


def test_check_says_so_before_any_build(tmp_path, capsys):
    recipe = write_recipe(tmp_path)
    sets = ["--set", "stages.align.train.steps=9000"]
    vlmill("check", recipe, "--out", tmp_path / "run", *sets)
    shown = " ".join(capsys.readouterr().out.split())
    assert "align: its mixture plans about " in shown
    assert "9,000 steps of 2 want 18,000" in shown
    vlmill("check", recipe, "--out", tmp_path / "run", "--set", "stages.align.train.steps=4")
    assert "its mixture plans about" not in capsys.readouterr().out


def test_a_build_says_of_a_trained_stage_that_its_plan_is_another_now(tmp_path, capsys):
    write_recipe(tmp_path)
    root = tmp_path / "run"
    build = ["build", tmp_path / "recipe.yaml", "--out", root, "--workers", 0, "--accept-changes"]
    assert vlmill(*build) == 0
    trained = root / "train/align"
    trained.mkdir(parents=True)
    write_result(trained, {"identity": {"mixture": hash_file(root / "mixtures/align/mixture.lock.json")}, "scores": {}})
    capsys.readouterr()
    assert vlmill(*build) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "earlier plan" not in said
    assert f", vlmill train {root}" in said
    assert vlmill(*build, "--set", "stages.align.mixture.shares.web=0.3") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "align: its model was trained on an earlier plan, and is not changed." in said
    assert f"delete {trained}, then vlmill train {root} --stage align" in said
    assert f", vlmill train {root}" not in said, "it would be refused"
    outdated = "stage align: of today's plan: its model was trained on an earlier plan"
    assert vlmill("trace", root, "--step", 0) == 0
    shown = capsys.readouterr()
    assert outdated.replace("align:", "align;") in shown.err
    seen = re.search(r"sequence \d+: (\S+),", shown.out)[1]
    assert vlmill("trace", root, seen) == 0
    assert "; of today's plan: its model was trained on an earlier plan" in capsys.readouterr().out
    write_atomically(trained / "result.json", "{}")
    assert vlmill(*build, "--set", "stages.align.mixture.shares.web=0.3") == 0, "what verify finds ends no build"


def test_a_budget_of_patches_is_for_images_at_native_resolution(tmp_path):
    native, key = {"policies.small": "{kind: native}"}, "stages.align.mixture.patches_per_sequence"
    with pytest.raises(RecipeError, match=rf"{key}: images of policy small .letterbox. .* tiles_per_sequence bounds"):
        validate_mixtures(small_recipe(tmp_path, **{key: "1000"}))
    with pytest.raises(RecipeError, match=f"{key} is 3; a visual token of small has 4"):
        validate_mixtures(small_recipe(tmp_path, **native, **{key: "3"}))
    validate_mixtures(small_recipe(tmp_path, **native, **{key: "1000"}))


def test_a_rate_of_a_tower_that_a_family_lacks_is_refused_and_patches_that_do_not_fit(tmp_path):
    raw = {"policies.small": "{kind: patches}", "chat": "fuyu", "model.family": "fuyu"}
    raw |= {"model.vision": "{kind: patches}"}
    rate = "stages.align.train.learning_rate"
    validate_whole_recipe(small_recipe(tmp_path, **raw, **{rate: "{projector: 1.0e-3}"}))
    with pytest.raises(RecipeError, match=r"learning_rate\.vision: family fuyu has no vision tower; .* the projector"):
        validate_whole_recipe(small_recipe(tmp_path, **raw, **{rate: "{vision: 1.0e-3}"}))
    with pytest.raises(RecipeError, match=r"policies\.small\.patch is 30, and model\.vision\.patch_size is 14"):
        validate_whole_recipe(small_recipe(tmp_path, **raw | {"model.vision": "{kind: patches, patch_size: 14}"}))


def test_a_first_stage_has_no_adapters_to_go_on_with(tmp_path):
    wrong = small_recipe(tmp_path, **{"stages.align.train.adapter": "{rank: 4, continued: true}"})
    with pytest.raises(RecipeError, match=r"train\.adapter\.continued: the stage before has no adapters"):
        validate_whole_recipe(wrong)


def test_mistakes_of_mixture_and_model_are_named_together(tmp_path):
    wrong = {"stages.align.mixture.shares.wep": "1", "stages.align.train.rowz": "1", "model.text.kind": "gpt"}
    with pytest.raises(RecipeError, match=r"(?s)no source 'wep'.*model\.text.*gpt"):
        validate_whole_recipe(small_recipe(tmp_path, **wrong))


def test_a_stage_that_does_not_say_how_it_trains_is_told_both_ways_out(tmp_path):
    with pytest.raises(
        RecipeError, match=r"stages\.align\.train is missing, and the recipe has a model: .* `model` out"
    ):
        validate_whole_recipe(small_recipe(tmp_path, **{"stages.align.train": "{}"}))
    validate_whole_recipe(small_recipe(tmp_path, **{"stages.align.train": "{}", "model": "{}"}))
