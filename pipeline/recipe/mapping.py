"""Recipes and locks as files: where they lie, their mappings, how two differ.

The code in them is found here and not run.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.config import parse_block, suggest_names
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.places import suggest_near, take_local_path, take_run_folder
from vlmill.pipeline.core.yaml_format import read_yaml
from vlmill.pipeline.filters.custom import CustomCode, explain_refusal
from vlmill.pipeline.recipe.given import GivenRecipe, RecipeName, RecipePlace

LOCK = "recipe.lock.yaml"
YAML = frozenset({".yaml", ".yml"})
DATA = frozenset({".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".tar", ".gz", ".bz2", ".zst", ".zip", ".pdf"})
"""How files end that are recipes, and that are none."""

SHOWN_DIGITS = 12
"""Of a sha256 of code, where two recipes are compared."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120
_SHORT.maxlist = _SHORT.maxdict = 20


def find_recipe(name: RecipeName) -> RecipePlace:
    """The file of a recipe: `name` itself if it is a file or was made in Python, else the shipped recipe of that name.

    A folder, such as a run that has the name of a shipped recipe, hides no recipe.

    Raises:
        RecipeError: there is neither.
    """
    if isinstance(name, GivenRecipe):
        return name
    name = str(name)
    path = take_local_path(name, "a recipe")
    if path.is_file() and path.suffix.lower() not in DATA:
        return path
    if path.is_file():
        raise RecipeError(f"{name} is no recipe; vlmill new {name} looks at data and writes a recipe for them")
    if path.suffix in YAML:
        near = suggest_near(path, lambda one: one.suffix in YAML and one.is_file())
        raise RecipeError(f"{name}: there is no such recipe file{near}")
    shipped = {
        Path(str(item)).stem: Path(str(item))
        for item in files("vlmill.recipes").iterdir()
        if str(item).endswith(".yaml")
    }
    if name not in shipped and path.is_dir():
        raise RecipeError(f"{name} is a folder; vlmill new {name} looks at data and writes a recipe for them")
    if name not in shipped:
        raise RecipeError(f"{name!r} is neither a file nor a shipped recipe; {suggest_names(name, list(shipped))}")
    return shipped[name]


def find_run(name: RecipeName, out: Path | None) -> Path:
    """The folder of the run that is meant: `name` itself if it is one, else `out`.

    `out` is by default `build/` and the name of that recipe.
    """
    if not isinstance(name, GivenRecipe) and ((folder := take_run_folder(name)) / LOCK).is_file():
        return folder
    return out or Path("build") / str(read_mapping(find_recipe(name)).get("name"))


def read_mapping(path: RecipePlace) -> dict[str, Any]:
    """What stands in a recipe file.

    Raises:
        RecipeError: it is no YAML, or no mapping; the message names the line.
    """
    if isinstance(path, GivenRecipe):
        return path.read_data()
    data = read_yaml(path)
    if not isinstance(data, dict):
        is_data = path.suffix not in YAML and isinstance(data, list)
        advice = f"; vlmill new {path} looks at data and writes a recipe for them" if is_data else ""
        raise RecipeError(f"{path}: a recipe is a mapping with `name` and `sources`, not {type(data).__name__}{advice}")
    return data


def read_held_code(path: RecipePlace) -> dict[str, CustomCode]:
    """The files of custom filters that a recipe or a lock holds; none where there is no such file.

    Nothing of them runs.

    Raises:
        RecipeError: it is no code, or another than its sha256 says.
    """
    data = read_mapping(path) if isinstance(path, GivenRecipe) or path.exists() else {}
    return parse_block(dict[str, CustomCode], data.get("custom_filters") or {}, f"{path}: custom_filters")


def refuse_code(path: RecipePlace, data: dict[str, Any], filters: Mapping[str, str]) -> None:
    """Take the code out of a recipe's mapping; what of it the command line named comes in with that.

    Raises:
        RecipeError: it holds other code.
    """
    held = read_held_code(path) if data.pop("custom_filters", None) else {}
    other = {file: code for file, code in held.items() if filters.get(file) != code.code}
    if other:
        raise RecipeError(explain_refusal(str(path), other))


def _hide_code(value: Any) -> Any:
    """A value of a recipe, of code in it the first digits of its sha256."""
    if not isinstance(value, dict):
        return value
    if {"code", "sha256"} == value.keys():
        return f"code with sha256 {str(value['sha256'])[:SHOWN_DIGITS]}..."
    return {key: _hide_code(inside) for key, inside in value.items()}


def list_differences(before: Any, now: Any, where: str = "") -> str:
    """The leaves in which two recipes differ, one per line."""
    before, now = _hide_code(before), _hide_code(now)
    if isinstance(before, dict) and isinstance(now, dict):
        lines = [
            list_differences(before.get(key), now.get(key), f"{where}.{key}".lstrip("."))
            for key in sorted({*before, *now})
        ]
        return "\n".join(line for line in lines if line)
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        lines = [
            list_differences(*pair, f"{where}[{place}]") for place, pair in enumerate(zip(before, now, strict=True))
        ]
        return "\n".join(line for line in lines if line)
    if before == now:
        return ""
    if names := _compare_names(before, now):
        return f"  {where}: {names} here"
    return f"  {where}: {_show_value(before)} there, {_show_value(now)} here"


def _compare_names(before: Any, now: Any) -> str:
    """What a list of names has more or less, if it has the others in their order; else empty."""
    lists = isinstance(before, list | tuple) and isinstance(now, list | tuple) and before and now
    if not lists or not all(isinstance(one, str) for one in (*before, *now)):
        return ""
    if [one for one in before if one in now] != [one for one in now if one in before]:
        return ""
    found = {"without": [one for one in before if one not in now], "with": [one for one in now if one not in before]}
    return " and ".join(f"{word} {', '.join(names)}" for word, names in found.items() if names)


def _show_value(value: Any) -> str:
    """A value of a recipe, cut short."""
    return "nothing" if value is None else _SHORT.repr(_leave_empty(value))


def _leave_empty(value: Any) -> Any:
    """A value of a recipe without the keys that say nothing."""
    if isinstance(value, list):
        return [_leave_empty(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: _leave_empty(one) for key, one in value.items() if one is not None and one not in ([], {}, "")}
