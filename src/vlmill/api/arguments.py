"""What calls are given, as the packages below take it. Of which kind each value is, boundary.py has looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vlmill.pipeline.recipe.given import GivenRecipe


def name_recipe(recipe: str | Path | Mapping[str, Any]) -> str | GivenRecipe:
    """A recipe as `find_recipe` takes it."""
    return GivenRecipe(recipe) if isinstance(recipe, Mapping) else str(recipe)


def list_texts(name: str, values: str | Iterable[str]) -> list[str]:
    """The texts of an argument that takes several; one alone needs no list.

    Raises:
        TypeError: one is no text.
    """
    listed = [values] if isinstance(values, (str, bytes)) or not isinstance(values, Iterable) else list(values)
    for value in listed:
        if not isinstance(value, str):
            raise TypeError(f"{name}: {value!r} is a {type(value).__name__}; give a text or a list of texts")
    return listed


def list_code_files(filters: str | Path | Sequence[str | Path]) -> list[str]:
    """The files of custom filters, signals and sources that a call names; one alone needs no list.

    Raises:
        TypeError: one is no path.
    """
    listed = [filters] if isinstance(filters, (str, Path)) or not isinstance(filters, Iterable) else filters
    return list_texts("filters", [str(file) if isinstance(file, Path) else file for file in listed])


def format_settings(settings: Mapping[str, Any] | None) -> dict[str, str]:
    """Values as the command line writes them after `--set`: strings as they are, everything else as YAML."""
    return {
        key: value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True)
        for key, value in (settings or {}).items()
    }


def format_places(sources: Mapping[str, str | Path] | None) -> dict[str, str]:
    """Where sources are, by name, as texts."""
    return {name: str(place) for name, place in (sources or {}).items()}


def check_workers(workers: int | None) -> None:
    """Refuse a negative number of worker processes.

    Raises:
        ValueError: it is one.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers={workers}: give 0 for this process, a number of processes, or None for one per core")
