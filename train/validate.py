"""What can be checked of a whole recipe before any work.

Mixtures, models, and whether model, policy, chat and budgets fit.

`validate_whole_recipe` is the one check of a recipe that was read. Where it can be known, it says what training would
say after the data are built.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vlmill.mixtures.build import LOCK, read_stage_mixture, validate_mixtures
from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import RecipeError, StoreError, VlmillError, list_errors, pass_all
from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.recipe.validate import validate_recipe
from vlmill.train.digests import RESULT, read_result
from vlmill.train.families import FAMILIES, find_class
from vlmill.train.settings import (
    Adapter,
    FusedTower,
    ModelSettings,
    Pretrained,
    RawPatches,
    Training,
    VisionTower,
    check_succession,
    read_model_settings,
    read_training_settings,
)
from vlmill.train.steps import count_steps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vlmill.pipeline.images import Policy
    from vlmill.pipeline.recipe.schema import Recipe, Stage

MARGIN = 2
"""What trainings may want more than is estimated: limits on images make more sequences, each with fewer tokens."""


def validate_whole_recipe(recipe: Recipe) -> None:
    """Check a recipe in all its parts.

    Raises:
        RecipeError: names all that is wrong, and what was allowed.
    """
    validate_recipe(recipe)
    pass_all(partial(validate_mixtures, recipe), partial(validate_training, recipe))
    pass_all(*(partial(_check_budget, recipe, stage) for stage in recipe.stages if recipe.model))


def list_recipe_errors(recipe: Recipe) -> list[VlmillError]:
    """All that `validate` says, where a fault hides no other one, as far as one does not follow from another."""
    known = replace(recipe, stages=tuple(stage for stage in recipe.stages if stage.policy in recipe.policies))
    mixtures = list_errors(partial(read_stage_mixture, recipe, stage) for stage in recipe.stages)
    training = list_errors([partial(validate_training, known)])
    return [
        *list_errors([partial(validate_recipe, recipe)]),
        *(mixtures or list_errors([partial(validate_mixtures, recipe)])),
        *training,
        *list_errors(
            partial(_check_budget, known, stage)
            for stage in known.stages
            if recipe.model
            and not list_errors(
                [partial(read_stage_mixture, recipe, stage), partial(read_training_settings, stage, recipe.scale)]
            )
        ),
    ]


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
        *(partial(_check_training, recipe, stage) for stage in recipe.stages),
        *(partial(find_class, model, policy, recipe.chat) for policy in policies.values()),
        *(partial(_check_tower, model, name, policy) for name, policy in policies.items()),
    )


def _check_training(recipe: Recipe, stage: Stage) -> None:
    """Read a stage's `train` block, and compare it with the stage's mixture."""
    if not stage.train:
        raise RecipeError(
            f"stages.{stage.name}.train is missing, and the recipe has a model: say how the stage trains, such as "
            "{learning_rate: {projector: 1.0e-3}, sequences: 8}, or leave `model` out to plan mixtures alone"
        )
    training, mixture = read_training_settings(stage, recipe.scale), read_stage_mixture(recipe, stage)
    if mixture.moves and training.epochs is not None and training.epochs > 1:
        raise RecipeError(
            f"stages.{stage.name}.train.epochs is {training.epochs}, and shares of its mixture move: a second epoch "
            f"over the plan would begin their schedule again, in another order; write train.epochs: 1 and "
            f"mixture.epochs: {training.epochs * (mixture.epochs or 1):g} for one schedule over all of it"
        )
    family = read_model_settings(recipe).family
    if "vision" in training.learning_rate and family in FAMILIES and not FAMILIES[family].tower:
        raise RecipeError(
            f"stages.{stage.name}.train.learning_rate.vision: family {family} has no vision tower; its linear layer "
            "behind the pixels is the projector"
        )
    if training.adapters and training.adapters[0].continued:
        _check_continued(recipe, stage, training.adapters[0])
    weights, entries = training.loss_weights, [entry.source for entry in mixture.resolved()]
    for name in weights.sources if weights else ():
        if name not in entries:
            raise RecipeError(
                f"stages.{stage.name}.train.loss_weights.sources: {name!r} is no entry of the stage's mixture; "
                f"{suggest_names(name, entries)}"
            )


def _check_continued(recipe: Recipe, stage: Stage, adapter: Adapter) -> None:
    """Whether a stage can go on with the adapters of the one before."""
    place = [item.name for item in recipe.stages].index(stage.name) - 1
    before = read_training_settings(recipe.stages[place], recipe.scale).adapters if place >= 0 else ()
    where = f"stages.{stage.name}.train.adapter.continued"
    if not before:
        raise RecipeError(f"{where}: the stage before has no adapters to go on with; leave it out")
    try:
        check_succession(before[-1], adapter)
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from error


def _check_tower(model: ModelSettings, name: str, policy: Policy) -> None:
    """Compare the side and patch of a tower with a policy's, as far as they are known before the model is built."""
    tower: VisionTower | FusedTower | Pretrained | RawPatches | None = model.vision or model.checkpoint
    where = "model.vision" if model.vision else "model.checkpoint"
    if isinstance(tower, FusedTower):
        tower, where = tower.first, "model.vision.first"
    for field, key in (("side", "image_size"), ("patch", "patch_size")):
        has, wanted = getattr(policy, field, None), _read_tower_sizes(tower, model.family).get(key)
        if None not in (has, wanted) and has != wanted:
            raise RecipeError(
                f"policies.{name}.{field} is {has}, and {where}.{key} is {wanted}; the vision tower takes what the "
                "policy makes, so make them equal"
            )


