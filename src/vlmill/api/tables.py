"""The tables of a run as polars frames, a partition after the other. Nothing is read before a frame is collected.

Every frame begins with `source` and `partition`; samples, images and verdicts have the numbers by which they name each
other (`sample`, `image`), which count within a partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import polars as pl
import pyarrow as pa

from vlmill.pipeline.core.names import SAMPLES_FILE, name_detections, name_embeddings, name_scores
from vlmill.pipeline.core.sample import IMAGE_STATS, IMAGES, NO_PAGE, REFUSED, SAMPLES, VERDICTS, WRITTEN_SAMPLES
from vlmill.pipeline.decontaminate.contamination import FINDINGS
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.partition_tables import (
    PartitionTables,
    list_filtered_tables,
    list_raw_tables,
    list_tables_with_stats,
    list_written_tables,
)
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.funnel import LevelCounts
from vlmill.pipeline.reports.overlap import SourceOverlap

SAMPLE_ID = pl.format("{}/{}#{}", "source", "file", "row") + pl.when(pl.col("page") == NO_PAGE).then(
    pl.lit("")
).otherwise(pl.format(".{}", "page"))
"""The text of a `SampleId`, of its four columns."""

PLACE = {"source": pl.String, "partition": pl.String}
OVERLAP = {
    "content": pl.String,
    "source": pl.String,
    "size": pl.Int64,
    "other": pl.String,
    "exact": pl.Int64,
    "near": pl.Int64,
}
FUNNEL = {"source": pl.String, "level": pl.String, "outcome": pl.String, "reason": pl.String, "count": pl.Int64}


def scan_samples(root: Path, recipe: Recipe, sources: Iterable[str], *, raw: bool = False) -> pl.LazyFrame:
    """`source partition sample id`, and the columns of samples.parquet; `raw` is without what models wrote."""
    list_tables = list_raw_tables if raw else list_written_tables
    found = (
        _mark(at, pl.scan_parquet(_path(root, at, SAMPLES_FILE), row_index_name="sample", glob=False))
        for source in sources
        for at in list_tables(root, recipe, source)
    )
    schema = WRITTEN_SAMPLES if recipe.list_writers() and not raw else SAMPLES
    frame = _join(found, schema, "sample")
    first = ("source", "partition", "sample", "id")
    return frame.with_columns(pl.col("sample").cast(pl.Int32), id=SAMPLE_ID).select(*first, pl.exclude(*first))


def scan_images(root: Path, recipe: Recipe, sources: Iterable[str]) -> pl.LazyFrame:
    """`source partition`, and the columns of images.parquet; what a retry fetched replaces what failed before."""
    found = (
        _mark(at, scan_partition_images(at.paths(root)))
        for source in sources
        for at in list_raw_tables(root, recipe, source)
    )
    return _join(found, IMAGES)


def scan_partition_images(paths: Mapping[str, Path]) -> pl.LazyFrame:
    """The images of one partition in their order: the rows that `read_images` gives."""
    images = pl.scan_parquet(paths["images.parquet"], glob=False)
    if "supplement.parquet" not in paths:
        return images
    later = pl.scan_parquet(paths["supplement.parquet"], glob=False)
    return pl.concat([images.join(later, on="image", how="anti"), later]).sort("image")


def scan_image_stats(root: Path, recipe: Recipe, sources: Iterable[str]) -> pl.LazyFrame:
    """`source partition`, and the columns of image_stats.parquet."""
    found = (
        _mark(at, pl.scan_parquet(_path(root, at, "image_stats.parquet"), glob=False))
        for source in sources
        for at in list_tables_with_stats(root, recipe, source)
    )
    return _join(found, IMAGE_STATS)


def scan_scores(root: Path, sources: Iterable[str], signal: str) -> pl.LazyFrame:
    """`source partition`, and the columns of a signal's table."""
    return _scan_signal(root, sources, signal, (name_scores(signal), name_embeddings(signal)))


