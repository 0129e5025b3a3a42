"""What an ablation compares.

One YAML file, read once into a frozen object, and the recipe of each training that it takes.

recipe: quickstart
baseline: two-stages
variants:
  two-stages: {}
  faster: {stages.tune.train.learning_rate: {projector: 4.0e-3, vision: 4.0e-3, text: 4.0e-3}}
seeds: [0, 1, 2]
metric: exact

`--set` of the command sets keys of this file, or keys of the recipe for all variants: those are `overrides`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain
from dataclasses import field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, parse_block, suggest_names
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.yaml_format import format_yaml, parse_yaml
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.recipe.located import take_name
from vlmill.pipeline.recipe.mapping import read_mapping
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.recipe.validate import check_name
from vlmill.train.ablation.power import Variation
from vlmill.train.validate import validate_whole_recipe

DATA = "data"
"""The folder of what variants share, beside theirs."""

RESERVED = (DATA, "ablation.json", "ablation.svg", "ablation.html")
"""What stands beside the folders of variants."""

Settings = Mapping[str, Any]
"""Dotted key -> value, as `--set` has them."""


@dataclass(frozen=True, config=STRICT)
class Spec:
    """An ablation. Every variant is trained once with each seed, and compared with the baseline."""

    recipe: str  # a file, relative to this one, or the name of a shipped recipe
    baseline: str  # one of the variants
    variants: Mapping[str, Settings]  # name -> what it changes in the recipe
    set: Settings = field(default_factory=dict)  # what all of them change in it
    seeds: tuple[int, ...] = (0, 1, 2)  # `seed` of every stage's training
    metric: Literal["loss", "exact", "vqa", "anls", "relaxed"] = "exact"  # of the last stage's held-out samples
    variation: Variation | None = None  # of differences, known from a pilot; None: as measured of the shipped data
    overrides: Settings = field(default_factory=dict)  # what all variants change in the recipe last

    def __post_init__(self) -> None:
        """Refuse what compares nothing."""
        for name in self.variants:
            check_name("variants", name, RESERVED)
        if self.baseline not in self.variants:
            raise ValueError(
                f"baseline: {self.baseline!r} is no variant; {suggest_names(self.baseline, dict(self.variants))}"
            )
        if len(self.variants) < 2:
            raise ValueError("variants: there is nothing to compare the baseline with; give at least two")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)}; give at least one, each once")
        self._check_overrides()

    def _check_overrides(self) -> None:
        """Refuse what would undo a difference between variants."""
        for key in self.overrides:
            for name, changes in self.variants.items():
                if undone := [other for other in changes if other == key or other.startswith(f"{key}.")]:
                    raise ValueError(
                        f"overrides: {key} would undo what variant {name!r} sets, {undone[0]}; change the variant: "
                        f"--set variants.{name}.{undone[0]}=VALUE"
                    )

    def list_changes(self, variant: str) -> dict[str, Any]:
        """What a variant's recipe changes, in the order in which it is set."""
        mine = {**self.set, **self.variants[variant]}
        return {key: value for key, value in mine.items() if key not in self.overrides} | dict(self.overrides)


@plain(frozen=True, slots=True)
class Trial:
    """One training of an ablation."""

    variant: str
    seed: int
    recipe: Recipe
    data: Mapping[str, Any]  # its recipe as a mapping
    base: Path  # where relative paths in it start


