"""Which sources the entries of a mixture mean: one by its name, or several by a group or a pattern."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vlmill.mixtures.config import MixtureSettings
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.recipe.other_names import offer_names
from vlmill.pipeline.recipe.schema import Recipe


def list_unknown(recipe: Recipe, names: Iterable[str], where: str) -> list[str]:
    """Of these names of entries, which the recipe has no source or group for, and what is near."""
    return [
        f"{where}: the recipe has no source {name!r}, and no group of sources; "
        f"{offer_names(recipe, name, recipe.list_groups())}"
        for name in names
        if not recipe.find_members(name)
    ]


def list_members(recipe: Recipe, mixture: MixtureSettings, where: str) -> Mapping[str, tuple[str, ...]]:
    """What each entry names -> the sources that it means, in the order of their names.

    A source with an entry of its own is in no group's and no pattern's.

    Raises:
        RecipeError: entries mean no source, each of which is named, or two of them mean the same one.
    """
    names = dict.fromkeys(entry.source for entry in mixture.resolved())
    if unknown := list_unknown(recipe, names, where):
        raise RecipeError(*unknown)
    members, taken = dict[str, tuple[str, ...]](), dict[str, str]()
    for name in names:
        members[name] = recipe.find_members(name, names)
        if not members[name]:
            raise RecipeError(f"{where}: all sources of {name!r} have entries of their own, so it means none")
        for source in members[name]:
            if source in taken:
                raise RecipeError(f"{where}: {source!r} is in {taken[source]!r} and in {name!r}; make them differ")
            taken[source] = name
    return members
