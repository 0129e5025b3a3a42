"""Which pictures a stage both holds out and trains on, from its lock and the lineage beside its shards.

A part of the stage's notes. What select holds out together shares none; these are the pictures that other sources show,
and those of parts of a source that were divided.

In blocks of held-out samples, so that memory does not grow with the stage: what a block shows is looked for in one
shard after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from vlmill.mixtures import get_lineage_path, get_source
from vlmill.pipeline.dedupe.near_pairs import find_near_pictures
from vlmill.pipeline.shards.lineage import list_pictures, read_picture_key

BLOCK = 1 << 17
"""Held-out samples whose pictures are looked for in one pass over the shards."""

NOTHING_TRAINED = pl.DataFrame(schema={"key": pl.UInt64, "by": pl.String})


@dataclass(frozen=True, slots=True)
class SharedPictures:
    """Held-out samples that show a picture which is trained on."""

    samples: int  # in all
    same: Mapping[str, int]  # to the byte: by the source that trains on it
    near: Mapping[str, int]  # nearly the same, and none of `same` there


def find_shared_pictures(
    root: Path, lock: Mapping[str, Any], held_out: Path, pairs: Sequence[Path], threshold: float, block: int = BLOCK
) -> SharedPictures:
    """The held-out samples that show a picture which a sample of the stage shows that is not held out.

    Holds 10 bytes of each held-out sample, and the pictures of a block of them.

    Args:
        root: the run's folder.
        lock: of a stage.
        held_out: its table of held-out samples.
        pairs: the image pairs that dedupe measured; none where pictures have to be the same.
        threshold: similarity from which pictures are nearly the same.
        block: held-out samples that are looked at together.
    """
    shards, places = _list_places(lock)
    out = pl.read_parquet(held_out, glob=False).join(places, on=("source", "shard")).select("place", "row")
    held = _group_rows(out)
    both, same, near = 0, Counter[str](), Counter[str]()
    for start in range(0, out.height, block):
        kept_out = pl.concat(_read_held_out(root, shards, _group_rows(out[start : start + block])))
        like = find_near_pictures(pairs, threshold, kept_out["key"])
        wanted = pl.concat([kept_out["key"], like["like"]]).unique().to_frame("key")
        trained = pl.concat([NOTHING_TRAINED, *_find_trained(root, shards, held, wanted)])
        found = kept_out.join(trained, on="key").select("place", "row", "by").unique()
        alike = kept_out.join(like, on="key").drop("key").rename({"like": "key"}).join(trained, on="key")
        alike = alike.select("place", "row", "by").unique().join(found, on=("place", "row", "by"), how="anti")
        both += pl.concat([found, alike]).select("place", "row").n_unique()
        same.update(dict(found.group_by("by").len().rows()))
        near.update(dict(alike.group_by("by").len().rows()))
    return SharedPictures(both, dict(same), dict(near))


def _list_places(lock: Mapping[str, Any]) -> tuple[list[Mapping[str, str]], pl.DataFrame]:
    """The shards of a stage, each once, and which of these a `source` and `shard` of its plan are: `place`."""
    numbers = dict[str, int]()
    shards = {found["path"]: found for entry in lock["sources"] for found in entry["shards"]}
    rows = [
        (source, shard, numbers.setdefault(found["path"], len(numbers)))
        for source, entry in enumerate(lock["sources"])
        for shard, found in enumerate(entry["shards"])
    ]
    schema = {"source": pl.Int16, "shard": pl.Int32, "place": pl.Int32}
    return [*shards.values()], pl.DataFrame(rows, schema=schema, orient="row")


def _group_rows(out: pl.DataFrame) -> dict[int, pl.DataFrame]:
    """Held-out samples by place, as `row`."""
    return {place: rows.select("row") for (place,), rows in out.partition_by("place", as_dict=True).items()}


def _read_held_out(
    root: Path, shards: Sequence[Mapping[str, str]], held: Mapping[int, pl.DataFrame]
) -> Iterator[pl.DataFrame]:
    """By shard `place`, `row` and `key` of the pictures that held-out samples show."""
    for place, rows in held.items():
        shown = _scan_pictures(root, shards[place]).join(rows.lazy(), on="row", how="semi")
        yield shown.select(pl.lit(place, pl.Int32).alias("place"), "row", "key").collect()


def _find_trained(
    root: Path, shards: Sequence[Mapping[str, str]], held: Mapping[int, pl.DataFrame], wanted: pl.DataFrame
) -> Iterator[pl.DataFrame]:
    """The pictures among `wanted` that samples show which are not held out: `key` and the source as `by`, each once.

    Samples of images alone are not trained on.
    """
    left = dict.fromkeys((get_source(shard["path"]) for shard in shards), wanted)  # by source: what was not found yet
    for place, shard in enumerate(shards):
        source = get_source(shard["path"])
        if left[source].is_empty():
            continue
        shown = _scan_pictures(root, shard).join(_scan_told(root, shard), on="row", how="semi")
        if place in held:
            shown = shown.join(held[place].lazy(), on="row", how="anti")
        found = shown.join(left[source].lazy(), on="key", how="semi").select("key").unique().collect()
        if found.height:
            left[source] = left[source].join(found, on="key", how="anti")
            yield found.with_columns(by=pl.lit(source))


def _scan_told(root: Path, shard: Mapping[str, str]) -> pl.LazyFrame:
    """`row` of the samples of a shard that hold a text."""
    nodes = pl.scan_parquet(root / shard["index"], glob=False).select("nodes").with_row_index("row")
    images = pl.scan_parquet(root / shard["lengths"], glob=False).select(pl.col("row").cast(pl.UInt32), "images")
    told = nodes.join(images, on="row").filter(pl.col("images") < pl.col("nodes"))
    return told.select(pl.col("row").cast(pl.Int32))


def _scan_pictures(root: Path, shard: Mapping[str, str]) -> pl.LazyFrame:
    """`row` and `key` of the pictures that a shard shows."""
    found = list_pictures(pl.scan_parquet(root / get_lineage_path(shard["path"]), glob=False))
    return found.select("row", key=read_picture_key(pl.col("sha256")))
