"""Step `signal_columns`: the signals of the samples in a shard, as columns that a mixture's `where` sees.

Comes after render. A sample has the mean, the least and the largest of each value over its nodes that are in the shard;
of a value of the whole sample all three are that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import polars as pl
import pyarrow.parquet as pq

from vlmill.pipeline.core.names import INDEX_SUFFIX, LINEAGE_SUFFIX, SCORES_SUFFIX, SIGNALS_SUFFIX
from vlmill.pipeline.core.sample import WHOLE_SAMPLE
from vlmill.pipeline.core.scores import list_value_columns, read_scores
from vlmill.pipeline.core.step import Count, Counts, Inputs

ROW_DIGITS = 6
"""Of a shard's keys: the last ones are the sample's row in samples.parquet (see steps/render.py)."""


def list_signal_columns(values: Iterable[str]) -> list[str]:
    """The columns of a shard's table for some values: each by its own name, its least and its largest."""
    return [column for value in values for column in (value, f"{value}_min", f"{value}_max")]


@dataclass(frozen=True)
class AddSignalColumns:
    """Writes `<nn>.signals.parquet` for every shard of a partition, a row for each sample. Counts samples."""

    values: tuple[str, ...]  # of the recipe's signals, in their order

    name: ClassVar[str] = "signal_columns"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """Index and lineage of every shard, and the values of signals."""
        return (f"*{INDEX_SUFFIX}", f"*{LINEAGE_SUFFIX}", f"*{SCORES_SUFFIX}")

    def made_by(self) -> Mapping[str, str]:
        """What adds up and writes."""
        return {name: version(name) for name in ("polars", "pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write the tables."""
        count = Count()
        scores = [
            _read_values(path, self.values) for name, path in sorted(inputs.items()) if name.endswith(SCORES_SUFFIX)
        ]
        for name in sorted(name for name in inputs if name.endswith(INDEX_SUFFIX)):
            shard = name.removesuffix(INDEX_SUFFIX)
            table = _join_values(inputs[name], inputs[f"{shard}{LINEAGE_SUFFIX}"], scores, self.values)
            pq.write_table(table.to_arrow(), folder / f"{shard}{SIGNALS_SUFFIX}", compression="zstd")
            count.keep(table.height)
        return {"samples": count}


def _read_values(path: Path, wanted: Sequence[str]) -> pl.DataFrame:
    """The values of a signal by sample and node."""
    columns = [column for column in list_value_columns(path) if column in wanted]
    return read_scores(path, ["sample", "node", *columns])


def _join_values(index: Path, lineage: Path, scores: Sequence[pl.DataFrame], values: Sequence[str]) -> pl.DataFrame:
    """Row of the shard, and list_signal_columns(values) as float32."""
    keys = pl.read_parquet(index, columns=["row", "key"])
    rows = keys.select("row", sample=pl.col("key").str.tail(ROW_DIGITS).cast(pl.Int32))
    nodes = pl.read_parquet(lineage, columns=["row", "nodes"]).explode("nodes").unnest("nodes").select("row", "node")
    places = rows.join(nodes, on="row").vstack(rows.with_columns(node=pl.lit(WHOLE_SAMPLE, pl.Int32)))
    table = keys.select("row")
    for found in scores:
        here = (
            places.join(found, on=["sample", "node"])
            .group_by("row")
            .agg(
                *(
                    how(pl.col(column).cast(pl.Float64)).round(6).cast(pl.Float32).alias(f"{column}{ending}")
                    for column in found.columns[2:]
                    for ending, how in (("", pl.Expr.mean), ("_min", pl.Expr.min), ("_max", pl.Expr.max))
                )
            )
        )
        table = table.join(here, on="row", how="left")
    return table.select("row", *list_signal_columns(values)).sort("row")
