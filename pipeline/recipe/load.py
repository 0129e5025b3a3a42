"""From a recipe's files and the command line's overrides to the effective recipe, whole or as far as it can be read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import RecipeError, list_errors, list_faults
from vlmill.pipeline.core.yaml_format import parse_yaml
from vlmill.pipeline.filters import custom as custom_filters
from vlmill.pipeline.recipe.changes import MappingInChange
from vlmill.pipeline.recipe.custom_sources import HINT
from vlmill.pipeline.recipe.given import RecipeName
from vlmill.pipeline.recipe.include import COMPOSING, compose_file
from vlmill.pipeline.recipe.located import Origins
from vlmill.pipeline.recipe.mapping import find_recipe
from vlmill.pipeline.recipe.overrides import list_locations
from vlmill.pipeline.recipe.parsed import parse_readable_recipe, parse_recipe
from vlmill.pipeline.recipe.published import Mapped, check_mapped, describe_left_out, select_used
from vlmill.pipeline.recipe.schema import Recipe, SourceSettings
from vlmill.pipeline.recipe.subsets import list_unlisted
from vlmill.pipeline.recipe.validate import NO_SIGNAL, describe_unrendered, validate_recipe

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
    moved: frozenset[str] = frozenset()  # sources and benchmarks whose root an option has set
    unheard: frozenset[str] = frozenset()  # sources of whose fetch settings some could not be read


@dataclass(frozen=True)
class EffectiveRecipe:
    """A recipe with all that it includes and all that the command line changed in it."""

    recipe: Recipe
    data: dict[str, Any]  # the same as a YAML mapping; a run's folder is locked to it
    base: Path  # the folder that relative paths start from
    origins: Origins  # of every value in `data`
    notes: tuple[str, ...] = ()  # what a person should know of it

    def find_moved(self) -> frozenset[str]:
        """The sources and benchmarks whose root an option of the command line has set: `--source` or `--set`."""
        return _find_moved(self.origins)


def _find_moved(origins: Origins) -> frozenset[str]:
    """See `EffectiveRecipe.find_moved`."""
    blocks = (("sources",), ("decontaminate", "against"))
    roots = (keys for keys in origins if keys[-1:] == ("root",) and keys[:-2] in blocks)
    return frozenset(keys[-2] for keys in roots if origins[keys].startswith("--"))


def load_recipe(
    name: RecipeName,
    sources: Mapping[str, str] | None = None,
    limit: int | None = None,
    sets: Mapping[str, str] | None = None,
    filters: Sequence[tuple[str, str]] = (),
    held: Mapping[str, Any] | None = None,
) -> tuple[Recipe, dict[str, Any], Path]:
    """The effective recipe, its YAML mapping, and the folder where its relative paths start: see `compose_recipe`."""
    found = compose_recipe(name, sources, limit, sets, filters, {"custom_filters": held} if held else None)
    return found.recipe, found.data, found.base


def compose_recipe(
    name: RecipeName,
    sources: Mapping[str, str] | None = None,
    limit: int | None = None,
    sets: Mapping[str, str] | None = None,
    filters: Sequence[tuple[str, str]] = (),
    locked: Mapping[str, Any] | None = None,
) -> EffectiveRecipe:
    """A recipe with all that it includes and all that the command line changes.

    Args:
        name: a file, the name of a shipped recipe, or one that was made in Python.
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
    work, mapped = _begin_mapping(name, sets, filters)
    for change in work.list_changes(find_recipe(name), sources, limit, sets, filters, locked):
        change()
    digests, where = [custom_filters.hash_code(code) for _, code in filters], find_recipe(name)
    mapped = select_used(mapped, work.data)
    try:
        recipe = parse_recipe(work.data, where.name).trusting(digests)
        check_mapped(mapped, recipe.list_groups())
        validate_recipe(recipe)
    except RecipeError as error:
        raise RecipeError(*work.add_origins(error.faults, where.name)) from None
    notes = (*describe_left_out(work.data, mapped), *describe_unrendered(recipe))
    return EffectiveRecipe(recipe, work.data, where.parent, work.origins, notes)


