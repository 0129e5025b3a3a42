"""Rows by key from Parquet, Arrow, CSV, TSV, JSON or JSON Lines, as a file's name ends; JSON where it says nothing.

A row shape that is not bound to one format is written once over this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from vlmill.pipeline.core.config import suggest_nearest
from vlmill.pipeline.core.errors import BadFileError
from vlmill.pipeline.sources.base import Page, SourceRow
from vlmill.pipeline.sources.formats.csv_rows import SeparatedSource, read_header
from vlmill.pipeline.sources.formats.json_rows import JsonSource
from vlmill.pipeline.sources.formats.packed import find_ending, strip_packing
from vlmill.pipeline.sources.formats.parquet import Columns, ParquetSource, open_table

Format = type[ParquetSource | JsonSource | SeparatedSource]

FORMATS: Mapping[str, Format] = {
    ".parquet": ParquetSource,
    ".arrow": ParquetSource,
    ".json": JsonSource,
    ".jsonl": JsonSource,
    ".tsv": SeparatedSource,
    ".csv": SeparatedSource,
}


class RecordSource(ParquetSource, JsonSource, SeparatedSource, Protocol):
    """A source whose rows have the same keys in all formats: it names them, and says what a row becomes."""

    def ranged(self, name: str) -> bool:
        """Where it is Parquet."""
        return is_table(name) and ParquetSource.ranged(self, name)

    def survey(self, path: Path) -> list[int]:
        """As the format does.

        Raises SourceError as the format, BadFileError as well for a table without anything that `keys` asks for.
        """
        found = find_format(path).survey(self, path)
        names = self._list_columns(path)
        for wanted in self.keys() if names else ():
            if not {*names}.intersection(wanted):
                there = f"{suggest_nearest(wanted, names)}it has {', '.join(names) or 'none'}"
                raise BadFileError(f"{path}: it has no column {' or '.join(map(repr, wanted))}; {there}")
        return found

    def _list_columns(self, path: Path) -> Sequence[str]:
        """What a table calls its columns; none of JSON, whose rows have their own."""
        if is_table(str(path)):
            with open_table(path, {}, {}) as (table, _):
                return list[str](table.schema.names)
        return read_header(path, (*self.columns(), *self.id_columns())) if find_format(path) is SeparatedSource else ()

    def rows(self, path: Path, numbers: Sequence[int]) -> Iterator[SourceRow]:
        """As the format does. Raises SourceError as the format."""
        return find_format(path).rows(self, path, numbers)


RUNS, RUN_ROWS = 20, 100
"""Runs of rows from all over a file by which a column is looked at, and rows of each."""


class _Collector(RecordSource):
    """Keeps rows as they are, with all their columns."""

    kind: ClassVar[str] = "any"

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.found = names, list[Mapping[str, Any]]()

    def columns(self) -> Columns:
        """All of a table's, of any type."""
        return {name: pa.null() for name in self.names}

    def keys(self) -> tuple[tuple[str, ...], ...]:
        """None is needed."""
        return ()

    def unread(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Nothing is left unread."""
        del row
        return ()

    def page(self, row: Mapping[str, Any]) -> Page:
        """Keep it; no sample is made."""
        self.found.append(row)
        return Page(())

    def list_rows(self, path: Path, numbers: Sequence[int]) -> Iterator[Mapping[str, Any]]:
        """The rows of these numbers, none of which is held for longer than it takes to look at it."""
        for _ in self.rows(path, numbers):
            yield from self.found
            self.found.clear()


def read_first_records(path: Path, number: int) -> list[Mapping[str, Any]]:
    """The first rows of a file, for people who look at it.

    Raises BadFileError where it is of none of the formats, or none of these rows can be read.
    """
    names: Sequence[str] = ()
    if is_table(str(path)):
        with open_table(path, {}, {}) as (table, _):
            names = table.schema.names
    reader = _Collector(names)
    rows = list(reader.rows(path, range(min(number, len(reader.survey(path))))))
    if not reader.found and (failed := [detail for row in rows for _, detail in row.failed if detail]):
        raise BadFileError(f"{path}: row 0: {failed[0]}")
    return reader.found


def read_column(path: Path, column: str) -> list[Any]:
    """What is in a column of rows from all over a file, RUNS times so many one after the other; for people.

    Rows that cannot be read are left out. Raises BadFileError where the file is of none of the formats.
    """
    reader = _Collector((column,))
    total, run = len(reader.survey(path)), RUN_ROWS
    starts = (place * max(0, total - run) // (RUNS - 1) for place in range(RUNS))
    numbers = sorted({number for start in starts for number in range(start, min(start + run, total))})
    return [row.get(column) for row in reader.list_rows(path, numbers)]


def read_places(path: Path, places: Sequence[str], numbers: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    """Rows of these numbers, for people; of a table with the columns alone that dotted names begin with.

    Names of the other columns stand in each row, too, with nothing in them. Rows that cannot be read are left out.
    Raises BadFileError where the file is of none of the formats.
    """
    heads = {head for place in places for head in (place, place.partition(".")[0])}
    names: Sequence[str] = ()
    if is_table(str(path)):
        with open_table(path, {}, {}) as (table, _):
            names = table.schema.names
    for row in _Collector([name for name in names if name in heads]).list_rows(path, numbers):
        yield {**dict.fromkeys(names), **row}


def find_format(path: Path) -> Format:
    """What reads a file, by its name."""
    return FORMATS.get(strip_packing(find_ending(str(path))), JsonSource)


def is_table(name: str) -> bool:
    """Whether a file is a table with typed columns by its name: Parquet or Arrow."""
    return FORMATS.get(find_ending(name)) is ParquetSource
