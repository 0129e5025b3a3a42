"""The table that a signal leaves: what a model says of the images and texts of a partition's samples.

Written by the step `score`, one table a signal; read by `threshold`, by quantiles, by the columns beside shards, and by
reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.sample import DAMAGED_TABLE

PLACE = ("sample", "node", "reason")
"""Columns that say what a value is of: the row in samples.parquet, the index into Sample.nodes or WHOLE_SAMPLE, and why
there is no value."""


@dataclass(frozen=True)
class Scores:
    """The values of a signal over a partition, ordered by sample and node.

    Attributes:
        samples: rows in samples.parquet, (n,) int32.
        nodes: indices into Sample.nodes, or WHOLE_SAMPLE, (n,) int32.
        reasons: why there is no value; None where there is one.
        values: (n, columns) float32, or (n, length) float16 of vectors; what has a reason is NaN.
    """

    samples: np.ndarray
    nodes: np.ndarray
    reasons: tuple[str | None, ...]
    values: np.ndarray


def write_scores(path: Path, scores: Scores, columns: Sequence[str]) -> None:
    """Write one column of float32 for each value."""
    lost = np.array([reason is not None for reason in scores.reasons], bool)
    values = {
        name: pa.array(scores.values[:, place].astype(np.float32), pa.float32(), mask=lost)
        for place, name in enumerate(columns)
    }
    _write_table(path, scores, values)


def write_embeddings(path: Path, scores: Scores, column: str) -> None:
    """Write one column of vectors of float16."""
    vectors = scores.values.astype(np.float16)
    length = vectors.shape[1]
    flat = pa.array(vectors.reshape(-1), pa.float16())
    lost = pa.array([reason is not None for reason in scores.reasons], pa.bool_())
    _write_table(path, scores, {column: pa.FixedSizeListArray.from_arrays(flat, length, mask=lost)})


def _write_table(path: Path, scores: Scores, values: dict[str, pa.Array]) -> None:
    places = {
        "sample": pa.array(scores.samples, pa.int32()),
        "node": pa.array(scores.nodes, pa.int32()),
        "reason": pa.array(scores.reasons, pa.string()),
    }
    pq.write_table(pa.table({**places, **values}), path, compression="zstd")


def read_scores(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The table of a signal: PLACE and its values, or only these columns.

    Raises:
        StoreError: the file is not there, or damaged.
    """
    try:
        return pl.from_arrow(pq.read_table(path, columns=list(columns) if columns is not None else None))  # type: ignore[return-value]
    except DAMAGED_TABLE as error:
        raise StoreError(
            f"{path} cannot be read ({error}); `vlmill verify` says what else is damaged, and the way out"
        ) from error


def count_scored(path: Path) -> int:
    """How many things have a value in a signal's table, of scores or of vectors, by its statistics alone.

    Raises:
        StoreError: the file is not there, or damaged.
    """
    try:
        about = pq.ParquetFile(path).metadata
    except DAMAGED_TABLE as error:
        raise StoreError(
            f"{path} cannot be read ({error}); `vlmill verify` says what else is damaged, and the way out"
        ) from error
    reasons = (about.row_group(group).column(PLACE.index("reason")) for group in range(about.num_row_groups))
    # a row group without rows, of a source that has nothing the signal is asked of, has no statistics
    return sum(int(column.statistics.null_count) for column in reasons if column.num_values)


@dataclass(frozen=True)
class Embeddings:
    """The vectors of a signal over a partition, those that are there, ordered by sample and node.

    Attributes:
        samples: rows in samples.parquet, (n,) int32.
        nodes: indices into Sample.nodes, (n,) int32.
        vectors: (n, length) float16.
    """

    samples: np.ndarray
    nodes: np.ndarray
    vectors: np.ndarray


def read_embeddings(path: Path, column: str) -> Embeddings:
    """The vectors of a signal's table.

    Raises:
        StoreError: the file is not there, or damaged.
    """
    try:
        table = pq.read_table(path)
    except DAMAGED_TABLE as error:
        raise StoreError(
            f"{path} cannot be read ({error}); `vlmill verify` says what else is damaged, and the way out"
        ) from error
    table = table.filter(pc.is_valid(table.column(column)))
    vectors = table.column(column).combine_chunks()
    flat = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(vectors), vectors.type.list_size)
    return Embeddings(table.column("sample").to_numpy(), table.column("node").to_numpy(), flat)


def list_value_columns(path: Path) -> list[str]:
    """The columns of a signal's table that hold its values."""
    return [name for name in pq.read_schema(path).names if name not in PLACE]
