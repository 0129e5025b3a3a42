"""Pictures that a stage both holds out and trains on, from its lock and the lineage beside its shards.

A part of the stage's notes. What select holds out together shares none; these are the pictures that other sources show,
and those of parts of a source that were divided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vlmill.mixtures import get_lineage_path, get_source
from vlmill.pipeline.shards.lineage import list_pictures, parse_picture_keys


@dataclass(frozen=True, slots=True)
class SharedPictures:
    """Held-out samples that show a picture which is trained on."""

    samples: int  # in all
    same: Mapping[str, int]  # to the byte: by the source that trains on it
    near: Mapping[str, int]  # nearly the same, and none of `same` there


def find_shared_pictures(root: Path, lock: Mapping[str, Any], held_out: Path, near: np.ndarray) -> SharedPictures:
    """The held-out samples that show a picture which a sample of the stage shows that is not held out.

    Args:
        root: the run's folder.
        lock: of a stage.
        held_out: its table of held-out samples.
        near: pairs of pictures that count as nearly the same, (n, 2) heads of their sha256.
    """
    places = _list_places(lock)
    out = pl.read_parquet(held_out, glob=False).join(places, on=("source", "shard")).select("path", "row")
    if not out.height:
        return SharedPictures(0, {}, {})
    shown = pl.concat(_read_pictures(root, path) for path in places["path"].unique(maintain_order=True))
    kept_out = shown.join(out, on=("path", "row"), how="semi")
    trained = shown.join(out, on=("path", "row"), how="anti").select("key", by="name").unique()
    ends = {"key": np.concatenate([near[:, 0], near[:, 1]]), "like": np.concatenate([near[:, 1], near[:, 0]])}
    pairs = pl.DataFrame(ends, schema={"key": pl.UInt64, "like": pl.UInt64})
    same = kept_out.join(trained, on="key").select("path", "row", "by").unique()
    alike = kept_out.join(pairs, on="key").drop("key").rename({"like": "key"}).join(trained, on="key")
    alike = alike.select("path", "row", "by").unique().join(same, on=("path", "row", "by"), how="anti")
    both = pl.concat([same, alike]).select("path", "row").n_unique()
    return SharedPictures(both, *(dict(found.group_by("by").len().rows()) for found in (same, alike)))


def _list_places(lock: Mapping[str, Any]) -> pl.DataFrame:
    """`source`, `shard` and `path` of every shard of a stage, as its plan numbers them."""
    rows = [
        (source, shard, found["path"])
        for source, entry in enumerate(lock["sources"])
        for shard, found in enumerate(entry["shards"])
    ]
    return pl.DataFrame(rows, schema={"source": pl.Int16, "shard": pl.Int32, "path": pl.String}, orient="row")


def _read_pictures(root: Path, path: str) -> pl.DataFrame:
    """`path`, `row`, `key` and `name` (the source) of the pictures that a shard shows."""
    found = list_pictures(pl.scan_parquet(root / get_lineage_path(path), glob=False)).collect()
    key = pl.Series("key", parse_picture_keys(found["sha256"]), dtype=pl.UInt64)
    return found.select("row").with_columns(key, path=pl.lit(path), name=pl.lit(get_source(path)))
