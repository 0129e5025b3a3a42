"""How many pairs of samples whose texts dedupe found alike stayed in shards, by their sources.

A part of the stage's notes and of the page. In blocks of pairs, so that memory does not grow with the run: the texts of
a block are looked for in some partitions after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from vlmill.pipeline.core.checked import check_hash
from vlmill.pipeline.core.names import INDEX_SUFFIX, OUTLINE_FILE
from vlmill.pipeline.engine.chain import read_manifest

PLACE = ("file", "row", "page")
"""What tells samples of a source apart."""

BLOCK = 1 << 20
"""Pairs whose texts are looked for in one pass over the partitions."""

ROWS = 1 << 16
"""Pairs that are read at a time."""

PARTITIONS = 16
"""Of which tables are read at once."""


@dataclass(frozen=True, slots=True)
class _SomePartitions:
    """Partitions of a source: their outlines, and the indices of their shards."""

    source: str
    outlines: tuple[Path, ...]
    indices: tuple[Path, ...]


def count_alike(root: Path, policies: Mapping[str, str], block: int = BLOCK) -> dict[tuple[str, str], int]:
    """Pairs of samples in shards whose texts dedupe found alike, by their sources.

    They are under its threshold or were spared by it.

    Sources stand in the order of their names; pairs of none are left out. Empty where the run has measured nothing.

    Args:
        root: the run's folder.
        policies: of each source under which policy its samples are looked for.
        block: pairs that are looked at together.
    """
    if not (root / "steps/dedupe/pairs/manifest.json").exists():
        return {}
    pairs = list_checked_files(root, "steps/dedupe/pairs", "text.pairs.parquet")
    partitions = [some for source, policy in policies.items() for some in _list_partitions(root, source, policy)]
    counts = Counter[tuple[str, str]]()
    for ends in _read_pairs(pairs, block) if partitions else ():
        keys = pl.concat([ends["one"], ends["other"]]).unique().to_frame("text")
        texts = pl.concat([_count_texts(some, keys) for some in partitions])
        texts = texts.group_by("text", "source").agg(pl.col("samples").sum())
        found = ends.join(texts, left_on="one", right_on="text").join(
            texts, left_on="other", right_on="text", suffix="_other"
        )
        both = found.group_by("source", "source_other").agg(number=(pl.col("samples") * pl.col("samples_other")).sum())
        for one, other, number in both.rows():
            counts[min(one, other), max(one, other)] += number
    return {pair: counts[pair] for pair in combinations_with_replacement(sorted(policies), 2) if pair in counts}


def list_checked_files(root: Path, folder: str, name: str) -> list[Path]:
    """The files of a complete step whose names end in `name`, hashed."""
    return [
        check_hash(root / file.path, file.sha256)
        for receipt in read_manifest(root, folder)
        for file in receipt.files
        if file.name.endswith(name)
    ]


def _list_partitions(root: Path, source: str, policy: str) -> Iterator[_SomePartitions]:
    """The partitions of a source that have shards, some at a time."""
    outlines = _group_files(root, f"steps/{source}/signature", OUTLINE_FILE)
    indices = {
        name: paths for name, paths in _group_files(root, f"shards/{source}/{policy}", INDEX_SUFFIX).items() if paths
    }
    listed = sorted(indices)
    for start in range(0, len(listed), PARTITIONS):
        names = listed[start : start + PARTITIONS]
        read, shards = ([path for name in names for path in found[name]] for found in (outlines, indices))
        yield _SomePartitions(source, tuple(read), tuple(shards))


def _group_files(root: Path, folder: str, name: str) -> dict[str, list[Path]]:
    """The same by partition."""
    return {
        receipt.partition: [
            check_hash(root / file.path, file.sha256) for file in receipt.files if file.name.endswith(name)
        ]
        for receipt in read_manifest(root, folder)
    }


def _read_pairs(paths: Sequence[Path], block: int) -> Iterator[pl.DataFrame]:
    """`one` and `other` of all pairs, in blocks of `block` or a few more, but for the last."""
    waiting = list[pl.DataFrame]()
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(min(block, ROWS), columns=["one", "other"]):
                waiting.append(pl.DataFrame(batch))
                if sum(part.height for part in waiting) >= block:
                    yield pl.concat(waiting)
                    waiting = []
    if waiting:
        yield pl.concat(waiting)


def _count_texts(some: _SomePartitions, keys: pl.DataFrame) -> pl.DataFrame:
    """`source`, `text` and in how many `samples` of shards it stands, of the texts among `keys`."""
    kept = pl.scan_parquet(list(some.indices), glob=False).select("file", pl.col("input_row").alias("row"), "page")
    texts = pl.scan_parquet(list(some.outlines), glob=False).filter("long").select(*PLACE, "text")
    texts = texts.join(keys.lazy(), on="text", how="semi").join(kept, on=PLACE, how="semi")
    counted = texts.group_by("text").agg(samples=pl.len().cast(pl.Int64))
    return counted.select(pl.lit(some.source).alias("source"), "text", "samples").collect()
