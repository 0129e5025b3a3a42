"""JSON and JSON Lines input files: where each row lies in the file, and the rows from any start.

A file that begins with `[` is an array of rows, any other has a row per line; blank lines are none. The file is mapped
into memory and never held in it: a scan finds where rows begin and end, and each is decoded alone, by the decoder that
upstream's own loaders use. So one broken row is one bad row, in an array too, and what that decoder allows beyond the
standard (NaN, half a surrogate pair) spoils no file.
"""

from __future__ import annotations

import codecs
import json
import mmap
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from vlmill.pipeline.core.config import suggest_nearest
from vlmill.pipeline.core.errors import BadFileError, SourceError
from vlmill.pipeline.core.shown import describe_more
from vlmill.pipeline.sources.base import SourceRow, UnreadableRow, pick_items
from vlmill.pipeline.sources.formats.keyed import KeyedSource
from vlmill.pipeline.sources.formats.packed import open_unpacked

INSIDE = re.compile(rb'["{}\[\]]')
"""What matters inside a row. No quantifiers: before Python 3.11.5 possessive ones go wrong around groups, and greedy
ones remember every turn."""

BETWEEN = re.compile(rb'["{}\[\],]')
"""The same between rows, where a comma counts."""

START, END = re.compile(rb"(?:\xef\xbb\xbf)?\s*(\[)?"), re.compile(rb"\s*\Z")

SHOWN, KEYS = 40, 40  # bytes of a file that an error quotes, and keys of a row


class JsonSource(KeyedSource, Protocol):
    """A source whose rows are JSON objects: it names the keys that rows have, and says what a row becomes."""

    def keys(self) -> tuple[tuple[str, ...], ...]:
        """What it needs, each thing by the names of which a row has one."""
        ...

    def explain_absence(self, row: Mapping[str, Any]) -> str:
        """A key of the row that is nearly called like one that it needs and lacks."""
        lacking = (names for names in self.keys() if not any(name in row for name in names))
        near = [(found[0], name) for names in lacking for name in names if (found := get_close_matches(name, row, n=1))]
        return f"; the row has {near[0][0]!r} and no {near[0][1]!r}" if near else ""

    def reads(self) -> Collection[str]:
        """All of these names."""
        return frozenset(name for names in self.keys() for name in names)

    def survey(self, path: Path) -> list[int]:
        """Bytes of each row.

        Raises:
            BadFileError: no row is a JSON object, none has one of the `keys`, or an array has no end.
        """
        with _map_file(path) as data:
            _check_rows(path, data, self.keys())
            return [stop - start for start, stop in _find_rows(path, data)]

    def rows(self, path: Path, numbers: Sequence[int]) -> Iterator[SourceRow]:
        """A page for each of the rows of these numbers. Raises BadFileError as `survey`, as far as it reads."""
        with _map_file(path) as data:
            _check_rows(path, data, self.keys())
            spans = pick_items(_find_rows(path, data), numbers)
            yield from self.made((number, _decode_row(data[slice(*span)])) for number, span in spans)


Buffer = bytes | mmap.mmap

PACKED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
"""How packed files begin."""


@contextmanager
def _map_file(path: Path) -> Iterator[Buffer]:
    """The bytes of a file, or those that a packed one unpacks to."""
    with ExitStack() as stack:
        try:
            plain = stack.enter_context(open_unpacked(path))
            file = stack.enter_context(plain.open("rb"))
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error})") from error
        if not plain.stat().st_size:
            yield b""  # which cannot be mapped
            return
        yield stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _find_rows(path: Path, data: Buffer) -> Iterator[tuple[int, int]]:
    """(start, stop) of each row, in order."""
    begin = START.match(data)
    assert begin, "the pattern fits nothing at all as well"
    if begin[1]:
        yield from _find_elements(path, data, begin.end())
    else:
        yield from _find_lines(data, begin.end())


def _find_lines(data: Buffer, place: int) -> Iterator[tuple[int, int]]:
    while place < len(data):
        end = data.find(b"\n", place)
        end = len(data) if end < 0 else end
        if data[place:end].strip():
            yield place, end
        place = end + 1


def _find_elements(path: Path, data: Buffer, place: int) -> Iterator[tuple[int, int]]:
    """The elements of the array that begins before `place`."""
    start, depth, count = place, 1, 0
    while depth:
        found = (BETWEEN if depth == 1 else INSIDE).search(data, place)
        place, mark = (found.end(), found[0]) if found else (len(data), b"")
        if mark == b'"':
            place = _find_string_end(data, place)
            continue
        if not mark:
            raise BadFileError(f"{path}: the array has no end; the file stops within row {count}, fetch it again")
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1, b",": 0}[mark]
        if mark == b"," or not depth:
            if depth or data[start : place - 1].strip():  # after the last comma may stand nothing
                yield start, place - 1
            start, count = place, count + 1
    if not END.match(data, place):
        raise BadFileError(f"{path}: something follows the end of the array at byte {place}")


def _find_string_end(data: Buffer, place: int) -> int:
    """Where the string ends whose opening quote lies before `place`; the end of the data if it does not."""
    while (quote := data.find(b'"', place)) >= 0:
        start = quote
        while start > place and data[start - 1 : start] == b"\\":
            start -= 1
        if (quote - start) % 2 == 0:
            return quote + 1
        place = quote + 1
    return len(data)


def _decode_row(data: bytes) -> dict[str, Any] | UnreadableRow:
    """A row, or why it is none."""
    try:
        row = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        return UnreadableRow(f"no JSON: {error}", raw=data)
    return (
        row if isinstance(row, dict) else UnreadableRow(f"expected a JSON object, found {type(row).__name__}", raw=data)
    )


def _check_rows(path: Path, data: Buffer, needed: tuple[tuple[str, ...], ...]) -> None:
    """Raise BadFileError if rows are there and none of them has something that is needed; the first usually has all."""
    for keys in needed:
        _check_one(path, data, keys)


def _check_one(path: Path, data: Buffer, keys: tuple[str, ...]) -> None:
    first: dict[str, Any] | UnreadableRow | None = None
    for start, stop in _find_rows(path, data):
        row = _decode_row(data[start:stop])
        if isinstance(row, dict) and any(key in row for key in keys):
            return
        first = row if first is None or (isinstance(first, UnreadableRow) and isinstance(row, dict)) else first
    if isinstance(first, dict):
        there = f"{suggest_nearest(keys, first)}the first has {_name_keys(first)}"
        raise BadFileError(f"{path}: no row has {' or '.join(map(repr, keys))}; {there}")
    if first is not None:
        if packed := next((kind for mark, kind in PACKED.items() if data[: len(mark)] == mark), ""):
            raise BadFileError(f"{path}: it is packed ({packed}): unpack it, and let `files` name what comes out")
        wide = bytes(data[:2]) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
        advice = "; it is in UTF-16: convert it, such as with: iconv -f UTF-16 -t UTF-8 FILE > OTHER" if wide else ""
        raise BadFileError(
            f"{path}: expected a JSON array of objects, or an object per line (unpacked); it begins with "
            f"{bytes(data[:SHOWN])!r}{advice}"
        )


def _name_keys(keys: Collection[str]) -> str:
    """Keys in a message: the first of many."""
    return f"{', '.join(islice(keys, KEYS)) or 'none'}{describe_more(len(keys) - KEYS, 'key')}"