def _read_tower_sizes(tower: VisionTower | Pretrained | RawPatches | None, family: str) -> dict[str, int | None]:
    """`image_size` and `patch_size` of a tower, as far as they can be read without transformers and the network.

    Of a pretrained one its `config.json` tells, where it lies on this machine. Where a family fits the tower to the
    policy, as Idefics2 and Idefics3 do, and of DINOv2, which takes any side, the patch alone counts.
    """
    if isinstance(tower, RawPatches):
        return {"patch_size": tower.patch_size}
    if isinstance(tower, VisionTower):
        return {"image_size": tower.image_size, "patch_size": tower.patch_size}
    path = Path(tower.path) / "config.json" if tower else None
    if path is None or not path.is_file():
        return {}
    try:
        said = json.loads(path.read_bytes())
    except ValueError as error:
        raise RecipeError(f"model: {path} is no JSON ({error}); is it the folder of a model?") from error
    said = said.get("vision_config", said) if isinstance(said, dict) else {}
    fixed = family.startswith("llava") and said.get("model_type") != "dinov2"
    sizes = {key: said.get(key) for key in (("image_size", "patch_size") if fixed else ("patch_size",))}
    return {key: size for key, size in sizes.items() if isinstance(size, int)}


def list_short_plans(root: Path, recipe: Recipe) -> Iterator[str]:
    """A sentence with the next command for each stage of a built run whose plan does not fit its training.

    The training wants more than there is; or its steps leave sequences out that would make one step or more.

    Args:
        root: the run's folder.
        recipe: that it is locked to.
    """
    for stage in recipe.stages:
        if recipe.model and stage.train:
            planned = read_json(root / "mixtures" / stage.name / LOCK)["plan"]["sequences"]
            training = read_training_settings(stage, recipe.scale)
            try:
                used = count_steps(training, planned) * training.sequences
                if used <= planned - training.sequences:
                    moves = read_stage_mixture(recipe, stage).moves
                    end = ", and shares of its mixture that move do not come to their end" if moves else ""
                    yield (
                        f"{stage.name}: train.steps reads {used:,} of the {planned:,} sequences of its plan "
                        f"({used / planned:.0%}). The other {planned - used:,} are never trained on, so "
                        f"shares may be others than those of the plan{end}; train.epochs: 1 in place of steps reads all"
                    )
            except RecipeError as error:
                sets = " ".join(
                    f"--set stages.{stage.name}.train.{key}={number}"
                    for key, number in _fit_training(training, planned, recipe.scale).items()
                )
                larger = "; a larger --scale plans more" if recipe.scale < 1 else ""
                yield f"{stage.name}: {error}{larger}" + (
                    f". Next: the same build with --accept-changes {sets}" if sets else ""
                )


