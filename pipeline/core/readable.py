"""As much of a block from YAML as can be read, for a report that names all that is wrong at once.

`config.parse_block` reads what is to be used, and refuses it whole.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from vlmill.pipeline.core.config import SILENT, drop_tags, explain_fault, name_items

T = TypeVar("T")

Path = tuple[Any, ...]
"""Keys of mappings and places in lists, from a block to something in it."""


@dataclass(frozen=True)
class ReadablePart(Generic[T]):
    """A block without what is wrong in it."""

    block: T | None  # None where nothing of it can be read
    faults: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()  # places, as --set has them: `sources.web.files`

    def concerns(self, fault: str) -> bool:
        """Whether a fault that was found later is about something that was left out, or about what stands around it."""
        place = fault.partition(": ")[0]
        owners = {".".join(left.split(".")[:2]) for left in self.left_out if left.count(".") > 1}
        return any(place == left or place.startswith(f"{left}.") for left in self.left_out | owners)


def parse_readable(
    kind: type[T], values: Mapping[str, Any], where: str, kinds: Collection[str] = ()
) -> ReadablePart[T]:
    """Leave wrong keys and values out of a block until the rest can be read.

    What is left out has its default value. Where it has none, the block around it is left out as well.

    Args:
        kind: The class of the block.
        values: What stands in YAML. It stays as it is.
        where: What faults call the block.
        kinds: Names beside those of tables, as in `parse_block`.
    """
    left, faults, places = copy.deepcopy(dict(values)), list[str](), set[str]()
    while True:
        try:
            block = TypeAdapter(kind).validate_python(left, context={"kinds": kinds})
            return ReadablePart(block, tuple(faults), frozenset(places))
        except ValidationError as error:
            found = error.errors(include_url=False)
        known = ReadablePart[T](None, left_out=frozenset(places))
        told = (explain_fault(kind, left, where, item) for item in found if item["type"] != SILENT)
        faults += [
            fault for fault in dict.fromkeys(told) if not known.concerns(fault.removeprefix(where).lstrip(".: "))
        ]
        paths = {path for item in found if (path := _find_place(left, item))}
        places |= {".".join(map(str, name_items(left, path))) for path in paths}
        before = copy.deepcopy(left)
        for path in sorted(paths, key=_make_order, reverse=True):  # of a list the last first: places stay what they are
            _leave_out(left, path)
        if left == before:
            return ReadablePart(None, tuple(faults), frozenset(places))


def _find_place(values: Mapping[str, Any], item: Any) -> Path:
    """What to leave out because of an error of pydantic; the empty path where nothing is at fault by itself."""
    code, loc = item["type"], list(item["loc"])
    if code in {"unexpected_keyword_argument", "extra_forbidden"}:
        return (*drop_tags(values, loc[:-1]), loc[-1])
    path = drop_tags(values, loc)
    if path[-1:] == ["[key]"]:
        return tuple(path[:-1])
    if not path and code == "value_error":  # of the whole block: it begins with the key that it is about
        return _find_named(values, str(item["ctx"]["error"]).partition(":")[0].split("."))
    return tuple(path)


def _find_named(values: Mapping[str, Any], names: Sequence[str]) -> Path:
    """The path to `filters.shape`: the key, and of a list the item with that key."""
    if names[0] not in values:
        return ()
    inside = values[names[0]]
    items = inside if isinstance(inside, list) and len(names) > 1 else []
    places = (place for place, item in enumerate(items) if isinstance(item, Mapping) and names[1] in item)
    return (names[0], *(() if (place := next(places, None)) is None else (place,)))


def _make_order(path: Path) -> list[tuple[int, str]]:
    return [(step, "") if isinstance(step, int) else (-1, str(step)) for step in path]


def _leave_out(values: Any, path: Sequence[Any]) -> None:
    """Remove what a path leads to, if it is still there."""
    *owners, last = path
    for step in owners:
        inside = isinstance(values, list) and isinstance(step, int) and step < len(values)
        if not inside and not (isinstance(values, Mapping) and step in values):
            return
        values = values[step]
    if isinstance(values, list) and last < len(values):
        values.pop(last)
    elif isinstance(values, dict):
        values.pop(last, None)
