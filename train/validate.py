"""What can be said of a recipe's training before any work: blocks, and whether model, policy and chat fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmill.train.families import class_of
from vlmill.train.settings import model_of, training_of

if TYPE_CHECKING:
    from vlmill.pipeline.recipe.schema import Recipe


def check(recipe: Recipe) -> None:
    """Build all blocks of a recipe that are about training, if it has any, so that a mistake shows before any work begins.

    Raises:
        RecipeError: a key or value is wrong, or the model's family cannot take a stage's image policy.
    """
    if not recipe.model:
        return
    model = model_of(recipe)
    for stage in recipe.stages:
        training_of(stage)
        class_of(model, recipe.policy(stage.policy), recipe.chat)
