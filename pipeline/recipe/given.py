"""A recipe that was made in Python, in the place of a file: the same mapping, and each value says where it stands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import RecipeError

NAME = "recipe"
"""What its messages call it."""


@dataclass(frozen=True, slots=True)
class GivenRecipe:
    """A recipe without a file, with what loading asks of one. Its relative paths start from the working folder."""

    given: Mapping[str, Any]

    def __str__(self) -> str:
        return NAME

    @property
    def name(self) -> str:
        """What messages call it."""
        return NAME

    @property
    def parent(self) -> Path:
        """Where relative paths start."""
        return Path()

    def read_data(self) -> dict[str, Any]:
        """What YAML would have: a copy whose paths are texts and whose tuples are lists.

        Raises:
            RecipeError: something is of a kind that YAML has not; it says where.
        """
        data: dict[str, Any] = _take_plain(self.given, ())
        return data


RecipePlace = Path | GivenRecipe
"""Where a recipe stands: its file, or none."""
RecipeName = str | RecipePlace
"""The same, or the name of a shipped recipe."""


def name_place(keys: tuple[Any, ...]) -> str:
    """Where a value stands, as Python writes it: `recipe['sources']['web']`."""
    return NAME + "".join(f"[{key!r}]" for key in keys)


def _take_plain(value: Any, keys: tuple[Any, ...]) -> Any:
    if isinstance(value, Mapping):
        return {_take_plain(key, keys): _take_plain(item, (*keys, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_take_plain(item, (*keys, place)) for place, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    raise RecipeError(
        f"{name_place(keys)}={value!r:.200}: is a {type(value).__name__}; a recipe holds texts, numbers, True, False, "
        "None, paths, lists and dicts"
    )
