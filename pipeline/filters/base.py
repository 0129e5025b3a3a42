"""The step around any filter: reads a partition, writes what the filter wants dropped.

A filter looks at samples (and, if it asks, at what is known about their images) and yields verdicts; it changes
nothing. What follows from a verdict, for turns, required images and empty samples, is `pipeline/verdicts/apply.py`'s
business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar, Protocol, TypeGuard, runtime_checkable

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmill.pipeline.core.meter import note_work
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, SAMPLES_FILE, name_verdicts
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    LEAST_IMAGES,
    WHOLE_SAMPLE,
    ImageStats,
    Sample,
    SampleId,
    Verdict,
    read_image_stats,
    read_samples,
    write_verdicts,
)
from vlmill.pipeline.core.step import Count, Counts, Inputs


@dataclass(frozen=True, slots=True)
class Undecided:
    """What a filter could not decide about a sample or one of its nodes.

    It is counted, and dropped only if a verdict says so too.
    """

    sample: int  # row in samples.parquet
    node: int  # index into Sample.nodes, or WHOLE_SAMPLE


Finding = Verdict | Undecided


def take_sources(samples: Iterable[tuple[int, Sample]], sources: Sequence[str]) -> Iterator[tuple[int, Sample]]:
    """The samples of these sources: names, or patterns such as `cauldron-*`; of all where none is named."""
    for row, sample in samples:
        if not sources or any(fnmatchcase(sample.id.source, name) for name in sources):
            yield row, sample


class Filter(Protocol):
    """A frozen dataclass whose fields are its parameters."""

    @property
    def name(self) -> str:
        """What recipes, verdicts and folders call it; a ClassVar for all but custom filters."""
        ...

    @property
    def version(self) -> int:
        """Raised whenever the same samples and parameters give other verdicts."""
        ...

    @property
    def image_stats(self) -> tuple[str, ...]:
        """Columns of image_stats.parquet it looks at; with none it need not wait for images."""
        ...

    def made_by(self) -> Mapping[str, str]:
        """What else decides its verdicts: library versions, the sha256 of a model."""
        ...

    def decide(self, samples: Iterable[tuple[int, Sample]], image_stats: Sequence[ImageStats]) -> Iterator[Finding]:
        """Verdicts on `samples`, which come with their rows, in any order; at most one per sample and node.

        Pure. What it says about a sample depends on that sample alone, so partitions can be cut anywhere, and it holds
        no more than a batch of samples. `image_stats` is indexed by `Node.image` and has the columns asked for.
        """
        ...


@runtime_checkable
class ReadsLists(Filter, Protocol):
    """A filter that needs files which the recipe names. What is in them is in the key; where they lie is not."""

    @property
    def lists(self) -> Mapping[str, str]:
        """Name of the input -> path, as the recipe has it."""
        ...

    def opened(self, paths: Mapping[str, Path]) -> Filter:
        """The filter, with its lists to be read from these places."""
        ...


class ReadsTables(Filter, Protocol):
    """A filter that looks at further tables of a partition, such as those of signals. They are in the key.

    It is given samples without their nodes: what it knows of these stands in its tables.
    """

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of files; those that are there are read."""
        ...

    def opened(self, paths: Mapping[str, Path]) -> Filter:
        """The filter over these tables."""
        ...


def reads_tables(filter_: Filter) -> TypeGuard[ReadsTables]:
    """Whether a filter looks at further tables. No property of it is asked: a custom filter may not be run for that."""
    return hasattr(type(filter_), "tables")


