"""Tables that tasks hand over by ranges of their first column, a 64-bit number that says whose they are.

A task writes one file for all that follow, sorted, and each of these reads its range of every file: the row groups
that hold it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from vlmill.pipeline.core.step import Inputs, match_names

ROWS = 4096
"""Rows of a row group, so that a range reads little besides its own."""


def write_sorted(path: Path, frame: pl.DataFrame) -> None:
    """Write a table sorted by its columns, lists aside, so that the same rows are the same bytes in whatever order."""
    columns = [name for name, kind in frame.schema.items() if not kind.is_nested()]
    frame.sort(columns, maintain_order=True).write_parquet(path, compression="zstd", row_group_size=ROWS)


def read_range(paths: Iterable[Path], first: int, last: int) -> pl.DataFrame:
    """The rows of all these files whose first column lies in [first, last], file by file.

    At least one file.
    """
    parts, bounds = [], (pl.lit(first, pl.UInt64), pl.lit(last, pl.UInt64))
    for path in paths:
        table = pl.scan_parquet(path, glob=False)
        column = pl.col(table.collect_schema().names()[0])
        parts.append(table.filter(column.is_between(*bounds)).collect())
    return pl.concat(parts)


def find_paths(inputs: Inputs, *wanted: str) -> list[Path]:
    """The files with these names, or whose names match these patterns, in the order of names."""
    return [inputs[name] for name in match_names(inputs, wanted)]
