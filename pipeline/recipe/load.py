"""From a recipe's file and the command line's overrides to the effective recipe."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.config import build
from vlmill.pipeline.decontaminate.lists import spelt_out
from vlmill.pipeline.filters import custom as own_judges
from vlmill.pipeline.recipe.mapping import read_mapping, recipe_path, refuse_code
from vlmill.pipeline.recipe.overrides import add_judges, move_source, places, set_value
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.recipe.validate import check


def load(
    name: str,
    sources: Mapping[str, str] | None = None,
    limit: int | None = None,
    sets: Mapping[str, str] | None = None,
    judges: Sequence[tuple[str, str]] = (),
    held: Mapping[str, Any] | None = None,
) -> tuple[Recipe, dict[str, Any], Path]:
    """The effective recipe, its YAML mapping, and the folder that its relative paths start from.

    `sources` moves the files of a source or benchmark (NAME -> a folder, a file or a pattern), `limit` takes that many rows of each source,
    `sets` replaces single values (dotted key -> YAML text), `judges` are files with judges of one's own
    that the command line named (name, code), `held` others that a run's lock holds: known, and not run.

    Raises:
        RecipeError: names each wrong key or value and what was allowed.
    """
    path = recipe_path(name)
    data, moves = spelt_out(copy.deepcopy(read_mapping(path)), path.parent), dict(sources or {})
    refuse_code(path, data, dict(judges))
    if held:
        data["own_judges"] = {file: code for file, code in held.items() if file not in dict(judges)}
    for file, code in judges:
        add_judges(data, file, code)
    for source in [name for name in moves if name in places(data)]:
        move_source(data, source, moves.pop(source))
    for key, text in (sets or {}).items():
        set_value(data, key, text)
    data = spelt_out(data, path.parent)  # a list of benchmarks may have been set
    for source, place in moves.items():
        move_source(data, source, place)
    if limit is not None:
        data["limit"] = limit
    recipe = build(Recipe, data, path.name).trusting([own_judges.sha256(code) for _, code in judges])
    check(recipe)
    return recipe, data, path.parent
