"""The tables beside a shard as the select step reads them, and what an entry's `where` and `balance` may name of them.

Conditions are SQL over columns of index, lengths and signals, a row per sample of the shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from vlmill.mixtures import Shard
from vlmill.mixtures.config import MixtureEntry
from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.step import Inputs

INDEX_COLUMNS = ("id", "file", "input_row", "page", "group", "licence", "nodes")
LENGTH_COLUMNS = ("images", "text", "visual", "supervised", "tiles")
WHERE_COLUMNS = (*INDEX_COLUMNS, *LENGTH_COLUMNS)
CONDITIONED = dict.fromkeys(("id", "file", "group", "licence"), pl.String)  # the others are whole numbers


def read_table(path: Path, shard: Shard, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Columns of a table beside a shard, a row per sample of it.

    Raises:
        StoreError: it has another number of rows.
    """
    table = pl.read_parquet(path, columns=None if columns is None else list(columns), glob=False)
    if table.height != shard.samples:
        said = f"{path} has {table.height} rows, its shard {shard.path} {shard.samples} samples"
        raise StoreError(f"{said}; check the run with: vlmill verify DIR")
    return table


def join_tables(inputs: Inputs, shard: Shard, columns: Sequence[str]) -> pl.DataFrame:
    """Some columns of a shard's index, and its lengths beside them."""
    index = read_table(inputs[shard.index], shard, columns)
    return index.hstack(read_table(inputs[shard.lengths], shard, LENGTH_COLUMNS))


def read_conditioned(inputs: Inputs, shard: Shard) -> pl.DataFrame:
    """What conditions and balances may name of a shard's samples: columns of index, lengths and signals."""
    table = join_tables(inputs, shard, INDEX_COLUMNS)
    return table.hstack(read_table(inputs[shard.signals], shard).drop("row")) if shard.signals else table


def check_where(entry: MixtureEntry, signals: Sequence[str] = ()) -> None:
    """Try an entry's condition on a table without rows, so that a mistake shows before there are shards.

    Raises:
        RecipeError: it is no condition on the columns of index and lengths, and of the recipe's `signals`; or its
            balance names none of these.
    """
    columns = (*WHERE_COLUMNS, *signals)
    if entry.balance is not None and entry.balance.by not in columns:
        raise RecipeError(
            f"balance of {entry.source!r}: there is no column {entry.balance.by!r}; "
            f"{suggest_names(entry.balance.by, columns)}"
        )
    if entry.where is not None:
        schema = {name: CONDITIONED.get(name, pl.Int64) for name in WHERE_COLUMNS} | dict.fromkeys(signals, pl.Float32)
        apply_condition(entry, pl.DataFrame(schema=schema))


def apply_condition(entry: MixtureEntry, table: pl.DataFrame) -> np.ndarray:
    """Which rows the entry's condition holds for.

    Raises:
        RecipeError: it is no condition on these columns.
    """
    try:
        held = table.select(pl.sql_expr(entry.where or "").alias("held"))["held"]
        wrong = "" if held.dtype == pl.Boolean else f"it gives {held.dtype}, not true or false"
        if held.len() != table.height:
            wrong = "it gives one answer for all rows of a shard"
    except pl.exceptions.PolarsError as error:
        wrong = str(error).partition("\n")[0].partition("; valid columns")[0]
    if wrong:
        there = ", ".join(table.columns)
        raise RecipeError(
            f"where of {entry.source!r}: {entry.where!r} is no condition ({wrong}); columns: {there}. These are "
            "columns of shards and signals of the recipe; a number that rows bring is one by a signal of kind brought "
            "(docs/signals.md)"
        )
    return held.fill_null(value=False).to_numpy()
