"""Values of recipe files with the places that they come from, so that files can be put together and faults located."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.yaml_format import Lines, read_yaml_lines
from vlmill.pipeline.recipe.given import GivenRecipe, RecipePlace, name_place

Keys = tuple[Any, ...]
"""The keys and list places on the way to a value."""
Origins = dict[Keys, str]
"""Where values come from: `FILE, line N`, the keys of a dict of Python, or the option that set them."""
Fault = Callable[[str], RecipeError]


@dataclass(frozen=True, slots=True)
class Located:
    """A value of a recipe with its origin; mappings and lists hold others."""

    value: Any
    origin: str

    def to_data(self) -> Any:
        """The plain data."""
        if isinstance(self.value, dict):
            return {key: item.to_data() for key, item in self.value.items()}
        return [item.to_data() for item in self.value] if isinstance(self.value, list) else self.value

    def list_origins(self, keys: Keys = ()) -> Iterator[tuple[Keys, str]]:
        """The origin of this value and of all in it."""
        yield keys, self.origin
        if isinstance(self.value, dict | list):
            inside = self.value.items() if isinstance(self.value, dict) else enumerate(self.value)
            for key, item in inside:
                yield from item.list_origins((*keys, key))

    def with_item(self, key: Any, item: Located) -> Located:
        """The same mapping with another value at a key."""
        return Located({**self.value, key: item}, self.origin)


def read_located(path: RecipePlace) -> Located:
    """The mapping in a recipe file.

    Raises:
        RecipeError: it is no YAML, or no mapping; the message names the line.
    """
    if isinstance(path, GivenRecipe):
        return _locate_given(path.read_data(), ())
    data, lines = read_yaml_lines(path)
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with `name` and `sources`, not {type(data).__name__}")
    return _locate_lines(data, lines, path, ())


def _locate_lines(data: Any, lines: Lines, path: Path, keys: Keys) -> Located:
    origin = f"{path}, line {lines[keys]}"
    if isinstance(data, dict):
        inside = {key: _locate_lines(item, lines, path, (*keys, key)) for key, item in data.items()}
        return Located(inside, origin)
    if isinstance(data, list):
        return Located([_locate_lines(item, lines, path, (*keys, n)) for n, item in enumerate(data)], origin)
    return Located(data, origin)


def _locate_given(data: Any, keys: Keys) -> Located:
    if isinstance(data, dict):
        return Located({key: _locate_given(item, (*keys, key)) for key, item in data.items()}, name_place(keys))
    if isinstance(data, list):
        return Located([_locate_given(item, (*keys, n)) for n, item in enumerate(data)], name_place(keys))
    return Located(data, name_place(keys))


def locate_data(data: Any, origin: str) -> Located:
    """Plain data that all come from one place."""
    if isinstance(data, dict):
        return Located({key: locate_data(item, origin) for key, item in data.items()}, origin)
    return Located([locate_data(item, origin) for item in data] if isinstance(data, list) else data, origin)


NAMING = ("name", "source")
"""Keys by whose value a list's item goes: a stage, an entry of a mixture."""


def name_item(item: Located) -> str | None:
    """What a list's item goes by: its `name` or `source`, or its only key."""
    if not isinstance(item.value, dict):
        return None
    for key in NAMING:
        if key in item.value:
            return str(item.value[key].value)
    return str(next(iter(item.value))) if len(item.value) == 1 else None


def take_name(parts: Sequence[str], names: Collection[Any]) -> tuple[str, list[str]]:
    """The name that the parts of a dotted key begin with, and the parts behind it. Names may hold dots.

    Args:
        parts: At least one.
        names: Those that are there. The longest counts; where there is none of them, the first part is the name.
    """
    joined = (".".join(parts[:stop]) for stop in range(len(parts), 0, -1))
    name = next((name for name in joined if name in names), parts[0])
    return name, list(parts[name.count(".") + 1 :])