def warn_of_short_plans(recipe: Recipe, tokens: Mapping[str, int | None]) -> Iterator[str]:
    """A sentence for each stage whose steps want clearly more or fewer sequences than are planned, before any build.

    Args:
        recipe: That is looked at; stages that cannot be read are faults of their own.
        tokens: That the plan of a stage is estimated to hold, by its name; None where that is not known.
    """
    for stage in recipe.stages:
        known = tokens.get(stage.name)
        if not (recipe.model and stage.train and known is not None):
            continue
        try:
            training = read_training_settings(stage, recipe.scale)
            length = read_stage_mixture(recipe, stage).sequence_length
        except RecipeError:
            continue
        planned, wanted = known // length, (training.steps or 1) * training.sequences
        if training.steps and MARGIN * wanted < planned:
            yield (
                f"{stage.name}: its mixture plans about {planned:,} sequences of {length:,} tokens, and "
                f"{training.steps:,} steps of {training.sequences:,} read {wanted:,} of them, the others never: "
                "train.epochs: 1 in place of steps reads all"
            )
        if wanted > MARGIN * planned:
            yield (
                f"{stage.name}: its mixture plans about {planned:,} sequences of {length:,} tokens, and "
                f"{training.steps or 1:,} steps of {training.sequences:,} want {wanted:,}: give fewer train.steps or "
                "train.sequences, or a mixture of more epochs or rows"
            )


def is_trainable(root: Path, recipe: Recipe) -> bool:
    """Whether the trainings of a built run can begin: its plans feed them, and no stage was trained on an earlier one.

    Args:
        root: the run's folder.
        recipe: that it is locked to.
    """
    for stage in recipe.stages:
        if describe_outdated_training(root, stage.name):
            return False
        if recipe.model and stage.train:
            planned = read_json(root / "mixtures" / stage.name / LOCK)["plan"]["sequences"]
            try:
                count_steps(read_training_settings(stage, recipe.scale), planned)
            except RecipeError:
                return False
    return bool(recipe.model)


def _fit_training(training: Training, planned: int, scale: float) -> dict[str, int]:
    """The settings of a training that a plan of so many sequences feeds, as the recipe has them, of the whole run.

    Fewer steps where one of them can be fed; else smaller ones, as many as there were if there is enough for these.
    """
    if most := int(planned // training.sequences / scale):
        return {"steps": most}
    part, steps = training.accumulation * (training.ranks or 1), training.steps or 1
    if size := planned // (part * steps) * part:
        return {"sequences": size}
    fed = int(planned // part / scale)
    return {"sequences": part, "steps": fed} if fed else {}


def list_outdated_trainings(root: Path, recipe: Recipe, shown: Path) -> Iterator[str]:
    """A sentence with the next command for each stage that was trained to its end on another plan than there is now.

    Args:
        root: the run's folder.
        recipe: that it is locked to.
        shown: the folder as the command line names it.
    """
    for stage in recipe.stages:
        if said := describe_outdated_training(root, stage.name):
            yield (
                f"{stage.name}: {said}, and is not changed. To train on this one: "
                f"delete {shown / 'train' / stage.name}, then vlmill train {shown} --stage {stage.name}"
            )


def describe_outdated_training(root: Path, stage: str) -> str:
    """That the model of a stage was trained on another plan than there is now; empty where it was not."""
    folder, lock = root / "train" / stage, root / "mixtures" / stage / LOCK
    if not (folder / RESULT).exists() or not lock.exists():
        return ""
    try:
        trained = read_result(folder)
    except StoreError:  # it has changed, which `vlmill verify` and `vlmill train` say
        return ""
    outdated = trained["identity"]["mixture"] != hash_file(lock)
    return "its model was trained on an earlier plan" if outdated else ""


def _check_budget(recipe: Recipe, stage: Stage) -> None:
    """Where the mixture's budget is in sequences, the plan will have about as many.

    A scaled run may be too short to train on, and is still made to see what the whole run costs.
    """
    budget = read_stage_mixture(recipe, stage).sequences if recipe.scale == 1 else None
    if budget is not None:
        try:
            count_steps(read_training_settings(stage, recipe.scale), int(budget))
        except RecipeError as error:
            raise RecipeError(f"stages.{stage.name}.{error} (mixture.sequences)") from error
