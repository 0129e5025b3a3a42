"""Step `contamination`: what of a partition stands in a benchmark.

Findings alone: another step makes verdicts of them.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from vlmill.pipeline.core.names import IMAGE_STATS_FILE, SAMPLES_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    ImageStats,
    Sample,
    read_image_stats,
    read_rows,
    read_samples,
    write_rows,
)
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.decontaminate.index import FOLDER, Benchmarks, read_index
from vlmill.pipeline.decontaminate.texts import Passage, Search, split_passages
from vlmill.pipeline.dedupe.picture import collect_pictures

SAMPLES_AT_ONCE = 256

FINDINGS = pa.schema(
    [
        pa.field("sample", pa.int32(), nullable=False),  # row in samples.parquet
        pa.field("node", pa.int32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # image or text
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),  # the id of the benchmark's sample
        pa.field("score", pa.float32(), nullable=False),  # similarity, or share of telling words, to 4 decimals
        pa.field("id", pa.string(), nullable=False),  # of the training sample
    ]
)
"""Sorted by all columns."""


@dataclass(frozen=True, order=True)
class ContaminationFinding:
    """A row of FINDINGS."""

    sample: int
    node: int
    kind: Literal["image", "text"]
    benchmark: str
    item: str
    score: float
    id: str


@dataclass(frozen=True)
class FindContamination:
    """Step: the findings of a partition. Pure. Leaves `contamination.parquet`.

    Counts samples that were looked at, and those with a finding by image and by text. Nothing is dropped here.
    """

    name: ClassVar[str] = "contamination"
    version: ClassVar[int] = 5
    pure: ClassVar[bool] = True

    image: float  # similarity from which pictures are the same
    text: float  # share of a question's telling words from which it is the same
    mirror: bool = False  # whether a mirrored picture is the same

    @property
    def reads(self) -> tuple[str, ...]:
        """Samples, image stats and the index."""
        return (SAMPLES_FILE, IMAGE_STATS_FILE, f"{FOLDER}/*")

    def made_by(self) -> Mapping[str, str]:
        """The libraries that calculate and write, and what says which characters are letters."""
        libraries = {library: version(library) for library in ("numpy", "pillow", "pyarrow")}
        return {**libraries, "unicode": unicodedata.unidata_version}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Look at the pictures, then at the texts, a batch of samples in memory."""
        benchmarks, image_stats = read_index(inputs), read_image_stats(inputs[IMAGE_STATS_FILE])
        seen = _match_images(benchmarks, image_stats, self.image, mirror=self.mirror)
        search = Search(benchmarks, self.text)
        looked, findings = 0, list[ContaminationFinding]()
        samples = enumerate(read_samples(inputs[SAMPLES_FILE]))
        while batch := list(islice(samples, SAMPLES_AT_ONCE)):
            findings += sorted(_find_contamination(batch, benchmarks, image_stats, seen, search))
            looked += len(batch)
        write_rows(folder / "contamination.parquet", FINDINGS, (asdict(finding) for finding in findings))
        by_kind = {kind: len({finding.sample for finding in findings if finding.kind == kind}) for kind in REASONS}
        counts = {"held_against_benchmarks": looked, **{f"found_by_{kind}": number for kind, number in by_kind.items()}}
        return {name: Count(number, number) for name, number in counts.items()}


REASONS = {"image": Reason.CONTAMINATED_IMAGE, "text": Reason.CONTAMINATED_TEXT}


def read_findings(path: Path) -> Iterator[ContaminationFinding]:
    """The findings of a partition, in order."""
    for row in read_rows(path):
        yield ContaminationFinding(**row)


Seen = Mapping[int, Mapping[int, float]]
"""Image of the partition -> picture of a benchmark -> how similar they are."""


def _match_images(benchmarks: Benchmarks, image_stats: Sequence[ImageStats], floor: float, *, mirror: bool) -> Seen:
    """Which images show which pictures: the same file, or one like it."""
    shown = [stats for stats in image_stats if stats.reason is None]
    seen = defaultdict[int, dict[int, float]](dict)
    pictures = collect_pictures(shown)
    for row in np.flatnonzero(~pictures.flat).tolist():
        if shown[row].sha256 in benchmarks.by_sha256:
            seen[shown[row].image] |= dict.fromkeys(benchmarks.by_sha256[shown[row].sha256], 1.0)
    for row, other, similarity in benchmarks.gallery.alike(pictures, floor, mirror=mirror):
        if not benchmarks.common[other]:
            seen[shown[row].image].setdefault(other, similarity)
    return dict(seen)


def _find_contamination(
    batch: Sequence[tuple[int, Sample]],
    benchmarks: Benchmarks,
    image_stats: Sequence[ImageStats],
    seen: Seen,
    search: Search,
) -> Iterator[ContaminationFinding]:
    """The findings of some samples, in any order."""
    names = {row: str(sample.id) for row, sample in batch}
    spoken, shown = list[Passage](), list[frozenset[int] | None]()

    def finding(row: int, node: int, kind: Literal["image", "text"], item: int, score: float) -> ContaminationFinding:
        asked = benchmarks.items[item]
        return ContaminationFinding(row, node, kind, asked.benchmark, asked.id, round(score, 4), names[row])

    for row, sample in batch:
        images = {index: node.image for index, node in enumerate(sample.nodes) if node.image is not None}
        pictures = {index: seen.get(image, {}) for index, image in images.items()}
        for index, found in pictures.items():
            for item, score in _group_by_item(benchmarks, found).items():
                yield finding(row, index, "image", item, score)
        own = list(split_passages(row, sample, benchmarks))
        for item in sorted({item for found in pictures.values() for item in _group_by_item(benchmarks, found)}):
            for node in sorted({node for passage in own for node in search.asks(passage, benchmarks.items[item])}):
                yield finding(row, node, "text", item, 1.0)
        spoken += own
        there = any(image_stats[image].reason is None for image in images.values())
        shown += [frozenset(p for found in pictures.values() for p in found) if there else None] * len(own)
    for hit in search.hits(spoken, shown):
        for node in hit.nodes:
            yield finding(spoken[hit.passage].sample, node, "text", hit.item, hit.score)


def _group_by_item(benchmarks: Benchmarks, found: Mapping[int, float]) -> dict[int, float]:
    """The items about pictures, and the best similarity to one of each."""
    best = dict[int, float]()
    for shown, similarity in found.items():
        for item in benchmarks.items_of[shown]:
            best[item] = max(similarity, best.get(item, 0.0))
    return best
