"""Semantic duplicates: images or texts whose vectors are close, where a recipe wants one of them.

SemDeDup (Abbas et al. 2023, arXiv:2303.09540): vectors are compared within their cluster alone. `FileVectors` leaves
the vectors of a partition by cluster, `CompareVectors` the pairs of a bucket of clusters, whatever the threshold. Which
of these go is decided by `resolve` (semantic_drops.py): in the order of preference each thing is kept unless a kept one
is as similar as the recipe says. So every thing that goes is that similar to one that stays; SemDeDup itself also drops
what is similar only to something that goes.

A thing is a content: the same bytes of an image, the same text. Pairs and pages fall with their images, web documents
lose the image or the paragraph. Conversations are not asked: questions differ about pictures that look the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field
from pydantic.dataclasses import dataclass as settings_dataclass

from vlmill.pipeline.core.arrays import read_array
from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.names import ASSIGNED_SUFFIX, OUTLINE_FILE, name_embeddings
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.scores import read_embeddings
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.core.vectors import measure_lengths, multiply_vectors, quantise_vectors, round_cosines
from vlmill.pipeline.dedupe.candidates import read_span
from vlmill.pipeline.dedupe.pairs import PAIRS

Thing = Literal["image", "text"]

PLACES = pa.schema(
    [
        *(("cluster", pa.uint64()), ("key", pa.uint64())),
        *(("row", pa.int64()), ("sample", pa.int32()), ("node", pa.int32())),
    ]
)
"""Sorted by cluster and key, each key once: the row of its vector in the evidence, and where it stands first."""
PLACES_PER_GROUP = 4096
"""Rows per row group, so that a bucket reads little besides its own."""

BAND = 0.01
PER_BAND = 8
"""Of the things before it that are similar to a thing, so many are written for each hundredth of similarity: the first
in the order of preference. So a blob of n things leaves at most n times 80 pairs above 0.9, and not n squared."""

ROWS, COLUMNS = 512, 2048
"""Vectors that are multiplied at once: what a bucket needs in memory beside its places."""


@settings_dataclass(frozen=True, config=STRICT)
class Semantic:
    """Which vectors are compared, and from which cosine on they are the same.

    Attributes:
        of: the signal of kind image_embedding or text_embedding.
        min: cosine from which two are the same; what-if answers for others down to `floor`.
        within: the signal of kind clusters whose clusters are compared; needed where several are of `of`.
        floor: least cosine that is written.
        sources: those that are compared, by name or by a pattern such as `cauldron-*`; none: all.
    """

    of: str
    min: Annotated[float, Field(ge=0.5, le=1)]
    within: str | None = None
    floor: Annotated[float, Field(ge=0.5, le=1)] = 0.9
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.floor > self.min:
            raise ValueError(
                f"floor {self.floor} is above min {self.min}, so pairs between them would not be written; lower it"
            )


@dataclass(frozen=True)
class SemanticRule:
    """What `resolve` needs of the recipe's settings."""

    thing: Thing  # what the vectors are of
    min: float
    sources: tuple[str, ...]


