"""What calls are given, looked at before any work: a wrong kind of value is named with what is taken in its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from vlmill.train.settings import Machine


def name_recipe(recipe: str | Path) -> str:
    """The file or the name of a recipe.

    Raises:
        TypeError: it is neither.
    """
    if not isinstance(recipe, (str, Path)):
        raise TypeError(
            f"recipe is a {type(recipe).__name__}: give a recipe file or the name of a shipped recipe. A dict is "
            "written to a file first: Path('my.yaml').write_text(yaml.safe_dump(recipe)). What load_recipe returned "
            "goes to build, check_recipe and forecast_changes"
        )
    return str(recipe)


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
    """Values as the command line writes them after `--set`: strings as they are, everything else as YAML.

    Raises:
        TypeError: it is no mapping of dotted keys.
    """
    check_mapping("settings", settings, '{"language.in_doubt": "drop"}')
    return {
        key: value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True)
        for key, value in (settings or {}).items()
    }


def format_places(sources: Mapping[str, str | Path] | None) -> dict[str, str]:
    """Where sources are, by name, as texts.

    Raises:
        TypeError: it is no mapping of names.
    """
    check_mapping("sources", sources, '{"web": "/data/web"}')
    return {name: str(place) for name, place in (sources or {}).items()}


def check_mapping(name: str, value: Any, example: str) -> None:
    """Refuse what is no mapping of texts.

    Raises:
        TypeError: with an example of what is taken.
    """
    if value is not None and not (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)):
        raise TypeError(f"{name}={value!r}: give a dict, such as {example}")


def check_workers(workers: int | None) -> None:
    """Refuse a number of worker processes that cannot be.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is negative.
    """
    said = "give 0 for this process, a number of processes, or None for one per core"
    try:
        wrong = workers is not None and index(workers) < 0
    except TypeError:
        raise TypeError(f"workers={workers!r}: {said}") from None
    if wrong:
        raise ValueError(f"workers={workers}: {said}")


def check_machine(machine: Machine | None) -> None:
    """Refuse what is no machine, such as the name of a device.

    Raises:
        TypeError: with the call that makes one.
    """
    from vlmill.train.settings import Machine

    if machine is not None and not isinstance(machine, Machine):
        raise TypeError(f"machine={machine!r}: give vlmill.Machine(device={str(machine)!r})")
