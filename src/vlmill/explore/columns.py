"""Columns of numbers as Arrow files: written piece by piece, mapped into memory when they are read.

Pieces of a column go into a plain file first, so that memory does not grow with the run; in the end that becomes one
Arrow file with one batch, whose numbers numpy sees without a copy.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

SUFFIX = ".arrow"
COLUMN = "value"


class ColumnWriter:
    """Writes columns into a folder, each of the type of its first piece."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.types = dict[str, np.dtype]()
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, name: str, values: np.ndarray) -> None:
        """Add values to a column; they take its type."""
        kind = self.types.setdefault(name, values.dtype)
        with self._raw(name).open("ab") as file:
            file.write(np.ascontiguousarray(values, kind).tobytes())

    def close(self) -> None:
        """Turn all columns into Arrow files."""
        for name, kind in self.types.items():
            raw = self._raw(name)
            values = np.memmap(raw, kind, "r") if raw.stat().st_size else np.empty(0, kind)
            write_column(self.folder, name, values)
            del values
            raw.unlink()

    def _raw(self, name: str) -> Path:
        return self.folder / f"{name}.raw"


def write_column(folder: Path, name: str, values: np.ndarray) -> None:
    """Write a whole column; one that is there is replaced at once."""
    path = folder / f"{name}{SUFFIX}"
    schema = pa.schema([(COLUMN, pa.from_numpy_dtype(values.dtype))])
    batch = pa.record_batch([pa.array(values)], schema=schema)
    with pa.OSFile(str(path.with_suffix(".new")), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(batch)
    path.with_suffix(".new").rename(path)


def open_column(folder: Path, name: str) -> np.ndarray:
    """A column, mapped and read-only.

    Raises:
        FileNotFoundError: it was not written.
    """
    with pa.memory_map(str(folder / f"{name}{SUFFIX}")) as file:
        column = pa.ipc.open_file(file).get_batch(0).column(0)
    values: np.ndarray = column.to_numpy(zero_copy_only=True)
    return values


def has_column(folder: Path, name: str) -> bool:
    """Whether a column is there."""
    return (folder / f"{name}{SUFFIX}").exists()