def _find_place(found: Located, part: str) -> Any:
    """The key or list place that a part of a dotted key means, or None."""
    if isinstance(found.value, dict):
        return part if part in found.value else None
    if isinstance(found.value, list):
        names = [name_item(item) for item in found.value]
        return names.index(part) if part in names else None
    return None


def _list_parts(found: Located) -> list[str]:
    if isinstance(found.value, dict):
        return [str(key) for key in found.value]
    names = [name_item(item) for item in found.value] if isinstance(found.value, list) else []
    return [name for name in names if name is not None]


def _step_inside(found: Located, part: str, fault: Callable[[str, str], RecipeError]) -> tuple[Keys, Located]:
    """What a part of a dotted key means, with the keys on the way: two for a filter, whose item has its name as key."""
    place = _find_place(found, part)
    if place is None:
        raise fault(part, suggest_names(part, _list_parts(found)))
    inside = found.value[place]
    if isinstance(found.value, list) and not inside.value.keys() & {*NAMING}:
        (key,) = inside.value
        return (place, key), inside.value[key]
    return (place,), inside


def find_keys(whole: Located, dotted: str, fault: Callable[[str, str], RecipeError]) -> tuple[Keys, Located]:
    """The keys and list places that a dotted key means, and the value there; items of lists go by their names.

    Args:
        whole: The mapping.
        dotted: Such as `filters.language.drop` or `stages.align.train.steps`.
        fault: Makes the error for a part that is not there, of the part and of what is there.
    """
    keys: Keys = ()
    parts = dotted.split(".")
    while parts:
        name, parts = take_name(parts, _list_parts(whole))
        more, whole = _step_inside(whole, name, fault)
        keys = (*keys, *more)
    return keys, whole


def replace_at(whole: Located, keys: Keys, value: Located) -> Located:
    """The same with another value at a place."""
    if not keys:
        return value
    first, *rest = keys
    inside = replace_at(whole.value[first], tuple(rest), value)
    if isinstance(whole.value, dict):
        return whole.with_item(first, inside)
    return Located([*whole.value[:first], inside, *whole.value[first + 1 :]], whole.origin)


def note_changes(origins: Origins, before: Any, after: Any, origin: str, keys: Keys = ()) -> None:
    """Give `origin` to all values of `after` that `before` has not, in place; those that are gone are forgotten."""
    if type(before) is type(after) and isinstance(after, dict):
        for gone in before.keys() - after.keys():
            _forget_origins(origins, (*keys, gone))
        for key, item in after.items():
            note_changes(origins, before.get(key, _Missing), item, origin, (*keys, key))
    elif type(before) is type(after) and isinstance(after, list) and len(after) >= len(before):
        for place, item in enumerate(after):
            note_changes(origins, before[place] if place < len(before) else _Missing, item, origin, (*keys, place))
    elif before is _Missing or before != after:
        _forget_origins(origins, keys)
        origins |= dict(locate_data(after, origin).list_origins(keys))


class _Missing:
    """In the place of a value that is not there."""


def _forget_origins(origins: Origins, keys: Keys) -> None:
    for gone in [found for found in origins if found[: len(keys)] == keys]:
        del origins[gone]


def add_origins(message: str, data: Mapping[str, Any], origins: Origins, name: str) -> str:
    """The lines of an error about a recipe's values, each with the place of the value that it names, if known."""
    return "\n".join(_add_origin(line, data, origins, name) for line in message.splitlines())


def _add_origin(line: str, data: Mapping[str, Any], origins: Origins, name: str) -> str:
    dotted = line.removeprefix(f"{name}: ").removeprefix(f"{name}.").partition(": ")[0]
    if " " in dotted:
        return line
    keys: Keys = ()
    found = Located({key: locate_data(item, "") for key, item in data.items()}, "")
    parts = dotted.split(".")
    while parts:
        part, parts = take_name(parts, _list_parts(found))
        if _find_place(found, part) is None:
            break
        more, found = _step_inside(found, part, lambda part, _: RecipeError(part))
        keys = (*keys, *more)
    origin = origins.get(keys) if keys else None
    return f"{line} ({origin})" if origin else line
