"""What can be said of a recipe's training before any work: blocks, and whether model, policy and chat fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmill.train.families import find_class
from vlmill.train.settings import read_model_settings, read_training_settings

if TYPE_CHECKING:
    from vlmill.pipeline.recipe.schema import Recipe


def validate_training(recipe: Recipe) -> None:
    """Build all blocks of a recipe that are about training, if it has any, so that a mistake shows before any work begins.

    Raises:
        RecipeError: a key or value is wrong, or the model's family cannot take a stage's image policy.
    """
    if not recipe.model:
        return
    model = read_model_settings(recipe)
    for stage in recipe.stages:
        read_training_settings(stage)
        find_class(model, recipe.policies[stage.policy], recipe.chat)
