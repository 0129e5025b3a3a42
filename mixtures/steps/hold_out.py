"""Which documents of a source are held out, and with each all others that show one of its pictures.

Part of the select step. Documents and pictures make a graph; what is connected is held out together, so no picture of a
held-out sample is trained on. Where dedupe measured pictures, one that is nearly the same counts as the same. One thing
limits this: where most of a source hangs together (scenes of one template, a logo on every page), the part that does is
divided by the same pictures alone, and where that is no division either, by document; the stage's notes count the
pictures on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from vlmill.mixtures.algorithms.order import make_order_key
from vlmill.pipeline.dedupe.components import find_components
from vlmill.pipeline.dedupe.near_pairs import NO_PAIRS
from vlmill.pipeline.shards.lineage import list_pictures, parse_picture_keys

HELD_OUT = np.dtype([("shard", "<i4"), ("row", "<i4")])

LARGEST = 0.1
"""Share of a source's samples that may be held out together at most, or the fraction that is asked for if larger."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Of the rows of a shard: the document of each, and the pictures that each shows."""

    documents: pl.Series  # strings
    pictures: pl.DataFrame  # `row`, `sha256`; a line per image node


def read_rows_with_pictures(index: pl.DataFrame, lineage: Path) -> Rows:
    """The rows of a shard.

    Args:
        index: `id` and `group` of each row.
        lineage: the table beside the shard.
    """
    documents = index.select(pl.when(pl.col("group") == "").then("id").otherwise("group").alias("document"))
    return Rows(documents["document"], list_pictures(pl.scan_parquet(lineage, glob=False)).collect())


def choose_held_out(
    shards: Sequence[Rows], source: str, seed: int, fraction: float, near: np.ndarray = NO_PAIRS
) -> list[np.ndarray]:
    """Which rows of each shard are held out (bool); pure, and the same for any order of rows and pairs.

    The same in every stage and entry, as long as they show the same pictures of the source.

    Args:
        shards: all of a source.
        source: its name.
        seed: of the recipe.
        fraction: of the documents to hold out.
        near: pairs of pictures that count as the same; those of other sources connect nothing.
    """
    bound = int(fraction * 2**64)
    sizes = [shard.documents.len() for shard in shards]
    names = pl.concat([shard.documents for shard in shards])
    unique = names.unique(maintain_order=True)
    drawn = [make_order_key(seed, "held_out", source, name) for name in unique]
    keys = names.replace_strict(unique, pl.Series(drawn, dtype=pl.UInt64)).to_numpy()
    groups = _find_groups(keys, shards, sizes, near)
    if near.size:
        apart = _find_large(groups, fraction)
        groups[apart] = _find_groups(keys, shards, sizes, NO_PAIRS)[apart]
    labels, group = np.unique(groups, return_inverse=True)
    together = np.array([make_order_key(seed, "held_out", source, str(label)) < bound for label in labels.tolist()])
    held = np.where(_find_large(groups, fraction), keys < np.uint64(bound), together[group])
    return np.split(held, np.cumsum(sizes)[:-1])


def _find_large(groups: np.ndarray, fraction: float) -> np.ndarray:
    """Which rows belong to a group that is too large to be held out together (bool)."""
    _, group, count = np.unique(groups, return_inverse=True, return_counts=True)
    large: np.ndarray = (count > 1) & (count > max(LARGEST, fraction) * groups.size)
    return large[group]


def _find_groups(keys: np.ndarray, shards: Sequence[Rows], sizes: Sequence[int], near: np.ndarray) -> np.ndarray:
    """For each row the smallest key of the documents and pictures that it is connected to.

    Args:
        keys: of the rows' documents, over all shards.
        shards: the rows.
        sizes: rows of each shard.
        near: pairs of pictures.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    rows = [start + shard.pictures["row"].to_numpy() for start, shard in zip(starts, shards, strict=True)]
    documents = keys[np.concatenate(rows)]
    pictures = parse_picture_keys(pl.concat([shard.pictures["sha256"] for shard in shards]))
    nodes = np.unique(np.concatenate([keys, pictures]))
    ends = [np.concatenate([column, pair]) for column, pair in zip((documents, pictures), near.T, strict=True)]
    labels = find_components(nodes, *ends)
    found: np.ndarray = labels[np.searchsorted(nodes, keys)]
    return found


def list_places(held: Sequence[np.ndarray]) -> np.ndarray:
    """Shard and row of each (HELD_OUT), from the rows of every shard."""
    places = np.empty(sum(rows.size for rows in held), HELD_OUT)
    places["shard"] = np.repeat(np.arange(len(held)), [rows.size for rows in held])
    places["row"] = np.concatenate([np.empty(0, np.int64), *held])
    return places
