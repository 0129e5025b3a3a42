"""The lineage beside a shard, as others look at it: which pictures its samples show."""

from __future__ import annotations

import polars as pl


def list_pictures(lineage: pl.LazyFrame) -> pl.LazyFrame:
    """`row` and `sha256` of every image node of a lineage table."""
    nodes = lineage.select("row", "nodes").explode("nodes").unnest("nodes")
    return nodes.filter(pl.col("sha256").is_not_null()).select("row", "sha256")
