"""Checks everything that a run promises about its files: every sha256, every count, every lock. Reads, never writes.

Files are compared with receipts, receipts with manifests; and the counts of every step with what stands in the
tables, so that what one step kept is what the next one took in, from the rows of the input file to the samples of a
mixture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.core.keys import DIGITS, hash_file
from vlmill.pipeline.core.names import (
    IMAGES_FILE,
    INDEX_SUFFIX,
    SUPPLEMENT_FILE,
    name_embeddings,
    name_scores,
    name_verdicts,
)
from vlmill.pipeline.core.seal import find_seal_fault
from vlmill.pipeline.core.step import Count
from vlmill.pipeline.engine.chain import read_manifest, read_manifest_counts
from vlmill.pipeline.engine.partition_tables import PartitionTables, list_filtered_tables, list_raw_tables
from vlmill.pipeline.engine.store import Task, total_counts
from vlmill.pipeline.engine.workdir import EDITIONS, PINS
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.mapping import LOCK
from vlmill.pipeline.recipe.schema import Recipe, Stage
from vlmill.pipeline.steps.count_outcomes import CountOutcomes
from vlmill.pipeline.takedown.rules import LIST, TakedownList
from vlmill.pipeline.takedown.steps import match_partition
from vlmill.pipeline.verdicts.audit import count_read, recount_partition


def verify_run(root: Path) -> Iterator[str]:
    """Yield one line per broken promise; none means that the run is sound.

    Raises:
        StoreError: the folder holds no run.
    """
    recipe = read_locked_recipe(root)
    read = [name for name in recipe.sources if _are_complete(root, *_list_raw_folders(recipe, name))]
    purged = {file.path for name in read for tables in list_raw_tables(root, recipe, name) for file in tables.purged}
    broken = [
        *_verify_small_files(root),
        *(line for manifest in list_manifests(root) for line in _verify_manifest(root, manifest, purged)),
    ]
    yield from broken
    if broken:  # what is damaged is not counted
        return
    filtered = [name for name in read if _are_complete(root, *_list_filtered_folders(recipe, name))]
    counted = {name: _Counted(root, recipe, name) for name in filtered}
    for source in counted.values():
        yield from source.broken()
    if len(filtered) == len(recipe.sources):
        yield from _verify_dedupe(root, recipe, counted.values())
    for stage in recipe.stages:
        lock = root / "mixtures" / stage.name / "mixture.lock.json"
        changed = list(_verify_published(root, stage))
        yield from changed
        if lock.exists() and not changed:
            yield from _verify_mixture(root, recipe, stage, lock)


def list_manifests(root: Path) -> list[Path]:
    """Every manifest of a run, in order."""
    return sorted([*root.glob("steps/**/manifest.json"), *root.glob("shards/**/manifest.json")])


def _are_complete(root: Path, *folders: str) -> bool:
    return all((root / folder / "manifest.json").exists() for folder in folders)


def _list_raw_folders(recipe: Recipe, source: str) -> list[str]:
    steps = ("read", "fetch") if recipe.source(source).fetches else ("read",)
    return [f"steps/{source}/{step}" for step in steps]


def _list_filtered_folders(recipe: Recipe, source: str) -> list[str]:
    steps = ["image_stats", *recipe.verdict_steps(), *(["contamination"] if recipe.decontaminate is not None else [])]
    folders = [f"steps/{source}/{step}" for step in steps]
    return [*folders, *(["steps/dedupe/resolve"] if recipe.dedupe is not None else [])]


# -- files without receipts --------------------------------------------------------------------------------------------


def _verify_small_files(root: Path) -> Iterator[str]:
    """Files with their own digest, and copies of lists, whose names begin with theirs."""
    for name in (LOCK, PINS, EDITIONS):
        if (root / name).exists() and (fault := find_seal_fault(root / name)):
            yield f"{name}: {fault}; the next build with --accept-changes writes it anew"
    for path in sorted((root / "lists").glob("*.*")):
        if str(path.relative_to(root)) != EDITIONS and not hash_file(path).startswith(path.name.partition(".")[0]):
            yield f"{path.relative_to(root)}: its sha256 is not the one in its name; delete it and build again"


# -- files and receipts ------------------------------------------------------------------------------------------------


def _verify_manifest(root: Path, path: Path, purged: set[str]) -> Iterator[str]:
    """Check a manifest: its files are unchanged, what was taken down is gone, receipts balance and add up."""
    receipts, counts = read_manifest_counts(path)
    for receipt in receipts:
        for file in receipt.files:
            if file.path not in purged:
                yield from _verify_file(
                    root, file.path, file.sha256, f" {receipt.partition}.{receipt.key[:DIGITS]}.receipt.json"
                )
            elif (root / file.path).exists():
                yield f"{file.path}: holds what was taken down; the next build deletes it"
        for level, line in receipt.counts.items():
            if not Count.from_json(line).balanced():
                yield f"{path.parent.relative_to(root)} {receipt.partition}: {level} does not balance: {line}"
        written = path.parent / f"{receipt.partition}.{receipt.key[:DIGITS]}.receipt.json"
        if not _holds_json(written, receipt.to_json()):
            yield f"{written.relative_to(root)}: differs from the manifest or is missing"
    made_by = path.parent / "made_by.json"
    if made_by.exists() and receipts and not any(_holds_json(made_by, dict(receipt.made_by)) for receipt in receipts):
        yield f"{made_by.relative_to(root)}: is not what made the files beside it"
    if {level: count.to_json() for level, count in total_counts(receipts).items()} != counts:
        yield f"{path.relative_to(root)}: its counts are not the sum of its receipts"


def _holds_json(path: Path, value: Mapping[str, Any]) -> bool:
    """Whether a file holds this JSON."""
    try:
        return bool(read_json(path) == value)
    except (StoreError, FileNotFoundError):
        return False


def _verify_file(root: Path, path: str, sha256: str, receipt: str = "") -> Iterator[str]:
    """A file is there and unchanged. `receipt` names the one to delete, where there is one."""
    if not (root / path).exists():
        yield f"{path}: is missing; its receipt is{receipt}" if receipt else f"{path}: is missing"
    elif hash_file(root / path) != sha256:
        yield f"{path}: its sha256 is not the one in its receipt{receipt}"


# -- counts ------------------------------------------------------------------------------------------------------------


class _Counted:
    """The counts of one source, and what its tables come to."""

    def __init__(self, root: Path, recipe: Recipe, source: str) -> None:
        self.root, self.recipe, self.source = root, recipe, source
        self.tables = list_filtered_tables(root, recipe, source)
        self.found = {
            tables.partition: recount_partition(tables.paths(root), recipe.all_verdict_steps())
            for tables in self.tables
        }

    def broken(self) -> Iterator[str]:
        """Every promise about this source that does not hold."""
        rules = TakedownList.read(self.root)
        for tables in self.tables:
            if rules and match_partition(rules, tables.paths(self.root)):
                yield f"{tables}: holds what stands in {LIST}; the next build takes it out"
        samples = {partition: found.samples for partition, found in self.found.items()}
        pictures = {tables.partition: _count_images_with_bytes(self.root, tables) for tables in self.tables}
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
            if _are_complete(self.root, folder):
                yield from self._rendered(folder)
            if _are_complete(self.root, f"{folder}/lengths"):
                yield from self._measured(folder)

    def _read(self) -> Iterator[str]:
        """What read kept and refused, row by row and page by page, is what its tables list."""
        tables = {at.partition: at for at in self.tables}
        for receipt in read_manifest(self.root, f"steps/{self.source}/read"):
            at = tables[receipt.partition]
            for level, line in count_read(at.paths(self.root)).items():
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
        for receipt in read_manifest(self.root, folder) if _are_complete(self.root, folder) else ():
            counts = self.found[receipt.partition].counts if keys.get(receipt.partition) == receipt.key else {}
            for level, line in counts.items():
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
        for receipt in read_manifest(self.root, folder):
            files = {file.name: self.root / file.path for file in receipt.files}
            tables = next(tables for tables in self.tables if tables.partition == receipt.partition)
            paths = {**tables.paths(self.root), name_verdicts("render"): files[name_verdicts("render")]}
            counts = recount_partition(paths, (*self.recipe.all_verdict_steps(), "render")).counts
            for level, line in counts.items():
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
        if self.recipe.list_values() and _are_complete(self.root, f"{folder}/signals"):
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


def _verify_dedupe(root: Path, recipe: Recipe, counted: Iterable[_Counted]) -> Iterator[str]:
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


def _count_images_with_bytes(root: Path, tables: PartitionTables) -> int:
    """Images of a partition that have bytes, by the statistics of its tables; what a retry fetched had none before."""
    paths = tables.paths(root)
    return sum(_count_filled(paths[name]) for name in (IMAGES_FILE, SUPPLEMENT_FILE) if name in paths)


def _count_filled(path: Path) -> int:
    with pq.ParquetFile(path) as file:
        column = file.schema_arrow.names.index("bytes")
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        return sum(group.num_rows - group.column(column).statistics.null_count for group in groups if group.num_rows)


def _count_rows(table: Path) -> int:
    return int(pq.read_metadata(table).num_rows)


# -- mixtures ----------------------------------------------------------------------------------------------------------


def _verify_published(root: Path, stage: Stage) -> Iterator[str]:
    """The lock, plan, held-out list and statistics in `mixtures/` are those that the stage's steps made."""
    made: dict[str, str] = {}
    for step, below in (("plan", "plan/"), ("lock", ""), ("repetition", "")):  # the last has the statistics anew
        folder = f"steps/mixtures/{stage.name}/{step}"
        if not _are_complete(root, folder):
            return
        made |= {
            f"{below}{file.name}": file.sha256 for receipt in read_manifest(root, folder) for file in receipt.files
        }
    for name, sha256 in sorted(made.items()):
        path = root / "mixtures" / stage.name / name
        if not path.exists():
            yield f"{path.relative_to(root)}: is missing; the next build puts it there"
        elif hash_file(path) != sha256:
            yield f"{path.relative_to(root)}: is not what the build wrote; the next build puts it right"


