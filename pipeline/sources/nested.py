"""Values within objects, by dotted keys such as `meta.image.url`, for row shapes whose options name columns.

A key leads into an object, into one written as JSON (as a cell of CSV has it), or into each object of a list:
`media.rel` of `{"media": [{"rel": "a.jpg"}, {"rel": "b.jpg"}]}` is the list of both. In a list of values a number, from
0, is the place of one: `captions.1`. A column that is called `meta.image.url` comes before what lies within `meta`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from vlmill.pipeline.sources.base import UnreadableRow
from vlmill.pipeline.sources.known_keys import has_value, is_number, list_unread

DIGITS = 9
"""Of a number that is a place in a list."""


def list_heads(names: Collection[str]) -> tuple[str, ...]:
    """The columns that dotted names may lie in: of each its own name, and its first key. Other names have none."""
    return tuple(dict.fromkeys(head for name in names if "." in name for head in (name, name.partition(".")[0])))


def find_place(row: Mapping[str, Any], place: str) -> Any:
    """The value at dotted keys; None where there is none. In a list each object has its place, one without it None."""
    if _is_column(row, place):
        return row[place]
    value: Any = row
    for key in place.split(".") if place else ("",):
        value = _enter_value(value, key)
    return value


def lift_places(row: Mapping[str, Any], names: Collection[str]) -> Mapping[str, Any]:
    """The row, with the values at dotted names as if each were a column of its own."""
    dotted = [name for name in names if "." in name and not _is_column(row, name)]
    return {**row, **{name: find_place(row, name) for name in dotted}} if dotted else row


def list_beside(row: Mapping[str, Any], names: Collection[str], *, pictured: bool) -> tuple[str, ...]:
    """What stands beside the values at dotted names, within the same objects, and is not read: dotted keys, sorted.

    Raises:
        UnreadableRow: one of them carries meaning, as `known_keys.list_unread`.
    """
    left = set[str]()
    for place, keys_read in group_keys(row, names).items():
        found = parse_object(find_place(row, place))
        if isinstance(found, list) and any(isinstance(item, Mapping) for item in found):
            check_objects(place, found, keys_read)
        for held in list_objects(found):
            try:
                left.update(f"{place}.{key}" for key in list_unread(held, keys_read, pictured=pictured))
            except UnreadableRow as unfit:
                read = f"the options read {', '.join(sorted(keys_read))} there"
                raise UnreadableRow(f"within {place}: {unfit}; {read}", unfit.reason) from unfit
    return tuple(sorted(left))


def check_objects(place: str, found: Any, keys: Collection[str]) -> None:
    """Raise UnreadableRow where a list at a place holds what is no object, which nothing reads there.

    Args:
        place: Its dotted name.
        found: What is there.
        keys: What is read in each object; places in a list of values are by number.
    """
    found = parse_object(found)
    for number, item in enumerate(found if isinstance(found, list) and not all(map(str.isdecimal, keys)) else ()):
        if not isinstance(item, Mapping) and (has_value(item) or is_number(item)):
            wanted = f"expected an object with {' or '.join(sorted(keys))}"
            raise UnreadableRow(f"item {number} of {place} is {type(item).__name__}, {wanted}: {item!s:.80}")


def group_keys(row: Mapping[str, Any], names: Collection[str]) -> dict[str, set[str]]:
    """The places of the objects that dotted names lead through, and of each the keys that are read in it."""
    read = dict[str, set[str]]()
    for name in names:
        keys = name.split(".") if not _is_column(row, name) else [name]
        for depth in range(1, len(keys)):
            read.setdefault(".".join(keys[:depth]), set()).add(keys[depth])
    return read


def list_parents(row: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects that values at dotted names lie in, with their places. Those in lists are none of the row's own."""
    for place in dict.fromkeys(name.rpartition(".")[0] for name in names if "." in name and not _is_column(row, name)):
        held = parse_object(find_place(row, place))
        if isinstance(held, Mapping):
            yield place, held


def check_lists(row: Mapping[str, Any], names: Collection[str], read: Collection[str]) -> None:
    """Raise UnreadableRow where an object of a list lacks what dotted names lead to, and all else that is read.

    An attachment without its file would be left out, and the texts about it would be learned without it.

    Args:
        row: A row, or a turn.
        names: what each object should have one of, such as `files.local`.
        read: all dotted names that are read; an object that has another of these is a part of another kind.
    """
    for name in names:
        keys = name.split(".") if not _is_column(row, name) else []
        for depth in range(1, len(keys)):
            place, key = ".".join(keys[:depth]), ".".join(keys[depth:])
            if not isinstance(parse_object(find_place(row, place)), list):
                continue
            objects = [one for one in list_objects(find_place(row, place)) if has_value(one)]
            inside = [one.removeprefix(f"{place}.") for one in {name, *names, *read} if one.startswith(f"{place}.")]
            without = [one for one in objects if not any(map(_is_there, (find_place(one, other) for other in inside)))]
            if without:
                raise UnreadableRow(f"{len(without)} of {len(objects)} in {place} have no {key}: {without[0]!s:.80}")
            break


def join_columns(turns: Any) -> Any:
    """Turns that are an object of lists, as `datasets` stores a sequence of objects, as the list of objects they are.

    `{"from": ["human", "gpt"], "value": ["What?", "A dog."]}` has two turns. Any other value is left as it is.
    """
    if not isinstance(turns, Mapping) or not turns or not all(isinstance(one, list) for one in turns.values()):
        return turns
    if not {"from", "role"} & turns.keys() or len({len(one) for one in turns.values()}) != 1:
        return turns
    return [dict(zip(turns, said, strict=True)) for said in zip(*turns.values(), strict=True)]


def parse_object(value: Any) -> Any:
    """What a text or bytes write as JSON; any other value as it is."""
    if isinstance(value, str | bytes):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _is_column(row: Mapping[str, Any], name: str) -> bool:
    """Whether a row has a column of this very name. Where a file lacks one that is looked for, it is null."""
    return row.get(name) is not None


def _is_there(value: Any) -> bool:
    return has_value(value) or is_number(value)  # 0 may be the id of an image


def list_objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """The objects in a list, or the one that a value is, also of one written as JSON."""
    value = parse_object(value)
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, Mapping):
            yield item


def _enter_value(value: Any, key: str) -> Any:
    value = parse_object(value)
    if isinstance(value, list):
        if key.isdecimal() and len(key) <= DIGITS and not any(isinstance(item, Mapping) for item in value):
            return value[int(key)] if int(key) < len(value) else None
        found = [_enter_value(item, key) for item in value]
        return [one for item in found for one in (item if isinstance(item, list) else [item])]
    return value.get(key) if isinstance(value, Mapping) else None