def find_ablation(name: str) -> Path:
    """The file of an ablation: `name` itself if it is a file, else the shipped one of that name.

    Raises:
        RecipeError: there is neither.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = {
        Path(str(item)).stem: Path(str(item)) for item in files("vlmill.recipes").joinpath("ablations").iterdir()
    }
    if name not in shipped:
        raise RecipeError(f"{name!r} is neither a file nor a shipped ablation; {suggest_names(name, list(shipped))}")
    return shipped[name]


def read_ablation(path: Path, sets: Mapping[str, str] | None = None) -> Spec:
    """The ablation that a file describes.

    Args:
        path: of the file.
        sets: dotted key -> YAML text in the place of a value: a key of the file (`seeds`, `variants.NAME.KEY`), or one
            of the recipe, which all variants then change.

    Raises:
        RecipeError: names each wrong key or value and what was allowed.
    """
    data = dict(read_mapping(path))
    for key, text in (sets or {}).items():
        _set_value(data, key, parse_yaml(text, f"--set {key}={text:.80}: the value"))
    spec = parse_block(Spec, data, path.name)
    beside = path.parent / spec.recipe
    return replace(spec, recipe=str(beside)) if beside.is_file() else spec


def _set_value(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a key of a spec, or of the recipe of all its variants."""
    first, _, rest = key.partition(".")
    if first == "variants" and rest:
        variants = dict(data.get("variants") or {})
        name, parts = take_name(rest.split("."), variants)
        if not parts:
            data["variants"] = {**variants, name: value}
        elif name in variants:
            data["variants"] = {**variants, name: {**(variants[name] or {}), ".".join(parts): value}}
        else:
            raise RecipeError(f"--set {key}: there is no variant {name!r}; {suggest_names(name, list(variants))}")
    elif first in ("set", "overrides") and rest:
        data[first] = {**(data.get(first) or {}), rest: value}
    elif key in {known.name for known in fields(Spec)}:
        data[key] = value
    else:
        data["overrides"] = {**(data.get("overrides") or {}), key: value}


def list_trials(
    spec: Spec, sources: Mapping[str, str], limit: int | None, filters: Sequence[tuple[str, str]] = ()
) -> list[Trial]:
    """Every training, the first seed's of all variants first.

    Each recipe is checked, so that a mistake shows before any work.

    Args:
        spec: the ablation.
        sources: where sources lie, as `build --source` has it.
        limit: rows of each source.
        filters: files with custom filters: name, code.

    Raises:
        RecipeError: a variant's recipe is wrong, has no stage or no model, or holds other samples out than the
            baseline.
    """
    made = [_load_trial(spec, name, seed, sources, limit, filters) for seed in spec.seeds for name in spec.variants]
    held_out = {trial.variant: set(trial.recipe.stages[-1].mixture.get("held_out") or ()) for trial in made}
    for name, names in held_out.items():
        if not names & held_out[spec.baseline]:
            raise RecipeError(
                f"variants.{name}: its last stage and the baseline's hold out no source in common, and what is "
                "compared are answers about the same samples; give both the same in `mixture.held_out`, such as "
                "{quiz: 0.1}"
            )
    return made


def _load_trial(
    spec: Spec,
    variant: str,
    seed: int,
    sources: Mapping[str, str],
    limit: int | None,
    filters: Sequence[tuple[str, str]],
) -> Trial:
    changes = spec.list_changes(variant)
    try:
        recipe, data, base = _load_recipe(spec, changes, sources, limit, filters)
        seeded = {**changes, **{f"stages.{stage.name}.train.seed": seed for stage in recipe.stages}}
        recipe, data, base = _load_recipe(spec, seeded, sources, limit, filters)
        validate_whole_recipe(recipe)
    except RecipeError as error:
        raise RecipeError(f"variant {variant!r}: {error}") from error
    if not (recipe.stages and recipe.model):
        raise RecipeError(
            f"variant {variant!r}: the recipe {spec.recipe!r} has no {'model' if recipe.stages else 'stages'} to train"
        )
    return Trial(variant, seed, recipe, data, base)


def _load_recipe(
    spec: Spec,
    changes: Settings,
    sources: Mapping[str, str],
    limit: int | None,
    filters: Sequence[tuple[str, str]],
) -> tuple[Recipe, dict[str, Any], Path]:
    return load_recipe(
        spec.recipe, sources, limit, {key: format_yaml(value) for key, value in changes.items()}, filters
    )
