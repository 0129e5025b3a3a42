"""The effective recipe as YAML, every value with where it comes from: file and line, an option, or the default.

The text is a recipe itself: read again, from the same folder, it is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.yaml_format import format_yaml_inline
from vlmill.pipeline.recipe.load import EffectiveRecipe
from vlmill.pipeline.recipe.located import Keys, Origins
from vlmill.pipeline.recipe.schema import Recipe

DEFAULT = "default"
CODE = "custom_filters"


def format_effective(found: EffectiveRecipe, blocks: Mapping[str, type[Any]]) -> str:
    """The recipe with all its defaults.

    Args:
        found: the recipe.
        blocks: the classes of `model`, and of a stage's `mixture` and `train`.
    """
    data = {key: value for key, value in found.data.items() if key != CODE}
    whole = _lay_over(_spell_recipe(found.recipe, blocks), data)
    whole = {item.name: whole[item.name] for item in dataclasses.fields(Recipe) if item.name in whole}
    origins = {keys: _shorten_origin(origin, found.base) for keys, origin in found.origins.items()}
    lines = [*(f"# {note}" for note in found.notes), *_write_mapping(whole, (), origins, "")]
    lines += [f"# code of custom filters in {file} ({origins[CODE, file]})" for file in found.data.get(CODE, {})]
    return "\n".join(lines) + "\n"


def _shorten_origin(origin: str, base: Path) -> str:
    """A file's place as seen from the recipe's folder, or from the folder of shipped recipes."""
    for folder, name in ((base, ""), (Path(str(files("vlmill.recipes"))), "vlmill/recipes/")):
        if origin.startswith(f"{folder}/"):
            return name + origin.removeprefix(f"{folder}/")
    return origin


def _spell_recipe(recipe: Recipe, blocks: Mapping[str, type[Any]]) -> dict[str, Any]:
    """All fields of a recipe as plain data."""
    whole = {name: value for name, value in _spell_value(recipe).items() if name != CODE}
    whole["filters"] = [{filter_.name: _spell_value(filter_)} for filter_ in recipe.filters]
    for name, policy in recipe.policies.items():
        whole["policies"][name] = {"kind": policy.kind, **whole["policies"][name]}
    for stage, plain in zip(recipe.stages, whole["stages"], strict=True):
        for name in ("mixture", "train"):
            if plain[name]:
                where = f"stages.{stage.name}.{name}"
                plain[name] = _spell_value(parse_block(blocks[name], dict(getattr(stage, name)), where))
    if recipe.model:
        whole["model"] = _spell_value(parse_block(blocks["model"], dict(recipe.model), "model"))
    return whole


def _spell_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {item.name: _spell_value(getattr(value, item.name)) for item in dataclasses.fields(value) if item.init}
    if isinstance(value, Mapping):
        return {name: _spell_value(item) for name, item in value.items()}
    return [_spell_value(item) for item in value] if isinstance(value, list | tuple) else value


def _lay_over(whole: Any, said: Any) -> Any:
    """What was said, with what is there by default beside it; what was said comes first."""
    if isinstance(whole, dict) and isinstance(said, dict):
        inside = {name: _lay_over(whole.get(name), item) for name, item in said.items()}
        return inside | {name: item for name, item in whole.items() if name not in said}
    if isinstance(whole, list) and isinstance(said, list) and len(whole) == len(said):
        return [_lay_over(*pair) for pair in zip(whole, said, strict=True)]
    return whole if said is None and isinstance(whole, dict) else said


def _is_inline(value: Any) -> bool:
    """Whether a value stands in one line: it holds no mapping."""
    if isinstance(value, list):
        return all(_is_inline(item) for item in value)
    return not isinstance(value, dict) or not value


def _write_mapping(value: Mapping[Any, Any], keys: Keys, origins: Origins, indent: str) -> Iterator[str]:
    for key, item in value.items():
        here, name = (*keys, key), f"{indent}{format_yaml_inline(key)}:"
        if _is_inline(item):
            yield f"{name} {format_yaml_inline(item)}  # {_name_origin(here, item, origins)}"
        elif isinstance(item, dict):
            yield name
            yield from _write_mapping(item, here, origins, f"{indent}  ")
        else:
            yield name
            yield from _write_list(item, here, origins, f"{indent}  ")


def _write_list(items: list[Any], keys: Keys, origins: Origins, indent: str) -> Iterator[str]:
    for place, item in enumerate(items):
        here = (*keys, place)
        if isinstance(item, dict) and item:
            first, *rest = _write_mapping(item, here, origins, f"{indent}  ")
            yield f"{indent}- {first.removeprefix(indent + '  ')}"
            yield from rest
        else:
            yield f"{indent}- {format_yaml_inline(item)}  # {_name_origin(here, item, origins)}"


def _name_origin(keys: Keys, item: Any, origins: Origins) -> str:
    """Where a value comes from; of a list whose items come from several places, all of these."""
    found = [origins[keys]] if keys in origins else [DEFAULT]
    if isinstance(item, list):
        inside = [_name_origin((*keys, place), each, origins) for place, each in enumerate(item)]
        files = dict.fromkeys(origin.partition(", line ")[0] for origin in (*found, *inside) if origin != DEFAULT)
        found = found if len(files) < 2 else list(dict.fromkeys(inside))
    return "; ".join(found)