def load_readable(
    name: RecipeName,
    sources: Mapping[str, str] | None = None,
    limit: int | None = None,
    sets: Mapping[str, str] | None = None,
    filters: Sequence[tuple[str, str]] = (),
    locked: Mapping[str, Any] | None = None,
) -> ReadableRecipe:
    """The same as far as it can be read. What `validate_recipe` says is not yet among its faults.

    Raises:
        RecipeError: there is no such recipe, it is no YAML mapping, or what it includes cannot be put together.
    """
    path = find_recipe(name)
    work, mapped = _begin_mapping(name, sets, filters)
    errors = list_errors(work.list_changes(path, sources, limit, sets, filters, locked))
    found = parse_readable_recipe(work.data, path.name)
    recipe = found.block
    lacking = dict(filters).keys() - (work.data.get("custom_filters") or {}).keys()  # what is wrong with it is said
    faults = [*list_faults(errors), *(fault for fault in found.faults if not (lacking and HINT in fault))]
    if recipe is None:
        return ReadableRecipe(None, work.data, path.parent, work.add_origins(faults, path.name))
    refused = list[str]()
    for digest in dict.fromkeys(custom_filters.hash_code(code) for _, code in filters):
        try:
            recipe = recipe.trusting([digest])
        except RecipeError as error:
            faults += error.faults
            refused.append(digest)
    unreadable = {*_list_unreadable(recipe, found.left_out, work.data)}
    unreadable |= {name for name, one in recipe.sources.items() if getattr(one.options, "sha256", "") in refused}
    kept, unlisted = _keep_names(recipe, found.left_out), list_unlisted(work.data)
    unreadable |= set(unlisted)
    unread = tuple(f"{name}-" for name in unlisted)
    meant = [item for item in select_used(mapped, work.data) if not item.source.startswith(unread)]
    faults += list_faults(list_errors([partial(check_mapped, meant, kept.list_groups())]))
    faults = [fault for fault in faults if not _is_of_unlisted(fault, unlisted)]
    located = work.add_origins(dict.fromkeys(faults), path.name)
    moved = _find_moved(work.origins)
    blocks = {f"{left}.".partition("fetch.")[0] for left in found.left_out if "fetch." in f"{left}."}
    unheard = frozenset(name for name in recipe.sources if blocks & {"", f"sources.{name}."})

    silent = any(left.partition(".")[0] == "signals" for left in found.left_out)

    def concerns(fault: str) -> bool:
        """Whether it is about what was left out, would come of a signal that was, or needs code that cannot be made."""
        follows = (silent and NO_SIGNAL in fault) or any(digest in fault for digest in refused)
        return follows or _is_of_unlisted(fault, unlisted) or found.concerns(fault)

    return ReadableRecipe(kept, work.data, path.parent, located, frozenset(unreadable), concerns, moved, unheard)


def _is_of_unlisted(fault: str, unlisted: Collection[str]) -> bool:
    """Whether a fault is that there is no source of a subset, of sources whose subsets could not be listed."""
    named = any(f"{name}-" in fault for name in unlisted)
    return named and fault.startswith(("stages.", "filters.", "--source "))


def _begin_mapping(
    name: RecipeName, sets: Mapping[str, str] | None, filters: Sequence[tuple[str, str]]
) -> tuple[MappingInChange, list[Mapped]]:
    """The mapping of a recipe's files put together, before the command line changes it."""
    early = {key: parse_yaml(text, f"--set {key}") for key, text in (sets or {}).items() if key in COMPOSING}
    whole, mapped = compose_file(find_recipe(name), early, dict(filters))
    return MappingInChange(whole.to_data(), dict(whole.list_origins())), mapped


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
