"""From a recipe's file and the command line's overrides to the effective recipe."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmill.pipeline.chat.reading import fill_chat
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.decontaminate.lists import expand_benchmarks
from vlmill.pipeline.filters import custom as custom_filters
from vlmill.pipeline.recipe.mapping import find_recipe, read_mapping, refuse_code
from vlmill.pipeline.recipe.overrides import add_custom_filters, list_locations, move_source, set_value
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.recipe.validate import validate_recipe


def load_recipe(
    name: str,
    sources: Mapping[str, str] | None = None,
    limit: int | None = None,
    sets: Mapping[str, str] | None = None,
    filters: Sequence[tuple[str, str]] = (),
    held: Mapping[str, Any] | None = None,
) -> tuple[Recipe, dict[str, Any], Path]:
    """The effective recipe, its YAML mapping, and the folder that its relative paths start from.

    `sources` moves the files of a source or benchmark (NAME -> a folder, a file or a pattern), `limit` takes that many
    rows of each source, `sets` replaces single values (dotted key -> YAML text), `filters` are files with custom
    filters that the command line named (name, code), `held` others that a run's lock holds: known, and not run.

    Raises:
        RecipeError: names each wrong key or value and what was allowed.
    """
    path = find_recipe(name)
    data, moves = expand_benchmarks(copy.deepcopy(read_mapping(path)), path.parent), dict(sources or {})
    refuse_code(path, data, dict(filters))
    if held:
        data["custom_filters"] = {file: code for file, code in held.items() if file not in dict(filters)}
    for file, code in filters:
        add_custom_filters(data, file, code)
    for source in [name for name in moves if name in list_locations(data)]:
        move_source(data, source, moves.pop(source))
    for key, text in (sets or {}).items():
        set_value(data, key, text)
    data = expand_benchmarks(data, path.parent)  # a list of benchmarks may have been set
    for source, place in moves.items():
        move_source(data, source, place)
    if limit is not None:
        data["limit"] = limit
    data = fill_chat(data, path.parent)
    recipe = parse_block(Recipe, data, path.name).trusting([custom_filters.hash_code(code) for _, code in filters])
    validate_recipe(recipe)
    return recipe, data, path.parent
