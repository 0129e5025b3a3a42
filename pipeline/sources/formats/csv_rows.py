"""TSV and CSV input files: a header that names the columns, then a row per record, in UTF-8.

All values are strings. A quoted one may hold line breaks, so where a row begins shows only to who reads all before it.
What separates values is a tab in `.tsv`. In `.csv` the header says: a comma where all columns that are needed are then
there, else a semicolon (as spreadsheets write where the comma is the decimal mark) or a tab; where none has them all,
whichever makes the most columns.

A file without a header has rows alone: its columns are called `column_1`, `column_2` and so on. A file is read so where
columns are asked for by these names and its first record has none of them; and where nobody says what its columns are
called, if that record holds an address or the path of a picture.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Protocol, TextIO

from vlmill.pipeline.core.config import suggest_nearest
from vlmill.pipeline.core.errors import BadFileError
from vlmill.pipeline.sources.base import SourceRow, UnreadableRow, pick_items
from vlmill.pipeline.sources.formats.keyed import KeyedSource
from vlmill.pipeline.sources.formats.packed import find_ending, open_unpacked, strip_packing
from vlmill.pipeline.sources.formats.parquet import Columns

DELIMITERS = {".tsv": ("\t",), ".csv": (",", ";", "\t")}
"""What may separate values, by the end of a file's name, the usual first."""

LOST_BYTE = re.compile("[\udc80-\udcff]")
"""A byte that is no UTF-8, as `surrogateescape` reads it."""

NO_UTF8 = (
    "is not in UTF-8; convert the file from what it is in (WINDOWS-1252, GB18030, SHIFT_JIS, WINDOWS-1251 ...): "
    "iconv -f ENCODING -t UTF-8 FILE > OTHER"
)

NUMBERED = re.compile(r"column_[1-9][0-9]*")
"""What columns are called that have no name."""

VALUE = re.compile(r"https?://\S+|\S+\.(?:jpe?g|png|webp|gif|bmp|tiff?)", re.IGNORECASE)
"""What stands in a row and is not the name of a column."""

NO_NAMES = "; if its first line is a row, its columns are column_1, column_2 and so on"

LARGEST = 1 << 30
"""Characters of a value at most. Python's own limit of 128 KB is below an image in base64."""


class SeparatedSource(KeyedSource, Protocol):
    """A source whose rows are those of a TSV or CSV file: it names the columns, and says what a row becomes."""

    def columns(self) -> Columns:
        """The columns that it cannot do without. Their types do not matter."""
        ...

    def reads(self) -> Collection[str]:
        """All of these."""
        return frozenset(self.columns())

    def survey(self, path: Path) -> list[int]:
        """Characters of each row. Raises BadFileError where a column is missing."""
        with _open_file(path, (*self.columns(), *self.id_columns())) as (_, records, _):
            return [sum(map(len, record)) for record in records]

    def rows(self, path: Path, numbers: Sequence[int]) -> Iterator[SourceRow]:
        """A page for each of the rows of these numbers; BAD_ROW where values are missing or too many.

        Raises as `survey`.
        """
        with _open_file(path, (*self.columns(), *self.id_columns())) as (header, records, _):
            yield from self.made((number, _make_row(header, record)) for number, record in pick_items(records, numbers))


def read_header(path: Path, columns: Collection[str]) -> list[str]:
    """The names of a file's columns. Raises BadFileError where one of `columns` is missing."""
    with _open_file(path, columns) as (header, _, _):
        return header


def has_header(path: Path) -> bool:
    """Whether the first record of a file seems to name its columns."""
    with _open_file(path, {}) as (_, _, named):
        return named


@contextmanager
def _open_file(path: Path, columns: Collection[str]) -> Iterator[tuple[list[str], Iterator[list[str]], bool]]:
    """The names of the columns, the records, blank lines left out, and whether the first of the file is a header.

    What is no UTF-8 stays as half of a surrogate pair.
    """
    csv.field_size_limit(LARGEST)
    with (
        open_unpacked(path) as plain,
        plain.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file,
    ):
        try:
            possible = DELIMITERS[strip_packing(find_ending(path.name))]
            delimiter = _choose_delimiter(file, possible, columns)
            records: Iterator[list[str]] = (record for record in csv.reader(file, delimiter=delimiter) if record)
            header = next(records, [])
            named = not _lacks_names(header, columns)
            if not named:
                records = chain([header], records)
                header = [f"column_{place}" for place in range(1, len(header) + 1)]
            if not all(map(_is_unicode, header)):
                raise BadFileError(f"{path}: its header {NO_UTF8}")
            for name in columns:
                if name not in header:
                    way = NO_NAMES if any(map(VALUE.fullmatch, header)) else ""
                    there = f"{suggest_nearest([name], header)}it has {', '.join(header) or 'none'}{way}"
                    raise BadFileError(f"{path}: column {name!r} is missing; {there}")
            yield header, records, named
        except csv.Error as error:
            raise BadFileError(f"{path}: expected values separated by commas, semicolons or tabs ({error})") from error


def _lacks_names(first: Sequence[str], columns: Collection[str]) -> bool:
    """Whether the first record is a row and no header."""
    if not columns:
        return any(map(VALUE.fullmatch, first))
    return any(map(NUMBERED.fullmatch, columns)) and not any(map(NUMBERED.fullmatch, first))


def _choose_delimiter(file: TextIO, possible: Sequence[str], columns: Collection[str]) -> str:
    """What separates the values of a header; the file is left where it began. Raises csv.Error."""
    if len(possible) == 1:
        return possible[0]
    headers = list[list[str]]()
    for delimiter in possible:
        headers.append(next((record for record in csv.reader(file, delimiter=delimiter) if record), []))
        file.seek(0)
    best = max(range(len(possible)), key=lambda place: ({*columns} <= {*headers[place]}, len(headers[place])))
    usual = bool(columns) and {*columns} <= {*headers[0]}
    return possible[0 if usual else best]


def _is_unicode(text: str) -> bool:
    """Whether it was UTF-8 in the file."""
    return text.isascii() or not LOST_BYTE.search(text)


def _make_row(header: list[str], record: list[str]) -> dict[str, str] | UnreadableRow:
    if len(record) != len(header):
        return UnreadableRow(f"it has {len(record)} values, expected {len(header)}", raw=record)
    if bad := next((name for name, value in zip(header, record, strict=True) if not _is_unicode(value)), None):
        return UnreadableRow(f"column {bad} {NO_UTF8}", raw=record)
    return dict(zip(header, record, strict=True))
