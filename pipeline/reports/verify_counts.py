"""The counts of every step of a source, held against what stands in its tables. Part of `verify`.

Partitions are counted in workers; what is said is in the order of steps and partitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from vlmill.pipeline.core.names import (
    IMAGES_FILE,
    INDEX_SUFFIX,
    SUPPLEMENT_FILE,
    name_embeddings,
    name_scores,
    name_verdicts,
)
from vlmill.pipeline.core.progress import Watcher
from vlmill.pipeline.core.step import Count, Counts
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.executor import Executor
from vlmill.pipeline.engine.partition_tables import PartitionTables, list_filtered_tables
from vlmill.pipeline.engine.store import Receipt, Task, total_counts
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.ordered import map_in_order
from vlmill.pipeline.steps.count_outcomes import CountOutcomes
from vlmill.pipeline.takedown.rules import LIST, TakedownList
from vlmill.pipeline.takedown.steps import match_partition
from vlmill.pipeline.verdicts.audit import FALLEN, Recount, count_read, recount_partition


def are_complete(root: Path, *folders: str) -> bool:
    """Whether all of these steps have their manifests."""
    return all((root / folder / "manifest.json").exists() for folder in folders)


@dataclass(frozen=True)
class CountedPartition:
    """What the tables of a partition come to."""

    recount: Recount
    images: int  # that have bytes
    read: Counts  # as those of step `read`
    listed: bool  # whether it holds what is to be taken down


@dataclass(frozen=True)
class CountPartition:
    """Counts a partition again; travels to workers."""

    root: Path
    steps: tuple[str, ...]  # whose verdicts count, in their order
    rules: TakedownList

    def __call__(self, tables: PartitionTables) -> CountedPartition:
        """What its tables come to."""
        paths = tables.paths(self.root)
        return CountedPartition(
            recount_partition(paths, self.steps),
            _count_images_with_bytes(paths),
            count_read(paths),
            bool(self.rules and match_partition(self.rules, paths)),
        )


@dataclass(frozen=True)
class RecountPartition:
    """Applies verdicts to a partition again; travels to workers."""

    root: Path
    steps: tuple[str, ...]

    def __call__(self, tables: PartitionTables) -> Recount:
        """What these come to."""
        return recount_partition(tables.paths(self.root), self.steps)


class CountedSource:
    """The counts of one source, and what its tables come to."""

    def __init__(self, root: Path, recipe: Recipe, source: str, executor: Executor, watcher: Watcher) -> None:
        self.root, self.recipe, self.source, self.executor = root, recipe, source, executor
        self.tables = list_filtered_tables(root, recipe, source)
        count = CountPartition(root, recipe.all_verdict_steps(), TakedownList.read(root))
        watcher.phase(f"verify: counts of {source}", len(self.tables))
        self.counted = dict(
            zip((at.partition for at in self.tables), map_in_order(executor, count, self.tables, watcher), strict=True)
        )
        self.found = {partition: counted.recount for partition, counted in self.counted.items()}

    def list_faults(self) -> Iterator[str]:
        """Every promise about this source that does not hold."""
        for tables in self.tables:
            if self.counted[tables.partition].listed:
                yield f"{tables}: holds what stands in {LIST}; the next build takes it out"
        samples = {partition: found.samples for partition, found in self.found.items()}
        pictures = {partition: counted.images for partition, counted in self.counted.items()}
        filtered = {partition: found.nodes_filtered for partition, found in self.found.items()}
        yield from self._taken_in("read", "pages", "kept", samples)
        yield from self._read()
        yield from self._taken_in("image_stats", "images_measured", "in", pictures)
        for name in self.recipe.signals:
            yield from self._scored(name)
        for filter_ in self.recipe.filters:
            yield from self._taken_in(filter_.name, "filtered", "in", filtered)
        if self.recipe.decontaminate is not None:
            yield from self._taken_in("contamination", "held_against_benchmarks", "in", samples)
        if "decontaminate" in self.recipe.verdict_steps():
            nodes = {partition: found.counts["nodes"].came for partition, found in self.found.items()}
            yield from self._taken_in("decontaminate", "decontaminated", "in", nodes)
        yield from self._outcome()
        for policy in self.recipe.list_policies(self.source):
            folder = f"shards/{self.source}/{policy}"
            if are_complete(self.root, folder):
                yield from self._rendered(folder)
            if are_complete(self.root, f"{folder}/lengths"):
                yield from self._measured(folder)

    def _read(self) -> Iterator[str]:
        """What read kept and refused, row by row and page by page, is what its tables list."""
        tables = {at.partition: at for at in self.tables}
        for receipt in read_manifest(self.root, f"steps/{self.source}/read"):
            at = tables[receipt.partition]
            for level, line in self.counted[receipt.partition].read.items():
                if line.to_json() != receipt.counts[level]:
                    yield f"{at}: read counts {level} {receipt.counts[level]}, its tables come to {line.to_json()}"

    def _scored(self, signal: str) -> Iterator[str]:
        """A signal's table has a row for each thing that it counts."""
        rows = {
            receipt.partition: sum(
                _count_rows(self.root / file.path)
                for file in receipt.files
                if file.name in (name_scores(signal), name_embeddings(signal))
            )
            for receipt in read_manifest(self.root, f"steps/{self.source}/{signal}")
        }
        yield from self._taken_in(signal, "scored", "in", rows)

    def _outcome(self) -> Iterator[str]:
        """Where verdicts were applied without shards, the counts agree.

        What was applied to other tables is of an earlier build.
        """
        folder, step = f"steps/{self.source}/outcomes", CountOutcomes(self.recipe.all_verdict_steps())
        keys = {at.partition: Task.over(at.files, folder, at.partition, step).key() for at in self.tables}
        for receipt in read_manifest(self.root, folder) if are_complete(self.root, folder) else ():
            counts = self.found[receipt.partition].counts if keys.get(receipt.partition) == receipt.key else {}
            for level, line in _select_levels(counts, receipt):
                if line.to_json() != receipt.counts[level]:
                    yield (
                        f"{folder} {receipt.partition}: counts {level} {receipt.counts[level]}, the verdicts come to "
                        f"{line.to_json()}"
                    )

    def _taken_in(self, step: str, level: str, side: str, wanted: Mapping[str, int]) -> Iterator[str]:
        """A step's counts agree with the tables, partition by partition."""
        for receipt in read_manifest(self.root, f"steps/{self.source}/{step}"):
            said = receipt.counts[level][side]
            if said != wanted[receipt.partition]:
                yield (
                    f"{self.source}/{receipt.partition}: {step} counts {said} {level} {side}, its tables have "
                    f"{wanted[receipt.partition]}"
                )

    def _rendered(self, folder: str) -> Iterator[str]:
        """Render's counts are what the verdicts come to, its own included; and its shards hold what it kept."""
        receipts, name = read_manifest(self.root, folder), name_verdicts("render")
        tables = {at.partition: at for at in self.tables}
        rendered = [_add_file(tables[receipt.partition], receipt, name) for receipt in receipts]
        recount = RecountPartition(self.root, (*self.recipe.all_verdict_steps(), "render"))
        for receipt, found in zip(receipts, map_in_order(self.executor, recount, rendered), strict=True):
            files = {file.name: self.root / file.path for file in receipt.files}
            for level, line in _select_levels(found.counts, receipt):
                if line.to_json() != receipt.counts[level]:
                    yield (
                        f"{folder} {receipt.partition}: counts {level} {receipt.counts[level]}, the verdicts come to "
                        f"{line.to_json()}"
                    )
            rows = sum(_count_rows(path) for name, path in files.items() if name.endswith(INDEX_SUFFIX))
            if rows != receipt.counts["samples"]["kept"]:
                yield (
                    f"{folder} {receipt.partition}: kept {receipt.counts['samples']['kept']} samples, its shards "
                    f"hold {rows}"
                )

    def _measured(self, folder: str) -> Iterator[str]:
        """What was rendered is what was measured, and has its signals."""
        if self.recipe.list_values() and are_complete(self.root, f"{folder}/signals"):
            scored = {found.partition: found.counts for found in read_manifest(self.root, f"{folder}/signals")}
            for receipt in read_manifest(self.root, folder):
                kept, found = receipt.counts["samples"]["kept"], scored[receipt.partition]["samples"]["in"]
                if kept != found:
                    yield f"{folder} {receipt.partition}: kept {kept} samples, {found} have signals"
        lengths = {receipt.partition: receipt.counts for receipt in read_manifest(self.root, f"{folder}/lengths")}
        for receipt in read_manifest(self.root, folder):
            for level in ("samples", "nodes"):
                kept, measured = (
                    receipt.counts[level]["kept"],
                    lengths.get(receipt.partition, {}).get(level, {"in": 0})["in"],
                )
                if kept != measured:
                    yield f"{folder} {receipt.partition}: kept {kept} {level}, measured {measured}"