@dataclass(frozen=True)
class FilterStep:
    """samples.parquet, and image_stats.parquet if the filter looks at images -> `<name>.verdicts.parquet`.

    Counts nodes under `filtered` (a verdict on a sample loses all of its nodes) and doubtful ones under `undecided`.
    """

    filter: Filter
    pure: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The filter's own."""
        return self.filter.name

    @property
    def version(self) -> int:
        """The filter's own."""
        return self.filter.version

    @property
    def reads(self) -> tuple[str, ...]:
        """Samples, image stats if the filter asks for any, and the lists it needs."""
        lists = tuple(self.filter.lists) if isinstance(self.filter, ReadsLists) else ()
        tables = self.filter.tables if reads_tables(self.filter) else ()
        return (SAMPLES_FILE, *((IMAGE_STATS_FILE,) if self.filter.image_stats else ()), *lists, *tables)

    def made_by(self) -> Mapping[str, str]:
        """The filter's own."""
        return self.filter.made_by()

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Filter a partition; memory grows only with the verdicts and the image stats that the filter needs."""
        sizes: list[int] = []

        def noted() -> Iterator[tuple[int, Sample]]:
            read = _read_outlines if reads_tables(self.filter) else _read_whole
            for row, (sample, size) in enumerate(read(inputs[SAMPLES_FILE])):
                sizes.append(size)
                if size or not sample.taken_down:
                    yield row, sample

        image_stats = list[ImageStats]()
        if self.filter.image_stats:
            image_stats = read_image_stats(inputs[IMAGE_STATS_FILE], self.filter.image_stats)
        filter_ = self.filter
        if isinstance(filter_, ReadsLists):
            filter_ = filter_.opened({name: inputs[name] for name in filter_.lists})
        if reads_tables(filter_):
            filter_ = filter_.opened({name: inputs[name] for name in filter_.tables if name in inputs})
        findings = list[Verdict | Undecided]()
        for finding in filter_.decide(noted(), image_stats):
            findings.append(finding)
            if isinstance(finding, Verdict) and finding.node != LEAST_IMAGES:
                note_work(dropped=1)
        verdicts = [finding for finding in findings if isinstance(finding, Verdict)]
        write_verdicts(folder / name_verdicts(self.name), verdicts)
        return _count_verdicts(sizes, verdicts, [finding for finding in findings if isinstance(finding, Undecided)])


def _read_whole(path: Path) -> Iterator[tuple[Sample, int]]:
    """Samples with the number of their nodes, 0 for one that was taken down."""
    for sample in read_samples(path):
        yield sample, 0 if sample.taken_down else len(sample.nodes)


def _read_outlines(path: Path) -> Iterator[tuple[Sample, int]]:
    """The same without their nodes, in a fifth of the time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(
            columns=[*SampleId._fields, "nodes.list.element.text", "nodes.list.element.image"]
        ):
            nodes = batch["nodes"].flatten()
            there = pc.or_(nodes.field("text").is_valid(), nodes.field("image").is_valid()).to_numpy(
                zero_copy_only=False
            )
            ends = batch["nodes"].offsets.to_numpy() - batch["nodes"].offsets[0].as_py()
            left = np.concatenate([[0], np.cumsum(there)])[ends]
            names = zip(*(batch[name].to_pylist() for name in SampleId._fields), strict=True)
            for name, size, held in zip(names, np.diff(ends).tolist(), np.diff(left).tolist(), strict=True):
                yield Sample(SampleId(*name), ()), size if held else 0


def _count_verdicts(sizes: Sequence[int], verdicts: Sequence[Verdict], doubts: Sequence[Undecided]) -> Counts:
    filtered, undecided = Count(), Count()
    lost: dict[tuple[int, int], Reason] = {}
    for verdict in verdicts:
        if verdict.node == LEAST_IMAGES:
            continue  # a condition, which drops nothing yet
        nodes = range(sizes[verdict.sample]) if verdict.node == WHOLE_SAMPLE else (verdict.node,)
        lost.update({(verdict.sample, node): verdict.reason for node in nodes if (verdict.sample, node) not in lost})
    for reason in lost.values():
        filtered.lose(reason)
    filtered.keep(sum(sizes) - len(lost))
    for doubt in doubts:
        reason_or_none = lost.get((doubt.sample, doubt.node))
        undecided.lose(reason_or_none) if reason_or_none else undecided.keep()
    return {"filtered": filtered, "undecided": undecided}
