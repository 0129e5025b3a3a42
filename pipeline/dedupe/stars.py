"""Connected components of more pairs than one task could hold: large-star and small-star rounds over buckets on disk.

Kiveris, Lattanzi, Mirrokni, Rastogi and Vassilvitskii (2014), "Connected Components in MapReduce and Beyond", algorithm
"Alternating": large-star and small-star in turn until nothing moves. Each round keeps what is connected connected, adds
no link, and ends with every content linked to the smallest one of its component. The paper proves O(log^2 n) rounds for
its two-phase form, and finds as few for this one; tests hold it to log2(n) + 2 of each on chains, rings and stars.

    select   per bucket   pairs at or above the threshold whose first content is left
    link     per bucket   those of them whose second one is, in both directions, and the best similarity of each content
    move     per bucket   one round
    label    per bucket   each content's component, sent to the blocks that have it

A bucket holds the contents of a range of keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import polars as pl

from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.dedupe.candidates import BUCKET_BITS, split_range
from vlmill.pipeline.dedupe.exchange import find_paths, read_range, write_sorted

KINDS = ("text", "image")


@dataclass(frozen=True)
class SelectPairs:
    """Step: the pairs of a bucket that may connect something. Pure. Counts `pairs_selected`."""

    bucket: int
    buckets: int
    shares: int  # files of pairs, each of which holds a range of their first contents
    thresholds: Mapping[str, float]  # by kind

    name: ClassVar[str] = "select_pairs"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The contents that are left, and the pairs of the shares that the bucket is in."""
        return tuple(name for kind in KINDS for name in (f"*/{kind}.keys.parquet", *self._list_pairs(kind)))

    def _list_pairs(self, kind: str) -> tuple[str, ...]:
        first, last = split_range(self.bucket, self.buckets, BUCKET_BITS)
        spans = ((share, *split_range(share, self.shares, BUCKET_BITS)) for share in range(self.shares))
        return tuple(f"{share:05d}/{kind}.pairs.parquet" for share, low, high in spans if low <= last and high >= first)

    def made_by(self) -> Mapping[str, str]:
        """The library that calculates and writes."""
        return {"polars": version("polars")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<kind>.edges.parquet`: `other`, `one`, `similarity`."""
        counts, span = {"pairs_selected": Count()}, split_range(self.bucket, self.buckets, BUCKET_BITS)
        for kind in KINDS:
            left = _read_left(inputs, kind, span)
            pairs = read_range(find_paths(inputs, *self._list_pairs(kind)), *span).unique()
            pairs = pairs.filter((pl.col("similarity") >= self.thresholds[kind]) & (pl.col("one") != pl.col("other")))
            edges = pairs.join(left.select(one="key"), on="one", how="semi").select("other", "one", "similarity")
            write_sorted(folder / f"{kind}.edges.parquet", edges)
            counts["pairs_selected"].keep(edges.height)
        return counts


@dataclass(frozen=True)
class LinkPairs:
    """Step: the links that the pairs of a bucket make. Pure. Counts `pairs_linked`."""

    bucket: int
    buckets: int

    name: ClassVar[str] = "link_pairs"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The contents that are left, and the selected pairs."""
        return tuple(name for kind in KINDS for name in (f"*/{kind}.keys.parquet", f"*/{kind}.edges.parquet"))

    def made_by(self) -> Mapping[str, str]:
        """The library that calculates and writes."""
        return {"polars": version("polars")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<kind>.links.parquet` and `<kind>.best.parquet`: `key`, `best`."""
        counts, span = {"pairs_linked": Count()}, split_range(self.bucket, self.buckets, BUCKET_BITS)
        for kind in KINDS:
            left = _read_left(inputs, kind, span)
            edges = read_range(find_paths(inputs, f"*/{kind}.edges.parquet"), *span)
            edges = edges.join(left.select(other="key"), on="other", how="semi")
            counts["pairs_linked"].keep(edges.height)
            write_sorted(folder / f"{kind}.links.parquet", _turn_links(edges.select(node="other", near="one")))
            ends = pl.concat([edges.select(key=end, best="similarity") for end in ("one", "other")])
            write_sorted(folder / f"{kind}.best.parquet", ends.group_by("key").agg(pl.col("best").max()))
        return counts


@dataclass(frozen=True)
class MoveLinks:
    """Step: one round over the contents of a bucket. Pure.

    Counts `links`: dropped is never any; and `links_moved`, none of which when a large and a small round are through.
    """

    bucket: int
    buckets: int
    large: bool  # large-star, or small-star

    name: ClassVar[str] = "move_links"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The links that the round before left."""
        return tuple(f"*/{kind}.links.parquet" for kind in KINDS)

    def made_by(self) -> Mapping[str, str]:
        """The library that calculates and writes."""
        return {"polars": version("polars")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<kind>.links.parquet`."""
        counts, span = {"links": Count(), "links_moved": Count()}, split_range(self.bucket, self.buckets, BUCKET_BITS)
        for kind in KINDS:
            links = read_range(find_paths(inputs, f"*/{kind}.links.parquet"), *span)
            links, moved = (move_large if self.large else move_small)(links)
            write_sorted(folder / f"{kind}.links.parquet", links)
            counts["links"].keep(links.height)
            counts["links_moved"].keep(moved)
        return counts


def move_large(links: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Large-star: the larger neighbours of each node are linked to the smallest of it and its neighbours.

    Pure.

    Args:
        links: `node` and `near`, each link in both directions; all that lead from a node.

    Returns:
        Each link once, from the larger end (`node`) to the smaller, and how many were not there before.
    """
    links = links.unique().with_columns(least=pl.min_horizontal("node", pl.col("near").min().over("node")))
    links = links.filter(pl.col("near") > pl.col("node"))
    moved = int((links["least"] != links["node"]).sum())
    return links.select(node="near", near="least").unique(), moved


def move_small(links: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Small-star: each node and its smaller neighbours are linked to the smallest of these.

    Pure.

    Args:
        links: `node` and `near`, each link from its larger end; all that lead from a node.

    Returns:
        Each link in both directions, and how many were not there before.
    """
    links = links.unique().with_columns(least=pl.col("near").min().over("node"))
    further = links.filter(pl.col("near") != pl.col("least")).select(node="near", near="least")
    nearest = links.select("node", near="least")
    return _turn_links(pl.concat([further, nearest])), further.height


@dataclass(frozen=True)
class LabelContents:
    """Step: the components of the contents of a bucket. Pure. Counts `contents_labelled`."""

    bucket: int
    buckets: int

    name: ClassVar[str] = "label_contents"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The contents that are left, their best similarities, and the links that nothing moves any more."""
        return tuple(f"*/{kind}.{table}.parquet" for kind in KINDS for table in ("keys", "best", "links"))

    def made_by(self) -> Mapping[str, str]:
        """The library that calculates and writes."""
        return {"polars": version("polars")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<kind>.labels.parquet`: the first order of the block that is told (`to`), and LABELS."""
        counts, span = {"contents_labelled": Count()}, split_range(self.bucket, self.buckets, BUCKET_BITS)
        for kind in KINDS:
            keys, best, links = (
                read_range(find_paths(inputs, f"*/{kind}.{table}.parquet"), *span)
                for table in ("keys", "best", "links")
            )
            keys = keys.filter(pl.col("compared").any().over("key"))
            least = links.group_by(key="node").agg(pl.col("near").min())
            best = best.group_by("key").agg(pl.col("best").max())
            found = keys.join(least, on="key", how="left").join(best, on="key", how="left")
            label = pl.min_horizontal("key", "near")
            write_sorted(folder / f"{kind}.labels.parquet", found.select("to", "key", label=label, best="best"))
            counts["contents_labelled"].keep(found["key"].n_unique())
        return counts


def _read_left(inputs: Inputs, kind: str, span: tuple[int, int]) -> pl.DataFrame:
    """The contents of a range that are left and compared: `key`."""
    keys = read_range(find_paths(inputs, f"*/{kind}.keys.parquet"), *span)
    return keys.filter("compared").select("key").unique()


def _turn_links(links: pl.DataFrame) -> pl.DataFrame:
    """Links in both directions, each once."""
    return pl.concat([links.select("node", "near"), links.select(node="near", near="node")]).unique()