def _select_levels(counts: Counts, receipt: Receipt) -> Iterator[tuple[str, Count]]:
    """The levels to compare; a receipt of before may lack those of consequences."""
    return ((level, line) for level, line in counts.items() if level in receipt.counts or level not in FALLEN)


def _add_file(tables: PartitionTables, receipt: Receipt, name: str) -> PartitionTables:
    """The tables with one more, which a receipt names."""
    return replace(tables, files=tables.files | {file.name: file for file in receipt.files if file.name == name})


def verify_dedupe(root: Path, recipe: Recipe, counted: Iterable[CountedSource]) -> Iterator[str]:
    """What the filters left of all sources is what dedupe took in."""
    if recipe.dedupe is None:
        return
    found = [found for source in counted for found in source.found.values()]
    taken = total_counts(read_manifest(root, "steps/dedupe/resolve"))
    for level, left in (
        ("deduped", sum(partition.samples_left for partition in found)),
        ("deduped_nodes", sum(partition.nodes_left for partition in found)),
    ):
        if taken[level].came != left:
            yield f"steps/dedupe/resolve: took in {taken[level].came} {level}, the filters left {left}"


def _count_images_with_bytes(paths: Mapping[str, Path]) -> int:
    """Images of a partition that have bytes, by the statistics of its tables; what a retry fetched had none before."""
    return sum(_count_filled(paths[name]) for name in (IMAGES_FILE, SUPPLEMENT_FILE) if name in paths)


def _count_filled(path: Path) -> int:
    with pq.ParquetFile(path) as file:
        column = file.schema_arrow.names.index("bytes")
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        return sum(group.num_rows - group.column(column).statistics.null_count for group in groups if group.num_rows)


def _count_rows(table: Path) -> int:
    return int(pq.read_metadata(table).num_rows)
