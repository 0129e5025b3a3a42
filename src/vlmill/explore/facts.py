"""What is known of the samples of one partition, as columns: outcomes, sizes, facts of images, values of signals.

Outcomes come from `apply_verdicts` over the verdicts of the recipe's order and of the first policy's render, as in the
funnel, so their counts agree with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from vlmill.pipeline.core.names import IMAGE_STATS_FILE, SAMPLES_FILE, SCORES_SUFFIX
from vlmill.pipeline.core.scores import list_value_columns
from vlmill.pipeline.reports.alike import group_alike
from vlmill.pipeline.verdicts.apply import apply_verdicts

KEPT = "kept"
UNDECIDED = "undecided"
"""In the place of a reason, where filters or dedupe have not come to their end."""

IMAGE_FACTS = {
    "short_side": pl.min_horizontal("width", "height"),
    "long_side": pl.max_horizontal("width", "height"),
    "pixels": pl.col("width").cast(pl.Int64) * pl.col("height"),
    "ratio": pl.max_horizontal("width", "height") / pl.min_horizontal("width", "height"),
    "contrast": pl.col("contrast"),
    "sharpness": pl.col("sharpness"),
}
"""Facts of an image that could be decoded."""


@dataclass(frozen=True)
class NodeValues:
    """A value of some nodes: the row of the sample, the node (-1: the whole sample), and the value."""

    rows: np.ndarray  # int32
    nodes: np.ndarray  # int32
    values: np.ndarray  # float64, without NaN


@dataclass
class PartitionFacts:
    """The columns of a partition; those of samples in the order of its rows."""

    columns: dict[str, np.ndarray]  # outcome (a place in `reasons`), images, texts, characters
    licences: list[str]
    ratings: dict[str, NodeValues]  # of upstream
    values: dict[str, NodeValues]  # facts of images, values of signals
    lost_rows: np.ndarray  # int32: rows of nodes that were lost for a reason of their own
    lost_reasons: np.ndarray  # int32, places in `reasons`


@dataclass
class Reasons:
    """Outcomes by number: `kept`, `undecided`, then reasons in the order in which they were met."""

    numbers: dict[str, int] = field(default_factory=lambda: {KEPT: 0, UNDECIDED: 1})

    def number(self, name: str) -> int:
        """The number of an outcome."""
        return self.numbers.setdefault(name, len(self.numbers))


def read_partition_facts(
    tables: Mapping[str, Path], verdicts: Mapping[str, Path] | None, reasons: Reasons
) -> PartitionFacts:
    """The facts of a partition.

    Args:
        tables: its tables by name; image stats and scores where they are there.
        verdicts: filter -> verdicts in the order of attribution; None where not all have been asked.
        reasons: of all partitions; new ones are added.
    """
    columns, licences, ratings, shown = _read_samples(tables[SAMPLES_FILE])
    lost = [np.empty(0, np.int32), np.empty(0, np.int32)]
    if verdicts is None:
        columns["outcome"] = np.full(len(licences), reasons.numbers[UNDECIDED], np.uint16)
    else:
        columns["outcome"], lost = _apply_all(tables, verdicts, len(licences), reasons)
    values = read_image_values(tables[IMAGE_STATS_FILE], shown) if IMAGE_STATS_FILE in tables else {}
    for name, path in tables.items():
        if name.endswith(SCORES_SUFFIX):
            values |= read_score_values(path)
    return PartitionFacts(columns, licences, ratings, values, *lost)


def _read_samples(path: Path) -> tuple[dict[str, np.ndarray], list[str], dict[str, NodeValues], pl.DataFrame]:
    """Columns, licences, ratings, and the images that samples show: `sample node image`."""
    node, texts = pl.element().struct, pl.element().struct.field("text")
    scanned = pl.scan_parquet(path, row_index_name="sample", glob=False)
    found = scanned.select(
        "licence",
        "signals",
        images=pl.col("nodes").list.eval(node.field("kind") == "image").list.sum(),
        texts=pl.col("nodes").list.eval(texts.is_not_null()).list.sum(),
        characters=pl.col("nodes").list.eval(texts.str.len_chars()).list.sum(),
    ).collect()
    shown = (
        scanned.select("sample", "nodes", node=pl.int_ranges(pl.col("nodes").list.len()))
        .explode("nodes", "node", empty_as_null=False)
        .select(
            pl.col("sample").cast(pl.Int32), pl.col("node").cast(pl.Int32), image=pl.col("nodes").struct.field("image")
        )
        .filter(pl.col("image").is_not_null())
        .collect()
    )
    counted = ("images", "texts", "characters")
    columns = {name: found[name].fill_null(0).cast(pl.Int32).to_numpy() for name in counted}
    return columns, found["licence"].to_list(), _read_ratings(found["signals"]), shown


def _read_ratings(signals: pl.Series) -> dict[str, NodeValues]:
    """The numbers that rows carry, by name."""
    told = signals != "{}"
    if not told.any():
        return {}
    rows = told.arg_true()
    frame = signals.filter(told).str.json_decode(infer_schema_length=None).struct.unnest()
    found = {}
    for name in frame.columns:
        if frame[name].dtype.is_numeric():
            known = frame[name].is_not_null() & frame[name].cast(pl.Float64).is_finite().fill_null(value=False)
            places = rows.filter(known).cast(pl.Int32).to_numpy()
            found[name] = NodeValues(
                places, np.full(len(places), -1, np.int32), frame[name].filter(known).cast(pl.Float64).to_numpy()
            )
    return found


def _apply_all(
    tables: Mapping[str, Path], verdicts: Mapping[str, Path], number: int, reasons: Reasons
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The outcome of each sample, and rows and reasons of nodes that were lost for another than their sample's."""
    outcomes, rows, why = np.zeros(number, np.uint16), list[np.ndarray](), list[np.ndarray]()
    for alike in group_alike(tables, verdicts, verdicts):
        outcome = apply_verdicts(alike.sample, alike.now, alike.image_stats)
        mine = np.asarray(alike.rows, np.int32)
        if outcome.sample is not None:
            outcomes[mine] = reasons.number(str(outcome.sample))
        for reason in dict.fromkeys(outcome.nodes):
            if reason is not None and reason is not outcome.sample:
                rows.append(mine)
                why.append(np.full(len(mine), reasons.number(str(reason)), np.int32))
    return outcomes, [np.concatenate([np.empty(0, np.int32), *parts]) for parts in (rows, why)]


