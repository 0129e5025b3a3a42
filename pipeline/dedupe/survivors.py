"""What the earlier filters left, read from outlines and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlmill.pipeline.core.names import OUTLINE_FILE, name_verdicts
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import ImageStats, Node, Sample, SampleId, Verdict
from vlmill.pipeline.dedupe.domain import hash_places
from vlmill.pipeline.dedupe.left import BLOCK_BITS
from vlmill.pipeline.verdicts.apply import apply_verdicts, read_verdicts_by_sample


def read_survivors(
    inputs: Mapping[str, Path],
    partitions: Sequence[str],
    filters: Sequence[str],
    priority: Mapping[str, int],
    lines: NDArray[np.uint64],
    *,
    all_texts: bool = False,
    block: int = 0,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Samples that the filters left, and the nodes that they left of these. Independent of the order of `parts`.

    Args:
        inputs: Outlines and verdicts, by partition.
        partitions: `<source>/<partition>` of every partition.
        filters: Whose verdicts count, in recipe order.
        priority: Source -> number; the lower one comes first.
        lines: Places of the lines of documents that are wanted, sorted.
        all_texts: Whether texts of documents without wanted lines are wanted as well.
        block: The number of these partitions among the blocks that all are cut into, in the order of preference.

    Returns:
        Samples in the order of preference (priority of the source, 0 if it has none, then id): their place in it
            (`order`), `part`, `sample` (row), the number of nodes `left`, and what stands in the outline but for the
            nodes.
        Nodes by sample and node: `order`, `node`, the `places` of wanted lines, whether these are the `whole` node, and
            what stands in the outline but for the lines. Texts of documents without wanted lines are left out unless
            `all_texts`.
    """
    found = [_read_part(inputs, partition, filters, lines, all_texts=all_texts) for partition in sorted(partitions)]
    ranks = pl.col("source").replace_strict(dict(priority), default=0, return_dtype=pl.Int64)
    samples = pl.concat([samples for samples, _ in found]).with_columns(priority=ranks)
    samples = samples.sort("priority", "source", "file", "row", "page").with_row_index("order")
    samples = samples.with_columns(pl.col("order").cast(pl.UInt64) + (block << BLOCK_BITS))
    nodes = pl.concat([nodes for _, nodes in found])
    nodes = nodes.join(samples.select("order", "partition", "sample"), on=["partition", "sample"])
    return samples, nodes.drop("partition", "sample").sort("order", "node")


def _read_part(
    inputs: Mapping[str, Path], partition: str, filters: Sequence[str], lines: NDArray[np.uint64], *, all_texts: bool
) -> tuple[pl.DataFrame, pl.DataFrame]:
    outline = pl.read_parquet(inputs[f"{partition}/{OUTLINE_FILE}"], glob=False).with_row_index("sample")
    outline = outline.with_columns(partition=pl.lit(partition))
    names = [name_verdicts(filter_) for filter_ in filters]
    verdicts = read_verdicts_by_sample({name: inputs[f"{partition}/{name}"] for name in names}, filters)
    failed = pl.col("nodes").list.eval(pl.element().struct.field("reason").is_not_null()).list.any()
    touched = outline.filter(failed | pl.col("sample").is_in(list(verdicts)))
    lost = [
        (row["sample"], node)
        for row in touched.iter_rows(named=True)
        for node in _list_lost(row, verdicts.get(row["sample"], []))
    ]
    nodes = outline.select("partition", "sample", "nodes").explode("nodes").unnest("nodes")
    nodes = nodes.with_columns(node=pl.int_range(pl.len(), dtype=pl.Int32).over("sample"))
    gone = pl.DataFrame(lost, pl.Schema({"sample": pl.UInt32, "node": pl.Int32}), orient="row")
    nodes = nodes.join(gone, on=["sample", "node"], how="anti")
    left = nodes.group_by("sample").agg(left=pl.len())
    nodes = _add_places(nodes.join(outline.select("sample", "unit", "host"), on="sample"), lines)
    wanted = (pl.col("kind") == "image") | (pl.col("unit") != "document") | pl.col("places").is_not_null()
    nodes = nodes if all_texts else nodes.filter(wanted)
    return outline.drop("nodes").join(left, on="sample"), nodes.drop("reason", "lines", "after")


def _add_places(nodes: pl.DataFrame, lines: NDArray[np.uint64]) -> pl.DataFrame:
    """The nodes, with the places of those of their lines that are wanted, and whether these are all."""
    said = nodes.select("sample", "node", "host", "lines").explode("lines").drop_nulls()
    places = hash_places(said["host"].to_numpy(), said["lines"].to_numpy())
    said = said.with_columns(
        places=pl.Series(places, dtype=pl.UInt64), wanted=pl.Series(np.isin(places, lines), dtype=pl.Boolean)
    )
    found = said.group_by("sample", "node").agg(pl.col("places").filter("wanted"), whole=pl.col("wanted").all())
    return nodes.join(found.filter(pl.col("places").list.len() > 0), on=["sample", "node"], how="left")


def _list_lost(row: Mapping[str, Any], verdicts: Sequence[Verdict]) -> list[int]:
    """Indices of the nodes of an outlined sample that are gone."""
    nodes, image_stats = [], list[ImageStats]()
    for node in row["nodes"]:
        image = len(image_stats) if node["kind"] == "image" else None
        text = None if node["reason"] else ""  # of text nodes; what an outline says of images is in the image stats
        nodes.append(
            Node(
                node["kind"],
                node["role"],
                node["turn"],
                text=text,
                image=image,
                required=node["required"],
                after=node["after"],
            )
        )
        if image is not None:
            image_stats.append(ImageStats(image, Reason(node["reason"]) if node["reason"] else None))
    identity = SampleId(row["source"], row["file"], row["row"], row["page"])
    outcome = apply_verdicts(Sample(identity, tuple(nodes)), verdicts, image_stats)
    return [index for index, reason in enumerate(outcome.nodes) if reason]