def scan_detections(root: Path, sources: Iterable[str], signal: str) -> pl.LazyFrame:
    """`source partition`, and the columns of the table of what a signal found in images."""
    return _scan_signal(root, sources, signal, (name_detections(signal),))


def _scan_signal(root: Path, sources: Iterable[str], signal: str, names: Sequence[str]) -> pl.LazyFrame:
    return pl.concat(
        _mark(PartitionTables(source, receipt.partition, {}, ()), pl.scan_parquet(root / file.path, glob=False))
        for source in sources
        for receipt in read_manifest(root, f"steps/{source}/{signal}")
        for file in receipt.files
        if file.name in names
    )


def scan_verdicts(root: Path, recipe: Recipe, sources: Iterable[str], steps: Sequence[str]) -> pl.LazyFrame:
    """`source partition`, and the columns of verdict tables of some steps, in the order in which these count."""
    found = (
        _mark(at, pl.scan_parquet(_path(root, at, f"{name}.verdicts.parquet"), glob=False))
        for source in sources
        for at in list_filtered_tables(root, recipe, source, steps)
        for name in steps
    )
    return _join(found, VERDICTS)


def scan_findings(root: Path, sources: Iterable[str]) -> pl.LazyFrame:
    """`source partition`, and the columns of contamination.parquet."""
    found = (
        _mark(PartitionTables(source, receipt.partition, {}, ()), pl.scan_parquet(root / file.path, glob=False))
        for source in sources
        for receipt in read_manifest(root, f"steps/{source}/contamination")
        for file in receipt.files
    )
    return _join(found, FINDINGS)


def scan_refused(root: Path, recipe: Recipe, sources: Iterable[str]) -> pl.LazyFrame:
    """`source partition id`, and the columns of refused.parquet."""
    found = (
        _mark(at, pl.scan_parquet(_path(root, at, "refused.parquet"), glob=False))
        for source in sources
        for at in list_raw_tables(root, recipe, source)
    )
    first = ("source", "partition", "id")
    return _join(found, REFUSED).with_columns(id=SAMPLE_ID).select(*first, pl.exclude(*first))


def make_overlap(found: Iterable[SourceOverlap]) -> pl.DataFrame:
    """A row for each pair of sources and kind of content."""
    return pl.DataFrame([asdict(pair) for pair in found], OVERLAP)


def make_funnel(funnel: Mapping[str, LevelCounts]) -> pl.DataFrame:
    """A row for each number of the funnel; the counts of a source and level add up to what came in."""
    return pl.DataFrame(list(_count_outcomes(funnel)), FUNNEL, orient="row")


def _count_outcomes(funnel: Mapping[str, LevelCounts]) -> Iterator[tuple[str, str, str, str | None, int]]:
    for source, levels in funnel.items():
        for level, line in levels.items():
            yield source, level, "kept", None, line["kept"]
            for outcome in ("dropped", "failed"):
                for reason, count in line[outcome].items():
                    yield source, level, outcome, reason, count


def _path(root: Path, at: PartitionTables, name: str) -> Path:
    return root / at.files[name].path


def _mark(at: PartitionTables, frame: pl.LazyFrame) -> pl.LazyFrame:
    """A partition's frame with its place before the other columns."""
    place = frame.with_columns(source=pl.lit(at.source), partition=pl.lit(at.partition))
    return place.select("source", "partition", pl.exclude("source", "partition"))


def _join(found: Iterable[pl.LazyFrame], schema: pa.Schema, *numbers: str) -> pl.LazyFrame:
    """All frames in order; without any, an empty one of the same columns."""
    frames = list(found)
    if frames:
        return pl.concat(frames)
    columns = pl.from_arrow(schema.empty_table()).schema  # type: ignore[union-attr]
    return pl.LazyFrame(schema={**PLACE, **dict.fromkeys(numbers, pl.UInt32), **columns})
