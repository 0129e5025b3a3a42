"""Tables with typed columns, Parquet or Arrow: the columns a source needs, and their rows from any start.

`survey` reads the footer alone, `rows` only the row groups that it is asked for, a few rows in memory at a time. A file
is Arrow where its name ends so (arrow.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from vlmill.pipeline.core.config import suggest_nearest
from vlmill.pipeline.core.errors import BadFileError, SourceError
from vlmill.pipeline.core.sample import DAMAGED_TABLE
from vlmill.pipeline.sources.base import Picture, SourceRow, UnreadableRow, pick_items
from vlmill.pipeline.sources.formats.arrow import ArrowTable, is_arrow
from vlmill.pipeline.sources.formats.keyed import KeyedSource
from vlmill.pipeline.sources.known_keys import ID_KEYS, REASONS, classify_key

Columns = Mapping[str, pa.DataType | tuple[pa.DataType, ...]]
"""What a source reads: column names and their type, or the types that will do. Large, view and dictionary variants of a
type fit it as well; of numbers, every width does. Where the type is `pa.null()`, any will do."""

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
"""How the Hub stores an image."""

VARIANTS = (
    (kinds.is_struct,),
    (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list, kinds.is_list_view, kinds.is_large_list_view),
    (kinds.is_string, kinds.is_large_string, kinds.is_string_view),
    (kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view),
    (kinds.is_floating, kinds.is_integer),
)
"""Types that hold the same values."""

LOCAL, REMOTE = 1 << 20, 8 << 20
"""Bytes of a column that are asked for at a time; of a remote file each is a request."""

HELD = 64 << 20
"""Row groups of a remote file are held in memory up to this size, so that their columns come with one or two
requests."""

BATCH = 64  # rows decoded at a time: rows that carry images have up to a few MB each


class Table(Protocol):
    """An open table: rows in groups."""

    @property
    def schema(self) -> pa.Schema:
        """Its columns."""
        ...

    @property
    def groups(self) -> Sequence[tuple[int, int]]:
        """Rows and bytes of each."""
        ...

    def read(self, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a group as batches of any size. Raises what DAMAGED_TABLE lists, where the file is damaged."""
        ...


@dataclass(frozen=True)
class ParquetTable:
    """A Parquet file."""

    file: pq.ParquetFile
    schema: pa.Schema

    @cached_property
    def groups(self) -> Sequence[tuple[int, int]]:
        """See Table; bytes are those of the columns uncompressed, which the footer knows."""
        found = map(self.file.metadata.row_group, range(self.file.num_row_groups))
        return [(group.num_rows, group.total_byte_size) for group in found]

    def read(self, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """See Table."""
        return iter(self.file.iter_batches(batch_size=BATCH, row_groups=[group], columns=columns))


class ParquetSource(KeyedSource, Protocol):
    """A source whose rows are those of a Parquet or Arrow file: it names the columns, and says what a row becomes.

    Other columns are not read, but for those whose name says that a row may not do without.
    """

    def ranged(self, name: str) -> bool:
        """Where it is Parquet; an Arrow file is mapped, so it has to be on this machine."""
        return not is_arrow(name)

    def columns(self) -> Columns:
        """The columns that it cannot do without."""
        ...

    def optional(self) -> Columns:
        """Columns that are read where they are; else they are null in every row."""
        return {}

    def reads(self) -> Collection[str]:
        """All of these."""
        return frozenset({*self.columns(), *self.optional()})

    def survey(self, path: Path) -> list[int]:
        """Bytes of each row: the mean of its row group, uncompressed, which the footer knows.

        Raises:
            BadFileError: it is no such file, or a column is missing or of another type.
        """
        with open_table(path, *self._all_columns()) as (table, _):
            return [size // rows for rows, size in table.groups for _ in range(rows)]

    def rows(self, path: Path, numbers: Sequence[int]) -> Iterator[SourceRow]:
        """A page for each of the rows of these numbers; BAD_ROW for one with a string that is no UTF-8.

        Row groups with none of them are not read.

        Raises:
            BadFileError: as `survey`, and where the file is damaged.
        """
        needed, optional = self._all_columns()
        with open_table(path, needed, optional) as (table, names):
            missing = dict.fromkeys(name for name in optional if name not in names)
            left = {name: classify_key(name) for name in table.schema.names if name not in {*names, *self.reads()}}
            also = (name for name, found in left.items() if found in REASONS or name.lower() in ID_KEYS)
            looked_at = [*names, *also]
            rows = _read_rows(path, table, looked_at, numbers)
            filled = ((number, row if isinstance(row, UnreadableRow) else {**missing, **row}) for number, row in rows)
            yield from self.made(filled, [name for name, found in left.items() if found == "unknown"])

    def _all_columns(self) -> tuple[Columns, Columns]:
        """Those that it cannot do without, and those that are read where they are; with the id of each row."""
        needed = {**dict.fromkeys(self.id_columns(), pa.null()), **self.columns()}
        return needed, {**dict.fromkeys(self.id_heads(), pa.null()), **self.optional()}


def read_picture(place: int, image: Mapping[str, Any] | None, *, paths: bool = False) -> Picture:
    """The picture in a cell of type IMAGE: its bytes, or a file if `paths` will do.

    Raises UnreadableRow where there is neither.
    """
    if image and image["bytes"]:
        return Picture(data=image["bytes"])
    if paths and image and image["path"]:
        return Picture(path=image["path"])
    raise UnreadableRow(f"image {place} has {'neither bytes nor a path' if paths else 'no bytes'}")


def _read_rows(
    path: Path, table: Table, columns: list[str], numbers: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any] | UnreadableRow]]:
    """(number, row) of the rows of these numbers, which rise."""
    first = 0
    for group, (rows, _) in enumerate(table.groups):
        last = first + rows
        wanted = [number - first for number in numbers[bisect_left(numbers, first) : bisect_left(numbers, last)]]
        if wanted:
            found = pick_items(_read_batches(path, table, group, columns), wanted)
            yield from ((first + number, _read_row(row)) for number, row in found)
        first = last