def _verify_mixture(root: Path, recipe: Recipe, stage: Stage, lock: Path) -> Iterator[str]:
    """The lock's shards, plan blocks and held-out list are unchanged.

    Its shards are all that the policy has of a source.
    """
    data = read_json(lock)
    selected = {
        receipt.partition: receipt.counts for receipt in read_manifest(root, f"steps/mixtures/{stage.name}/select")
    }
    entries = {source["name"] for source in data["sources"]}
    for source in data["sources"]:
        members = recipe.find_members(source["name"], entries)
        yield from _verify_inputs(root, stage, source, members, selected)
        for shard in source["shards"]:
            yield from _verify_file(root, shard["path"], shard["sha256"])
    tokenizer = data["tokenizer"]
    if not (root / tokenizer["path"]).exists() or hash_file(root / tokenizer["path"]) != tokenizer["sha256"]:
        yield f"{tokenizer['path']}: is not the tokenizer that counted the tokens of mixtures/{stage.name}; build again"
    listed = (*data["plan"]["blocks"], *([data["held_out"]] if data.get("held_out") else []))
    for file in listed:
        yield from _verify_file(root, str(lock.parent.relative_to(root) / file["path"]), file["sha256"])
    if sum(block["sequences"] for block in data["plan"]["blocks"]) != data["plan"]["sequences"]:
        yield f"{lock.relative_to(root)}: its blocks do not add up to {data['plan']['sequences']} sequences"


def _verify_inputs(
    root: Path,
    stage: Stage,
    source: Mapping[str, Any],
    members: Sequence[str],
    selected: Mapping[str, Mapping[str, Any]],
) -> Iterator[str]:
    """What render kept of an entry's sources is what the stage locks and selects from."""
    receipts = [receipt for member in members for receipt in read_manifest(root, f"shards/{member}/{stage.policy}")]
    made = {(file.path, file.sha256) for receipt in receipts for file in receipt.files if file.name.endswith(".tar")}
    locked = {(shard["path"], shard["sha256"]) for shard in source["shards"]}
    where = f"mixtures/{stage.name}: {source['label']}"
    for path, _ in sorted(made ^ locked):
        yield f"{where}: {path} stands in {'its lock' if (path, _) in locked else 'the manifest'} alone; build again"
    kept = sum(receipt.counts["samples"]["kept"] for receipt in receipts)
    inside, taken = sum(shard["samples"] for shard in source["shards"]), selected[source["label"]]["samples"]["in"]
    if not kept == inside == taken:
        yield f"{where}: render kept {kept} samples, the lock has {inside}, select took in {taken}"
