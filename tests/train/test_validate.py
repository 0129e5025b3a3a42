"""What is said of a recipe before any work that training would say after it."""

from __future__ import annotations

import pytest

from tests.helpers.small import write_recipe
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.train.validate import validate_whole_recipe


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


def test_mistakes_of_mixture_and_model_are_named_together(tmp_path):
    wrong = {"stages.align.mixture.shares.wep": "1", "stages.align.train.rowz": "1", "model.text.kind": "gpt"}
    with pytest.raises(RecipeError, match=r"(?s)no source 'wep'.*model\.text.*gpt"):
        validate_whole_recipe(small_recipe(tmp_path, **wrong))
