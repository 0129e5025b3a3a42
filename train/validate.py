"""What can be checked of a whole recipe before any work.

Mixtures, models, and whether model, policy, chat and budgets fit.

`validate_whole_recipe` is the one check of a recipe that was read. Where it can be known, it says what training would
say after the data are built.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vlmill.mixtures.build import read_stage_mixture, validate_mixtures
from vlmill.pipeline.core.errors import RecipeError, pass_all
from vlmill.pipeline.recipe.validate import validate_recipe
from vlmill.train.families import find_class
from vlmill.train.settings import FusedTower, ModelSettings, VisionTower, read_model_settings, read_training_settings
from vlmill.train.steps import count_steps

if TYPE_CHECKING:
    from vlmill.pipeline.images import Policy
    from vlmill.pipeline.recipe.schema import Recipe, Stage


def validate_whole_recipe(recipe: Recipe) -> None:
    """Check a recipe in all its parts.

    Raises:
        RecipeError: names all that is wrong, and what was allowed.
    """
    validate_recipe(recipe)
    pass_all(partial(validate_mixtures, recipe), partial(validate_training, recipe))
    pass_all(*(partial(_check_budget, recipe, stage) for stage in recipe.stages if recipe.model))


def validate_training(recipe: Recipe) -> None:
    """Build all blocks of a recipe that are about training, if it has any.

    A mistake then shows before any work begins.

    Raises:
        RecipeError: a key or value is wrong, or the model cannot take a stage's image policy.
    """
    if not recipe.model:
        return
    model = read_model_settings(recipe)
    policies = {stage.policy: recipe.policies[stage.policy] for stage in recipe.stages}
    pass_all(
        *(partial(read_training_settings, stage) for stage in recipe.stages),
        *(partial(find_class, model, policy, recipe.chat) for policy in policies.values()),
        *(partial(_check_tower, model, name, policy) for name, policy in policies.items()),
    )


def _check_tower(model: ModelSettings, name: str, policy: Policy) -> None:
    """Compare the side and patch of a new tower with a policy's, as `check_encoder` does when the model is built."""
    tower, where = model.vision, "model.vision"
    if isinstance(tower, FusedTower):
        tower, where = tower.first, "model.vision.first"
    if not isinstance(tower, VisionTower):
        return  # the configuration of a pretrained one is read with the model
    for field, key in (("side", "image_size"), ("patch", "patch_size")):
        has, wanted = getattr(policy, field, None), getattr(tower, key)
        if has not in (None, wanted):
            raise RecipeError(
                f"policies.{name}.{field} is {has}, and {where}.{key} is {wanted}; the vision tower takes what the "
                "policy makes, so make them equal"
            )


def _check_budget(recipe: Recipe, stage: Stage) -> None:
    """Where the mixture's budget is in sequences, the plan will have about as many."""
    budget = read_stage_mixture(recipe, stage).sequences
    if budget is not None:
        try:
            count_steps(read_training_settings(stage), int(budget))
        except RecipeError as error:
            raise RecipeError(f"stages.{stage.name}.{error} (mixture.sequences)") from error
