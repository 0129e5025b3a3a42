"""From a recipe's file and the command line's overrides to the effective recipe, whole or as far as it can be read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vlmill.pipeline.chat.reading import fill_chat
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError, list_errors, list_faults
from vlmill.pipeline.core.readable import parse_readable
from vlmill.pipeline.decontaminate.lists import expand_benchmarks
from vlmill.pipeline.filters import custom as custom_filters
from vlmill.pipeline.recipe.mapping import find_recipe, read_mapping, refuse_code
from vlmill.pipeline.recipe.overrides import add_custom_filters, list_locations, move_source, set_value
from vlmill.pipeline.recipe.schema import Recipe, SourceSettings
from vlmill.pipeline.recipe.validate import validate_recipe

LOCATED = ("kind", "options", "files", "root", "subset", "split", "images")
"""Keys of a source without which its input files cannot be read."""


@dataclass(frozen=True)
class ReadableRecipe:
    """A recipe as far as it can be read, and what is wrong with the rest of it.

    A source that cannot be read is there as a name, so that what names it is no second fault. A stage whose policy
    cannot be read is left out.
    """

    recipe: Recipe | None  # None where nothing of it can be read
    mapping: Mapping[str, Any]
    base: Path
    faults: tuple[str, ...] = ()
    unreadable: frozenset[str] = frozenset()  # sources and benchmarks whose files cannot be looked at
    concerns: Callable[[str], bool] = lambda _: False  # whether a later fault follows from one of these


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
    data = copy.deepcopy(read_mapping(path))
    for change in _list_changes(path, data, dict(sources or {}), limit, sets or {}, filters, held):
        change()
    recipe = parse_block(Recipe, data, path.name).trusting([custom_filters.hash_code(code) for _, code in filters])
    validate_recipe(recipe)
    return recipe, data, path.parent


def load_readable(
    name: str,
    sources: Mapping[str, str] | None = None,
    limit: int | None = None,
    sets: Mapping[str, str] | None = None,
    filters: Sequence[tuple[str, str]] = (),
) -> ReadableRecipe:
    """The same as far as it can be read. What `validate_recipe` says is not yet among its faults.

    Raises:
        RecipeError: there is no such recipe, or it is no YAML mapping.
    """
    path = find_recipe(name)
    data = copy.deepcopy(read_mapping(path))
    errors = list_errors(_list_changes(path, data, dict(sources or {}), limit, sets or {}, filters, None))
    found = parse_readable(Recipe, data, path.name)
    recipe = found.block
    faults = [*list_faults(errors), *found.faults]
    if recipe is None:
        return ReadableRecipe(None, data, path.parent, tuple(faults))
    try:
        recipe = recipe.trusting([custom_filters.hash_code(code) for _, code in filters])
    except RecipeError as error:
        faults += error.faults
    unreadable = frozenset(_list_unreadable(recipe, found.left_out, data))
    return ReadableRecipe(
        _keep_names(recipe, found.left_out), data, path.parent, tuple(dict.fromkeys(faults)), unreadable, found.concerns
    )


def _list_changes(
    path: Path,
    data: dict[str, Any],
    moves: dict[str, str],
    limit: int | None,
    sets: Mapping[str, str],
    filters: Sequence[tuple[str, str]],
    held: Mapping[str, Any] | None,
) -> Iterator[Callable[[], object]]:
    """What makes a recipe's mapping the effective one, in order; each changes it in place, or raises RecipeError."""

    def expand_lists() -> None:
        data.update(expand_benchmarks(data, path.parent))

    def read_chat() -> None:
        data.update(fill_chat(data, path.parent))

    yield expand_lists
    yield partial(refuse_code, path, data, dict(filters))
    if held:
        data["custom_filters"] = {file: code for file, code in held.items() if file not in dict(filters)}
    yield from (partial(add_custom_filters, data, file, code) for file, code in filters)
    yield from (
        partial(move_source, data, source, moves.pop(source))
        for source in list(moves)
        if source in list_locations(data)
    )
    yield from (partial(set_value, data, key, text) for key, text in sets.items())
    yield expand_lists  # a list of benchmarks may have been set
    yield read_chat
    yield from (partial(move_source, data, source, place) for source, place in moves.items())
    if limit is not None:
        data["limit"] = limit


def _list_unreadable(recipe: Recipe, left_out: frozenset[str], data: Mapping[str, Any]) -> Iterator[str]:
    """Sources and benchmarks of a mapping whose files cannot be looked at, because of what was left out of them."""
    against = recipe.decontaminate.against if recipe.decontaminate else {}
    for name in list_locations(data):
        settings = recipe.sources.get(name) or against.get(name)
        block = f"sources.{name}." if name in (data.get("sources") or {}) else f"decontaminate.against.{name}."
        lost = {left.removeprefix(block).partition(".")[0] for left in left_out if left.startswith(block)}
        if settings is None or lost & {*LOCATED} or (lost and settings.files is None and settings.split is None):
            yield name


def _keep_names(recipe: Recipe, left_out: frozenset[str]) -> Recipe:
    """The recipe with the names of sources that were left out, and without stages whose policy was left out."""
    lost = {left.removeprefix("sources.") for left in left_out if left.startswith("sources.")}
    missing = {name: SourceSettings(kind="chat", files="*") for name in sorted(lost) if "." not in name}
    stages = tuple(stage for stage in recipe.stages if f"policies.{stage.policy}" not in left_out)
    return replace(recipe, sources={**recipe.sources, **missing}, stages=stages)
