"""Which documents of a source are held out: whole documents, and with them all others that show one of their pictures.

Part of the select step. Documents and pictures make a graph; what is connected is held out together, so no picture of a
held-out sample is trained on. One thing limits this: where most of a source hangs together (a logo on every page), the
part that does is divided by document, and the stage's notes count the pictures on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from vlmill.mixtures.algorithms.order import make_order_key
from vlmill.pipeline.dedupe.components import find_components
from vlmill.pipeline.shards.lineage import list_pictures

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
    return Rows(documents["document"], list_pictures(pl.scan_parquet(lineage)).collect())


def choose_held_out(shards: Sequence[Rows], source: str, seed: int, fraction: float) -> list[np.ndarray]:
    """Which rows of each shard are held out (bool); pure, and the same for any order of rows.

    The same in every stage and entry, as long as they show the same pictures of the source.

    Args:
        shards: all of a source.
        source: its name.
        seed: of the recipe.
        fraction: of the documents to hold out.
    """
    bound = int(fraction * 2**64)
    sizes = [shard.documents.len() for shard in shards]
    names = pl.concat([shard.documents for shard in shards])
    unique = names.unique(maintain_order=True)
    drawn = [make_order_key(seed, "held_out", source, name) for name in unique]
    keys = names.replace_strict(unique, pl.Series(drawn, dtype=pl.UInt64)).to_numpy()
    groups = _find_groups(keys, shards, sizes)
    labels, group, count = np.unique(groups, return_inverse=True, return_counts=True)
    together = np.array([make_order_key(seed, "held_out", source, str(label)) < bound for label in labels.tolist()])
    apart = count > max(LARGEST, fraction) * keys.size
    apart[count == 1] = False
    held = np.where(apart[group], keys < np.uint64(bound), together[group])
    return np.split(held, np.cumsum(sizes)[:-1])


def _find_groups(keys: np.ndarray, shards: Sequence[Rows], sizes: Sequence[int]) -> np.ndarray:
    """For each row the smallest key of the documents and pictures that it is connected to.

    Args:
        keys: of the rows' documents, over all shards.
        shards: the rows.
        sizes: rows of each shard.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    rows = [start + shard.pictures["row"].to_numpy() for start, shard in zip(starts, shards, strict=True)]
    documents = keys[np.concatenate(rows)]
    digests = pl.concat([shard.pictures["sha256"] for shard in shards]).str.slice(0, 16)
    pictures = np.frombuffer(bytes.fromhex("".join(digests.to_list())), ">u8").astype(np.uint64)
    nodes = np.unique(np.concatenate([keys, pictures]))
    labels = find_components(nodes, documents, pictures)
    return labels[np.searchsorted(nodes, keys)]
