"""From the YAML mapping of a recipe or lock to a `Recipe`, with the kinds that its own code brings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.readable import ReadablePart, parse_readable
from vlmill.pipeline.recipe.custom_sources import read_source_kinds
from vlmill.pipeline.recipe.schema import Recipe


def parse_recipe(data: Mapping[str, Any], where: str) -> Recipe:
    """The recipe that a mapping describes; none of the code in it runs.

    Raises:
        RecipeError: as `parse_block`.
    """
    return parse_block(Recipe, data, where, list_own_kinds(data))


def parse_readable_recipe(data: Mapping[str, Any], where: str) -> ReadablePart[Recipe]:
    """As much of it as can be read, with its faults."""
    return parse_readable(Recipe, data, where, list_own_kinds(data))


def list_own_kinds(data: Mapping[str, Any]) -> frozenset[str]:
    """The kinds of sources in the code that a mapping holds."""
    held = data.get("custom_filters")
    files = held.values() if isinstance(held, Mapping) else ()
    codes = [item.get("code") for item in files if isinstance(item, Mapping)]
    return frozenset(kind for code in codes if isinstance(code, str) for kind in read_source_kinds(code))