def _read_batches(path: Path, table: Table, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of one group as batches of one row each, `BATCH` of them in memory."""
    try:
        for batch in table.read(group, columns):
            yield from (batch.slice(place, 1) for place in range(batch.num_rows))
    except DAMAGED_TABLE as error:
        raise _choose_error(error)(f"{path}: row group {group} is damaged ({error}); fetch the file again") from error


def _read_row(batch: pa.RecordBatch) -> dict[str, Any] | UnreadableRow:
    """The only row of `batch`. Parquet does not check that its strings are UTF-8."""
    try:
        row: dict[str, Any] = batch.to_pylist()[0]
    except UnicodeDecodeError:
        return UnreadableRow("a string that is no UTF-8", raw=_read_readable(batch))
    return row


def _read_readable(batch: pa.RecordBatch) -> dict[str, Any]:
    """What of the only row of `batch` can be shown."""
    row = dict[str, Any]()
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column.to_pylist()[0]
        except UnicodeDecodeError:
            row[name] = "(no UTF-8)"
    return row


@contextmanager
def open_table(path: Path, columns: Columns, optional: Columns) -> Iterator[tuple[Table, list[str]]]:
    """The table and the columns to read, checked."""
    form = "an Arrow" if is_arrow(str(path)) else "a Parquet"
    with ExitStack() as opened:
        try:
            table: Table = ArrowTable.open(path) if is_arrow(str(path)) else _open_parquet(path, opened)
        except DAMAGED_TABLE as error:
            raise _choose_error(error)(
                f"{path}: expected {form} file, found none or a damaged one ({error}); fetch it again"
            ) from error
        there = {name: kind for name, kind in optional.items() if name in table.schema.names}
        _check_columns(path, table.schema, {**columns, **there})
        yield table, [*columns, *there]


def _open_parquet(path: Path, opened: ExitStack) -> ParquetTable:
    """The file, which streams within row groups instead of holding whole column chunks."""
    local = isinstance(path, Path)
    file = pq.ParquetFile(path, buffer_size=LOCAL, pre_buffer=False) if local else _open_remote(path)
    opened.enter_context(file)
    return ParquetTable(file, file.schema_arrow)  # the schema is read only when it is asked for


def _choose_error(error: Exception) -> type[SourceError]:
    """Whether the file is at fault.

    Arrow reports damage as a plain OSError too; that of a disk or a network has a number, or another class.
    """
    damaged = not isinstance(error, OSError) or (type(error) is OSError and error.errno is None)
    return BadFileError if damaged else SourceError


def _open_remote(path: Any) -> pq.ParquetFile:
    """A file that is not on this machine, read by range."""
    file = path.open("rb")
    metadata = pq.read_metadata(file)
    largest = max((metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)), default=0)
    return pq.ParquetFile(file, metadata=metadata, buffer_size=REMOTE, pre_buffer=largest <= HELD)


def _check_columns(path: Path, schema: pa.Schema, columns: Columns) -> None:
    """Raise BadFileError where a column is missing or of another type."""
    for name, wanted in columns.items():
        if name not in schema.names:
            near = suggest_nearest([name], schema.names)
            raise BadFileError(f"{path}: column {name!r} is missing; {near}it has {', '.join(schema.names) or 'none'}")
        found, allowed = schema.field(name).type, wanted if isinstance(wanted, tuple) else (wanted,)
        if not any(_fits_type(found, kind) for kind in allowed):
            raise BadFileError(f"{path}: column {name!r} is {found}, expected {' or '.join(map(str, allowed))}")


def _fits_type(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of type `found` are those of `wanted`, however they are stored.

    A column of nulls fits everything.
    """
    if kinds.is_null(found) or kinds.is_null(wanted):
        return True
    if kinds.is_dictionary(found):
        return _fits_type(found.value_type, wanted)
    variants = next(group for group in VARIANTS if any(is_kind(wanted) for is_kind in group))
    if not any(is_kind(found) for is_kind in variants):
        return False
    if kinds.is_struct(wanted):
        return all(
            found.get_field_index(field.name) >= 0 and _fits_type(found.field(field.name).type, field.type)
            for field in wanted
        )
    return not kinds.is_list(wanted) or _fits_type(found.value_type, wanted.value_type)
