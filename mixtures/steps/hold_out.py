"""Which documents of a source are held out, and with each all others that show one of its pictures.

Part of the select step. Documents and pictures make a graph; what is connected is held out together, so no picture of a
held-out sample is trained on. Where dedupe measured pictures, one that is nearly the same counts as the same. One thing
limits this: where most of a source hangs together (scenes of one template, a logo on every page), the part that does is
divided by the same pictures alone, and where that is no division either, by document; the stage's notes count the
pictures on both sides.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from vlmill.mixtures.algorithms.order import make_order_keys
from vlmill.pipeline.dedupe.links import (
    HELD,
    NumberTable,
    combine_rows,
    connect_links,
    find_labels,
    join_links,
    keep_known,
)
from vlmill.pipeline.shards.lineage import list_pictures, parse_picture_keys

HELD_OUT = np.dtype([("shard", "<i4"), ("row", "<i4")])

NOTHING = np.empty(0, np.uint64)

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
    shards: Iterable[Rows],
    source: str,
    seed: int,
    fraction: float,
    near: Iterable[np.ndarray],
    folder: Path,
    held: int = HELD,
) -> list[np.ndarray]:
    """Which rows of each shard are held out (bool); the same for any order of rows and pairs.

    The same in every stage and entry, as long as they show the same pictures of the source. Holds a byte of each row,
    the names of one shard, and `held` rows of a table; the others lie in files.

    Args:
        shards: all of a source, one after the other.
        source: its name.
        seed: of the recipe.
        fraction: of the documents to hold out.
        near: pairs of pictures that count as the same, (n, 2) each; those of other sources connect nothing.
        folder: where files may lie meanwhile.
        held: rows of a table of numbers that are held at a time; they change nothing else.
    """
    if fraction == 1:
        return [np.ones(len(shard.documents), bool) for shard in shards]
    bound = np.uint64(fraction * 2**64)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        sizes, rows, links = _collect_rows(shards, source, seed, NumberTable(Path(scratch), held=held))
        most = max(LARGEST, fraction) * rows.rows
        same = connect_links(links)
        groups = _Groups(rows, same, same, NOTHING)
        if (pairs := keep_known(same, near)).rows:
            groups = replace(groups, alike=connect_links(join_links(same, pairs)))
            groups = replace(groups, apart=_find_large(groups, most))
        large = _find_large(groups, most)
        out = np.zeros(rows.rows, bool)
        for keys, places, labels in groups.read():
            unique, group = np.unique(labels, return_inverse=True)
            drawn = make_order_keys(seed, "held_out", source, last=map(str, unique.tolist()))
            out[places] = np.where(np.isin(labels, large), keys, drawn[group]) < bound
    return np.split(out, np.cumsum(sizes)[:-1])


def _collect_rows(
    shards: Iterable[Rows], source: str, seed: int, empty: NumberTable
) -> tuple[list[int], NumberTable, NumberTable]:
    """The rows of each shard; key of the document and number of each row; and the links of documents and pictures."""
    sizes, rows, links = list[int](), empty.make_like(), empty.make_like()
    for shard in shards:
        keys = make_order_keys(seed, "held_out", source, last=shard.documents)
        rows.add(keys, np.arange(rows.rows, rows.rows + keys.size))
        links.add(keys[shard.pictures["row"].to_numpy()], parse_picture_keys(shard.pictures["sha256"]))
        sizes.append(keys.size)
    ranges = -(-(rows.rows + links.rows) // empty.held) or 1
    return sizes, rows.cut(ranges), links.cut(ranges, turned=True)


@dataclass(frozen=True)
class _Groups:
    """The rows of a source by what they are connected to."""

    rows: NumberTable  # key of the document, number of the row
    same: NumberTable  # stars of documents and pictures
    alike: NumberTable  # the same where pictures that are nearly the same count as one
    apart: np.ndarray  # labels by `alike` of the rows that are labelled by `same`

    def read(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of each row the key of its document, its number, and the smallest key that it is connected to; in parts."""
        for number in range(self.rows.ranges):
            alike = combine_rows(self.alike.read(number), np.minimum)
            same = combine_rows(self.same.read(number), np.minimum) if self.apart.size else alike
            for keys, places in self.rows.read(number):
                labels = find_labels(keys, *alike)
                apart = np.isin(labels, self.apart)
                labels[apart] = find_labels(keys[apart], *same)
                yield keys, places, labels


def _find_large(groups: _Groups, most: float) -> np.ndarray:
    """The labels of more rows than may be held out together."""
    counts, large = groups.rows.make_like(), [NOTHING]
    for _, _, labels in groups.read():
        counts.add(*np.unique(labels, return_counts=True))
    for number in range(counts.ranges):
        labels, count = combine_rows(counts.read(number), np.add)
        large.append(labels[(count > 1) & (count > most)])
    return np.concatenate(large)


def list_places(held: Sequence[np.ndarray]) -> np.ndarray:
    """Shard and row of each (HELD_OUT), from the rows of every shard."""
    places = np.empty(sum(rows.size for rows in held), HELD_OUT)
    places["shard"] = np.repeat(np.arange(len(held)), [rows.size for rows in held])
    places["row"] = np.concatenate([np.empty(0, np.int64), *held])
    return places