def read_image_values(stats: Path, shown: pl.DataFrame) -> dict[str, NodeValues]:
    """The facts of images where samples show them. `shown` has `sample node image`."""
    wanted = ["image", "reason", "width", "height", "contrast", "sharpness"]
    facts = pl.read_parquet(stats, columns=wanted, glob=False).filter(pl.col("reason").is_null())
    joined = shown.join(facts.select("image", **IMAGE_FACTS), on="image", maintain_order="left")
    return {name: _take_values(joined, name) for name in IMAGE_FACTS} if len(joined) else {}


def read_score_values(path: Path) -> dict[str, NodeValues]:
    """The values of a signal's table by the names that thresholds know them by."""
    columns = list_value_columns(path)
    table = pl.read_parquet(path, columns=["sample", "node", *columns], glob=False)
    return {name: _take_values(table, name) for name in columns if table[name].dtype.is_numeric()}


def _take_values(table: pl.DataFrame, name: str) -> NodeValues:
    known = table.filter(pl.col(name).is_not_null() & pl.col(name).cast(pl.Float64).is_finite())
    return NodeValues(
        known["sample"].cast(pl.Int32).to_numpy(),
        known["node"].cast(pl.Int32).to_numpy(),
        known[name].cast(pl.Float64).to_numpy(),
    )


def list_shown_images(samples: Path) -> pl.DataFrame:
    """The images that the samples of a table show: `sample node image`, in order."""
    return _read_samples(samples)[3]
