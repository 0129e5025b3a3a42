"""Arrow files and streams as tables: what `save_to_disk` of datasets leaves, and its cache.

The file is mapped into memory; each of its record batches is a group of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

MAGIC = b"ARROW1"
"""How a file begins; a stream begins with the length of its schema."""


@dataclass(frozen=True)
class ArrowTable:
    """An Arrow file, of either form. Where values lie in it is not checked before a batch is read."""

    schema: pa.Schema
    batches: Sequence[pa.RecordBatch]

    @classmethod
    def open(cls, path: Path) -> ArrowTable:
        """The table in a file of this machine. Raises OSError and pa.ArrowInvalid where it is damaged."""
        data = pa.memory_map(str(path))
        whole = data.read_at(len(MAGIC), 0) == MAGIC
        reader = pa.ipc.open_file(data) if whole else pa.ipc.open_stream(data)
        listed = map(reader.get_batch, range(reader.num_record_batches)) if whole else reader
        return cls(reader.schema, list(listed))

    @cached_property
    def groups(self) -> Sequence[tuple[int, int]]:
        """Rows and bytes of each batch."""
        return [(batch.num_rows, batch.get_total_buffer_size()) for batch in self.batches if batch.num_rows]

    def read(self, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """One batch. Raises pa.ArrowInvalid where its offsets lead out of it, or a string is no UTF-8."""
        batch = [batch for batch in self.batches if batch.num_rows][group].select(columns)
        batch.validate(full=True)
        yield batch


def is_arrow(name: str) -> bool:
    """Whether a file is Arrow by its name."""
    return name.lower().endswith(".arrow")
