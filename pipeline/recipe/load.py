"""From a recipe's file and the command line's overrides to the effective recipe."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.yaml_format import parse_yaml
from vlmill.pipeline.filters import custom as custom_filters
from vlmill.pipeline.recipe.include import COMPOSING, compose_file
from vlmill.pipeline.recipe.located import Origins, add_origins, note_changes
from vlmill.pipeline.recipe.mapping import find_recipe, refuse_code
from vlmill.pipeline.recipe.overrides import add_custom_filters, list_locations, move_source, set_value
from vlmill.pipeline.recipe.published import check_mapped, describe_left_out, select_used
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.recipe.subsets import expand_subsets
from vlmill.pipeline.recipe.validate import validate_recipe


@dataclass(frozen=True)
class EffectiveRecipe:
    """A recipe with all that it includes and all that the command line changed in it."""

    recipe: Recipe
    data: dict[str, Any]  # the same as a YAML mapping; a run's folder is locked to it
    base: Path  # the folder that relative paths start from
    origins: Origins  # of every value in `data`
    notes: tuple[str, ...] = ()  # what a person should know of it


def load_recipe(
    name: str,
    sources: Mapping[str, str] | None = None,
    limit: int | None = None,
    sets: Mapping[str, str] | None = None,
    filters: Sequence[tuple[str, str]] = (),
    held: Mapping[str, Any] | None = None,
) -> tuple[Recipe, dict[str, Any], Path]:
    """The effective recipe, its YAML mapping, and the folder that its relative paths start from: see `compose_recipe`."""
    found = compose_recipe(name, sources, limit, sets, filters, {"custom_filters": held} if held else None)
    return found.recipe, found.data, found.base


def compose_recipe(
    name: str,
    sources: Mapping[str, str] | None = None,
    limit: int | None = None,
    sets: Mapping[str, str] | None = None,
    filters: Sequence[tuple[str, str]] = (),
    locked: Mapping[str, Any] | None = None,
) -> EffectiveRecipe:
    """A recipe with all that it includes and all that the command line changes.

    Args:
        name: a file, or the name of a shipped recipe.
        sources: a source or benchmark -> where its files are: a folder, a file or a pattern.
        limit: so many rows of each source.
        sets: dotted key -> YAML text in the place of a value; `include` and `replace` are set before files are put
            together.
        filters: files with custom filters that the command line names: name, code.
        locked: the mapping that a run is locked to. Its subsets are kept, and its custom filters are known and not run.

    Raises:
        RecipeError: names each wrong key or value, its file and line, and what was allowed.
        SourceError: subsets of a source cannot be listed.
    """
    path, sets = find_recipe(name), dict(sets or {})
    early = {key: parse_yaml(sets.pop(key), f"--set {key}") for key in COMPOSING if key in sets}
    whole, mapped = compose_file(path, early, dict(filters))
    work = _Mapping(whole.to_data(), dict(whole.list_origins()))
    work.change("", lambda data: refuse_code(path, data, dict(filters)))
    work.add_filters(filters, (locked or {}).get("custom_filters"))
    work.override(path.parent, dict(sources or {}), sets, locked)
    if limit is not None:
        work.change("--limit", lambda data: data.update(limit=limit))
    digests = [custom_filters.hash_code(code) for _, code in filters]
    mapped = select_used(mapped, work.data)
    try:
        recipe = parse_block(Recipe, work.data, path.name).trusting(digests)
        check_mapped(mapped, recipe.list_groups())
        validate_recipe(recipe)
    except RecipeError as error:
        raise RecipeError(add_origins(str(error), work.data, work.origins, path.name)) from None
    return EffectiveRecipe(recipe, work.data, path.parent, work.origins, tuple(describe_left_out(work.data, mapped)))


class _Mapping:
    """A recipe's mapping while it is changed, and the origin of every value in it."""

    def __init__(self, data: dict[str, Any], origins: Origins) -> None:
        self.data, self.origins = data, origins

    def change(self, origin: str, how: Callable[[dict[str, Any]], object]) -> None:
        """Change the mapping in place; what is new in it comes from `origin`."""
        before = copy.deepcopy(self.data)
        how(self.data)
        note_changes(self.origins, before, self.data, origin)

    def add_filters(self, filters: Sequence[tuple[str, str]], held: Mapping[str, Any] | None) -> None:
        """Custom filters: those that a lock holds, which are known, and those that the command line names."""
        if held:
            others = {file: code for file, code in held.items() if file not in dict(filters)}
            self.change("the lock", lambda data: data.update(custom_filters=others))
        for file, code in filters:
            self.change(f"--filter {file}", partial(add_custom_filters, file=file, code=code))

    def override(
        self, base: Path, moves: dict[str, str], sets: dict[str, str], locked: Mapping[str, Any] | None
    ) -> None:
        """Move sources, set values and make one source of each subset, whose own values are set after that."""
        for name in [name for name in moves if name in list_locations(self.data)]:
            self._move(name, moves.pop(name))
        later = {key: sets.pop(key) for key in list(sets) if self._is_of_subset(key)}
        self._set(sets)
        before, self.data = self.data, expand_subsets(self.data, base, locked)
        if self.data is not before:
            self._note_subsets(before["sources"])
        self._set(later)
        for name, place in moves.items():
            self._move(name, place)

    def _move(self, name: str, place: str) -> None:
        self.change(f"--source {name}", lambda data: move_source(data, name, place))

    def _set(self, sets: Mapping[str, str]) -> None:
        for key, text in sets.items():
            self.change(f"--set {key}", partial(set_value, key=key, text=text))

    def _is_of_subset(self, key: str) -> bool:
        """Whether a dotted key leads into a source that a subset has yet to become."""
        sources, parts = self.data.get("sources"), key.split(".")
        if parts[0] != "sources" or len(parts) < 2 or not isinstance(sources, dict) or parts[1] in sources:
            return False
        groups = [name for name, block in sources.items() if isinstance(block, dict) and block.get("subsets")]
        return any(parts[1].startswith(f"{name}-") for name in groups)

    def _note_subsets(self, before: Mapping[str, Any]) -> None:
        """The origins of sources that came of subsets: those of the source that they were, or its `subsets`."""
        for name, block in self.data["sources"].items():
            if name in before:
                continue
            group = block["group"]
            origin = self.origins["sources", group, "subsets"]
            for key in [found for found in self.origins if found[:2] == ("sources", group)]:
                if key[2:3] and key[2] in block and key[2] not in ("files", "subset", "split"):
                    self.origins["sources", name, *key[2:]] = self.origins[key]
            self.origins["sources", name] = origin
            for key in block.keys() & {"files", "subset", "split", "group"}:
                self.origins["sources", name, key] = origin
        for key in [found for found in self.origins if found[:1] == ("sources",) and found[1:2]]:
            if key[1] not in self.data["sources"]:
                del self.origins[key]
