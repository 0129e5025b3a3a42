"""What sources have in common: how many of the images and texts of one stand in another, among what the filters left.

Part of step `resolve`, before anything is dropped for being there twice. Pure functions of its tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from vlmill.pipeline.dedupe.text import make_text_key

Matrix = dict[str, dict[str, int]]


def compute_overlap(samples: pl.DataFrame, images: pl.DataFrame) -> dict[str, Any]:
    """The overlap of sources: `{"images": ..., "texts": ...}`.

    Each has `sources` (source -> different contents), `exact` and `near` (row -> column -> number).

    The number in row A, column B says how many of A's different contents stand in another sample, of B: the same, or
    similar in the recipe's terms (the same included). So the diagonal says how many come again within a source. A text
    is that of a whole sample; samples without a word have none.

    Args:
        samples: That the filters left: `order`, `source`, `text` and its cluster's `label`, if it is long enough for
            one.
        images: The image nodes of these: `order`, `key`, `label`.
    """
    return {kind: measure_overlap(things) for kind, things in list_things(samples, images).items()}


def list_things(samples: pl.DataFrame, images: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """`images` and `texts` with `label`, `order`, `source`, `key`; the arguments are those of `compute_overlap`."""
    texts = samples.filter(pl.col("text") != make_text_key("")).select(
        "order", "source", key="text", label=pl.coalesce("label", "text")
    )
    images = images.select("order", "key", "label").join(samples.select("order", "source"), on="order")
    columns = ["label", "order", "source", "key"]
    return {"images": images.select(columns), "texts": texts.select(columns)}


def add_overlaps(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The overlap of all things from those of whole clusters: numbers are added up."""
    return {kind: _add_parts([part[kind] for part in parts]) for kind in ("images", "texts")}


def _add_parts(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = sorted({name for part in parts for name in part["sources"]})
    whole: dict[str, Any] = {"sources": {name: sum(part["sources"].get(name, 0) for part in parts) for name in names}}
    for degree in ("exact", "near"):
        matrices = [part[degree] for part in parts]
        whole[degree] = {
            row: {column: sum(matrix.get(row, {}).get(column, 0) for matrix in matrices) for column in names}
            for row in names
        }
    return whole


def measure_overlap(things: pl.DataFrame) -> dict[str, Any]:
    """Of things with `order`, `source`, `key` and `label`."""
    sizes = things.group_by("source").agg(size=pl.col("key").n_unique())
    sources = dict(sizes.sort("source").iter_rows())
    found = {name: _make_matrix(things, by, list(sources)) for name, by in (("exact", "key"), ("near", "label"))}
    return {"sources": sources, **found}


def _make_matrix(things: pl.DataFrame, by: str, sources: list[str]) -> Matrix:
    """Contents of each source that share their `by` with a sample of each source, not counting their only one."""
    holders = things.group_by(by, pl.col("source").alias("holder")).agg(samples=pl.col("order").n_unique())
    held = things.select("source", "key", "label").unique().join(holders, on=by)
    held = held.filter((pl.col("source") != pl.col("holder")) | (pl.col("samples") > 1))
    counted = {(row[0], row[1]): row[2] for row in held.group_by("source", "holder").len().iter_rows()}
    return {source: {holder: counted.get((source, holder), 0) for holder in sources} for source in sources}
