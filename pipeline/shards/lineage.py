"""The lineage beside a shard, as others look at it: which pictures its samples show."""

from __future__ import annotations

import numpy as np
import polars as pl


def list_pictures(lineage: pl.LazyFrame) -> pl.LazyFrame:
    """`row` and `sha256` of every image node of a lineage table."""
    nodes = lineage.select("row", "nodes").explode("nodes").unnest("nodes")
    return nodes.filter(pl.col("sha256").is_not_null()).select("row", "sha256")


def parse_picture_keys(sha256: pl.Series) -> np.ndarray:
    """The heads of sha256 sums in hexadecimal (uint64), by which dedupe knows pictures."""
    heads = "".join(sha256.str.slice(0, 16).to_list())
    return np.frombuffer(bytes.fromhex(heads), ">u8").astype(np.uint64)


def read_picture_key(sha256: pl.Expr) -> pl.Expr:
    """The same as an expression."""
    return sha256.str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64)