@dataclass(frozen=True)
class FileVectors:
    """Step: the vectors of a partition by cluster. Pure. Counts `vectors_filed`: different contents."""

    of: str
    within: str

    name: ClassVar[str] = "semantic"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """Embeddings, clusters, and the keys of contents."""
        return (name_embeddings(self.of), f"{self.within}{ASSIGNED_SUFFIX}", OUTLINE_FILE)

    def made_by(self) -> Mapping[str, str]:
        """The libraries that read, round and write."""
        return {library: version(library) for library in ("numpy", "polars", "pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `semantic.places.parquet` and `semantic.evidence.npy`, quantised vectors in its order."""
        found = read_embeddings(inputs[name_embeddings(self.of)], self.of)
        at = {"sample": pl.Series(found.samples, dtype=pl.Int32), "node": pl.Series(found.nodes, dtype=pl.Int32)}
        placed = pl.DataFrame({**at, "at": np.arange(len(found.samples))})
        clusters = pl.read_parquet(
            inputs[f"{self.within}{ASSIGNED_SUFFIX}"], columns=["sample", "node", "cluster"], glob=False
        )
        placed = placed.join(clusters, on=["sample", "node"]).join(
            _read_keys(inputs[OUTLINE_FILE]), on=["sample", "node"]
        )
        placed = placed.sort("sample", "node").unique("key", keep="first", maintain_order=True).sort("cluster", "key")
        table = placed.with_row_index("row").select(PLACES.names).to_arrow().cast(PLACES)
        pq.write_table(table, folder / "semantic.places.parquet", row_group_size=PLACES_PER_GROUP, compression="zstd")
        np.save(folder / "semantic.evidence.npy", quantise_vectors(found.vectors[placed["at"].to_numpy()]))
        return {"vectors_filed": Count(placed.height, placed.height)}


def _read_keys(outline: Path) -> pl.DataFrame:
    """The key of the content of each node: `sample`, `node`, `key`."""
    nodes = pl.read_parquet(outline, columns=["nodes"], glob=False).with_row_index("sample").explode("nodes")
    keys = nodes.select(pl.col("sample").cast(pl.Int32), key=pl.col("nodes").struct.field("key"))
    return keys.with_columns(node=pl.int_range(pl.len(), dtype=pl.Int32).over("sample")).drop_nulls("key")


@dataclass(frozen=True)
class CompareVectors:
    """Step: the pairs of a bucket of clusters whose cosine is at least `floor`. Pure.

    Counts `semantic_pairs`; what PER_BAND leaves out has the reason PAIR_CAP.
    """

    bucket: int
    buckets: int
    clusters: int  # of the recipe's signal; there may be fewer
    floor: float
    priority: Mapping[str, int]  # source -> number: what comes first is written where not all can be

    name: ClassVar[str] = "semantic_pairs"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The vectors of all partitions, which are mapped."""
        return ("*/*/semantic.places.parquet", "*/*/semantic.evidence.npy")

    def made_by(self) -> Mapping[str, str]:
        """The libraries that calculate and write."""
        return {library: version(library) for library in ("numpy", "pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `semantic.pairs.parquet`. The order of `inputs` does not matter."""
        first, stop = (number * self.clusters // self.buckets for number in (self.bucket, self.bucket + 1))
        filed = _read_filed(inputs, self.priority, first, stop - 1) if stop > first else None
        parts, count = [np.empty(0, PAIR)], Count()
        for begin, end in filed.list_clusters() if filed else ():
            found, left_out = filed.compare_cluster(begin, end, self.floor) if filed else (parts[0], 0)
            parts.append(found)
            count.lose(Reason.PAIR_CAP, left_out)
        pairs = np.unique(np.concatenate(parts))
        count.keep(len(pairs))
        table = pa.Table.from_arrays([pa.array(pairs[name]) for name in PAIRS.names], schema=PAIRS)
        pq.write_table(table, folder / "semantic.pairs.parquet", compression="zstd")
        return {"semantic_pairs": count}


PAIR = np.dtype([("one", "<u8"), ("other", "<u8"), ("similarity", "<f8")])


@dataclass(frozen=True)
class _FiledVectors:
    """The contents of some clusters, sorted by cluster and then in the order of preference."""

    clusters: np.ndarray
    keys: np.ndarray
    files: np.ndarray  # which of the evidence
    rows: np.ndarray  # in it
    evidence: list[np.ndarray] = field(repr=False)

    def list_clusters(self) -> Iterator[tuple[int, int]]:
        """Where each cluster of two or more begins and ends."""
        bounds = np.concatenate([[0], np.flatnonzero(np.diff(self.clusters)) + 1, [self.clusters.size]])
        return ((int(begin), int(end)) for begin, end in pairwise(bounds) if end - begin > 1)

    def read_vectors(self, begin: int, end: int) -> np.ndarray:
        """Those of some contents (end - begin, length)."""
        files, rows = self.files[begin:end], self.rows[begin:end]
        found = np.empty((end - begin, self.evidence[files[0]].shape[1]), np.int16)
        for number in np.unique(files):
            mine = files == number
            found[mine] = self.evidence[number][rows[mine]]
        return found

    def compare_cluster(self, begin: int, end: int, floor: float) -> tuple[np.ndarray, int]:
        """The pairs of a cluster (PAIR, one < other), and how many were left out; a block of vectors at a time."""
        parts, left_out = [np.empty(0, PAIR)], 0
        for row in range(begin, end, ROWS):
            late = self.read_vectors(row, row_end := min(row + ROWS, end))
            lengths, taken = measure_lengths(late), np.zeros((len(late), int(1 / BAND) + 1), np.int64)
            for column in range(begin, row_end, COLUMNS):
                early = self.read_vectors(column, min(column + COLUMNS, row_end))
                below, before, cosines = _find_similar(late, early, lengths, floor, row - column)
                kept = _take_first(below, _find_bands(cosines), taken)
                left_out += len(kept) - int(kept.sum())
                ends = self.keys[below[kept] + row], self.keys[before[kept] + column]
                found = np.empty(len(ends[0]), PAIR)
                found["one"], found["other"] = np.minimum(*ends), np.maximum(*ends)
                found["similarity"] = cosines[kept]
                parts.append(found[found["one"] != found["other"]])
        return np.concatenate(parts), left_out


def _find_bands(cosines: np.ndarray) -> np.ndarray:
    """The number of the hundredth that each cosine, of four decimals, is in."""
    bands: np.ndarray = np.floor(cosines / BAND + 1e-6).astype(np.int64)
    return bands


def _find_similar(
    late: np.ndarray, early: np.ndarray, lengths: np.ndarray, floor: float, ahead: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places in `late` and in `early`, sorted, and the cosine of each pair at or above the floor.

    Args:
        late: vectors (n, length).
        early: vectors (m, length).
        lengths: of `late`.
        floor: the least cosine.
        ahead: how many places the first of `early` lies before the first of `late`: of two only one is paired.
    """
    products, others = multiply_vectors(late, early), measure_lengths(early)
    least = np.float32((floor - 1e-4) * lengths.min() * others.min())
    below, before = np.nonzero(products >= least)
    first = before < below + ahead
    below, before = below[first], before[first]
    cosines = round_cosines(products[below, before], lengths[below] * others[before])
    kept = cosines >= floor
    return below[kept], before[kept], cosines[kept]


def _take_first(things: np.ndarray, bands: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Which of pairs are among the first PER_BAND of their thing and band; `taken` counts them on, in place.

    Args:
        things: the thing of each pair, sorted; its pairs in the order of preference.
        bands: of each.
        taken: (things, bands) of those before.
    """
    groups = things * taken.shape[1] + bands
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if ordered.size else ordered
    counts = np.diff(np.append(starts, ordered.size))
    ranks = np.empty(groups.size, np.int64)
    ranks[order] = np.arange(groups.size) - np.repeat(starts, counts)
    kept: np.ndarray = ranks + taken.ravel()[groups] < PER_BAND
    taken.ravel()[ordered[starts]] += counts
    return kept


def _read_filed(inputs: Inputs, priority: Mapping[str, int], first: int, last: int) -> _FiledVectors:
    """The contents of the clusters [first, last] in all partitions, each once."""
    names = sorted(name.removesuffix("/semantic.places.parquet") for name in inputs if name.endswith(".parquet"))
    parts = [read_span(inputs[f"{name}/semantic.places.parquet"], PLACES.names, first, last) for name in names]
    files = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    clusters, keys, rows, samples, nodes = (np.concatenate(column) for column in zip(*parts, strict=True))
    ranks = np.array([priority.get(name.split("/")[0], 0) for name in names])[files]
    order = np.lexsort((nodes, samples, files, ranks, clusters))
    same = np.lexsort((np.argsort(order, kind="stable"), keys))  # equal keys together, the preferred one first
    again = np.zeros(order.size, bool)
    again[same[1:]] = (keys[same[1:]] == keys[same[:-1]]) & (clusters[same[1:]] == clusters[same[:-1]])
    order = order[~again[order]]
    evidence = [read_array(inputs[f"{name}/semantic.evidence.npy"]) for name in names]
    return _FiledVectors(clusters[order], keys[order], files[order], rows[order], evidence)
