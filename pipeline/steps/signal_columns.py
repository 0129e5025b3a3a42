"""Step `signal_columns`: the signals of the samples in a shard, as columns that a mixture's `where` sees.

Comes after render. A sample has the mean, the least and the largest of each value over its nodes that are in the shard;
of a value of the whole sample all three are that. Of a label, which is no amount, it has the most frequent; of several
the one that stands first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
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


def list_signal_columns(values: Iterable[str], labels: Collection[str]) -> list[str]:
    """The columns of a shard's table for some values: each by its own name, and if it is no label its bounds."""
    endings = ((value, ("",) if value in labels else ("", "_min", "_max")) for value in values)
    return [f"{value}{ending}" for value, found in endings for ending in found]


@dataclass(frozen=True)
class AddSignalColumns:
    """Writes `<nn>.signals.parquet` for every shard of a partition, a row for each sample. Counts samples."""

    values: tuple[str, ...]  # of the recipe's signals, in their order
    labels: tuple[str, ...]  # those of them that are numbers of groups

    name: ClassVar[str] = "signal_columns"
    version: ClassVar[int] = 2
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
            table = self._join_values(inputs[name], inputs[f"{shard}{LINEAGE_SUFFIX}"], scores)
            pq.write_table(table.to_arrow(), folder / f"{shard}{SIGNALS_SUFFIX}", compression="zstd")
            count.keep(table.height)
        return {"samples": count}

    def _join_values(self, index: Path, lineage: Path, scores: Sequence[pl.DataFrame]) -> pl.DataFrame:
        """Row of the shard, and list_signal_columns(values, labels) as float32."""
        keys = pl.read_parquet(index, columns=["row", "key"], glob=False)
        rows = keys.select("row", sample=pl.col("key").str.tail(ROW_DIGITS).cast(pl.Int32))
        nodes = pl.read_parquet(lineage, columns=["row", "nodes"], glob=False).explode("nodes").unnest("nodes")
        places = rows.join(nodes.select("row", "node"), on="row")
        places = places.vstack(rows.with_columns(node=pl.lit(WHOLE_SAMPLE, pl.Int32)))
        table = keys.select("row")
        for found in scores:
            here = places.join(found, on=["sample", "node"])
            amounts = [column for column in found.columns[2:] if column not in self.labels]
            table = table.join(_summarise_amounts(here, amounts), on="row", how="left")
            for label in set(found.columns[2:]) & {*self.labels}:
                table = table.join(_choose_label(here, label), on="row", how="left")
        return table.select("row", *list_signal_columns(self.values, self.labels)).sort("row")


def _read_values(path: Path, wanted: Sequence[str]) -> pl.DataFrame:
    """The values of a signal by sample and node."""
    columns = [column for column in list_value_columns(path) if column in wanted]
    return read_scores(path, ["sample", "node", *columns])


def _summarise_amounts(here: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Mean, least and largest of each column, by row."""
    endings = (("", pl.Expr.mean), ("_min", pl.Expr.min), ("_max", pl.Expr.max))
    return here.group_by("row").agg(
        how(pl.col(column).cast(pl.Float64)).round(6).cast(pl.Float32).alias(f"{column}{ending}")
        for column in columns
        for ending, how in endings
    )


def _choose_label(here: pl.DataFrame, label: str) -> pl.DataFrame:
    """The most frequent label of each row; of several the first by node."""
    counted = here.drop_nulls(label).group_by("row", label).agg(number=pl.len(), first=pl.col("node").min())
    ranked = counted.sort("row", "number", "first", descending=[False, True, False])
    return ranked.unique("row", keep="first", maintain_order=True).select("row", label)
