"""What is kept in place of a duplicate that was lost: the report page shows it beside what was lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import polars as pl

from vlmill.pipeline.core.names import IMAGE_STATS_FILE, SAMPLES_FILE
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, ImageStats, Sample, SampleId, read_image_stats, read_samples
from vlmill.pipeline.engine.partition_tables import list_filtered_tables
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.losses import EXCERPT, Loss
from vlmill.pipeline.steps.image_bytes import Pictures

COMPARED = 4000
"""Characters of a text that are compared, to find the text that is most alike."""


@dataclass(frozen=True, slots=True)
class Keeper:
    """The sample that is kept for something that was lost, and what of it is most like that."""

    picture: bytes | None  # of the image whose perceptual hash is nearest
    text: str  # the beginning of the text that is most alike


def read_keepers(root: Path, recipe: Recipe, losses: Iterable[Loss]) -> Iterator[tuple[Loss, Keeper]]:
    """The keeper of each loss that names one, in the order of the run's tables.

    Benchmark items, which contaminated samples name, are no samples of the run and have none.

    Raises:
        StoreError: a source is not read to its end.
    """
    wanted = defaultdict[SampleId, list[Loss]](list)
    for loss in losses:
        if (name := _parse_id(loss.other)) is not None and name.source in recipe.sources:
            wanted[name].append(loss)
    hashes = _read_hashes(root, recipe, [loss for found in wanted.values() for loss in found])
    for source in sorted({name.source for name in wanted}):
        names = {name for name in wanted if name.source == source}
        for tables in list_filtered_tables(root, recipe, source, steps=()):
            yield from _read_of_partition(tables.paths(root), names, wanted, hashes)


def _parse_id(text: str) -> SampleId | None:
    try:
        return SampleId.parse(text)
    except ValueError:
        return None


def _read_hashes(root: Path, recipe: Recipe, losses: Sequence[Loss]) -> dict[tuple[str, int], int]:
    """The perceptual hash of what each loss shows, by its sample and node."""
    by_partition = defaultdict[tuple[str, str], list[Loss]](list)
    for loss in losses:
        if loss.image is not None:
            by_partition[loss.source, loss.partition].append(loss)
    found = dict[tuple[str, int], int]()
    for source in sorted({source for source, _ in by_partition}):
        for tables in list_filtered_tables(root, recipe, source, steps=()):
            if mine := by_partition.get((source, tables.partition)):
                stats = read_image_stats(tables.paths(root)[IMAGE_STATS_FILE], ("phash",))
                found |= {(loss.id, loss.node): stats[loss.image].phash for loss in mine if loss.image is not None}
    return found


def _read_of_partition(
    paths: Mapping[str, Path],
    names: set[SampleId],
    wanted: Mapping[SampleId, Sequence[Loss]],
    hashes: Mapping[tuple[str, int], int],
) -> Iterator[tuple[Loss, Keeper]]:
    rows = _find_rows(paths[SAMPLES_FILE], names)
    if not rows:
        return
    stats, pictures = read_image_stats(paths[IMAGE_STATS_FILE], ("phash",)), Pictures(paths)
    for row, sample in enumerate(read_samples(paths[SAMPLES_FILE])):
        if row in rows:
            for loss in wanted[sample.id]:
                image = _choose_image(sample, stats, hashes.get((loss.id, loss.node)))
                yield loss, Keeper(None if image is None else pictures.read(image), choose_text(sample, loss))


def _find_rows(path: Path, names: set[SampleId]) -> set[int]:
    """The rows of samples of these names."""
    keys = pl.LazyFrame(
        {name: [getattr(one, name) for one in sorted(names)] for name in ("file", "row", "page")},
        schema={"file": pl.String, "row": pl.Int64, "page": pl.Int32},
    )
    table = pl.scan_parquet(path, glob=False).select("file", pl.col("row").cast(pl.Int64), "page").with_row_index("at")
    return set(table.join(keys, on=["file", "row", "page"], how="semi").collect()["at"])


def _choose_image(sample: Sample, stats: Sequence[ImageStats], wanted: int | None) -> int | None:
    """The image of a sample that is most like a perceptual hash; None where it has none, or nothing is asked for."""
    images = [node.image for node in sample.nodes if node.image is not None and stats[node.image].reason is None]
    if wanted is None or not images:
        return None
    return min(images, key=lambda image: ((stats[image].phash ^ wanted).bit_count(), image))


def choose_text(sample: Sample, loss: Loss) -> str:
    """The beginning of the text of a sample, or of its node that is most like what was lost; pure."""
    texts = [node.text for node in sample.nodes if node.text]
    if not (texts and loss.text):
        return ""
    if loss.node == WHOLE_SAMPLE:
        best = "\n".join(texts)
    else:
        alike = [SequenceMatcher(None, text[:COMPARED], loss.text, autojunk=True).quick_ratio() for text in texts]
        best = texts[alike.index(max(alike))]
    return best[:EXCERPT] + ("..." if len(best) > EXCERPT else "")
