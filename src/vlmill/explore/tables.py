"""The tables of a run's partitions as far as they are there, also of a run that is being built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.names import INDEX_SUFFIX, LENGTHS_SUFFIX, SAMPLES_FILE, SCORES_SUFFIX, name_verdicts
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.partition_tables import (
    PartitionTables,
    list_filtered_tables,
    list_raw_tables,
    list_tables_with_stats,
    list_written_tables,
)
from vlmill.pipeline.engine.store import File
from vlmill.pipeline.recipe.schema import Recipe

RENDER = "render"


@dataclass(frozen=True)
class IndexedPartition:
    """One partition with what is there of it."""

    source: str
    name: str
    tables: Mapping[str, Path]  # by name, with the tables of signals
    verdicts: Mapping[str, Path] | None  # filter -> verdicts in the order of attribution; None: not all are there
    shards: tuple[tuple[Path, Path], ...]  # index and lengths of each shard under the source's first policy


def list_indexed_partitions(root: Path, recipe: Recipe) -> list[IndexedPartition]:
    """The partitions of all sources that are read, in the order of sources and partitions."""
    return [partition for source in sorted(recipe.sources) for partition in _list_of_source(root, recipe, source)]


def _list_of_source(root: Path, recipe: Recipe, source: str) -> Iterator[IndexedPartition]:
    tables, complete = _list_tables(root, recipe, source)
    scores = [_read_files(root, f"steps/{source}/{name}") for name in recipe.signals]
    policy = next(iter(recipe.list_policies(source)), "")
    rendered = _read_files(root, f"shards/{source}/{policy}") if policy else {}
    lengths = _read_files(root, f"shards/{source}/{policy}/lengths") if policy else {}
    for at in tables:
        paths = at.paths(root)
        for found in scores:
            paths |= {
                file.name: root / file.path for file in found.get(at.partition, ()) if file.name.endswith(SCORES_SUFFIX)
            }
        drawn = {file.name: root / file.path for file in rendered.get(at.partition, ())}
        verdicts = {name: paths[name_verdicts(name)] for name in recipe.all_verdict_steps()} if complete else None
        if verdicts is not None and name_verdicts(RENDER) in drawn:
            verdicts[RENDER] = drawn[name_verdicts(RENDER)]
        measured = {file.name: root / file.path for file in lengths.get(at.partition, ())}
        shards = tuple(
            (path, measured[length])
            for name, path in sorted(drawn.items())
            if name.endswith(INDEX_SUFFIX) and (length := name.removesuffix(INDEX_SUFFIX) + LENGTHS_SUFFIX) in measured
        )
        yield IndexedPartition(source, at.partition, paths, verdicts, shards)


def _list_tables(root: Path, recipe: Recipe, source: str) -> tuple[list[PartitionTables], bool]:
    """The most of a source's tables that there is, and whether all filters and dedupe are through."""
    with suppress(StoreError):
        return list_filtered_tables(root, recipe, source), True
    for list_some in (list_tables_with_stats, list_written_tables, list_raw_tables):
        with suppress(StoreError):
            return list_some(root, recipe, source), False
    return [], False


def _read_files(root: Path, folder: str) -> dict[str, tuple[File, ...]]:
    """The files of a step by partition; none where it is not through."""
    with suppress(StoreError):
        return {receipt.partition: receipt.files for receipt in read_manifest(root, folder)}
    return {}


def read_sample_names(partition: IndexedPartition) -> pl.DataFrame:
    """`file row page` of every sample, in order."""
    return pl.read_parquet(partition.tables[SAMPLES_FILE], columns=["file", "row", "page"], glob=False)


def count_sample_tokens(partition: IndexedPartition) -> pl.DataFrame:
    """`file row page tokens` of the samples that are in shards: text and visual tokens under the first policy."""
    parts = [
        pl.scan_parquet(index, glob=False)
        .select("row", "file", "input_row", "page")
        .join(pl.scan_parquet(lengths, glob=False).select("row", tokens=pl.col("text") + pl.col("visual")), on="row")
        .select("file", pl.col("page"), "tokens", row=pl.col("input_row"))
        for index, lengths in partition.shards
    ]
    return pl.concat(parts).collect() if parts else pl.DataFrame()
