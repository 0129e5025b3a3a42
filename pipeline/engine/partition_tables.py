"""The tables of a partition as they stand: raw ones after every retry and takedown, and what was said of them since.

Chains run the same steps while they build; this is for those who read a finished run: takedown, trace, verify and the
report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vlmill.pipeline.core.checked import check_hash
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.names import (
    IMAGES_FILE,
    RAW_SAMPLES_FILE,
    SAMPLES_FILE,
    SUPPLEMENT_FILE,
    name_resolved_verdicts,
    name_verdicts,
)
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.store import File, Receipt, Store
from vlmill.pipeline.engine.table_history import RetryRounds, TableHistory, find_history, find_superseded
from vlmill.pipeline.fetch import Retry
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.steps.retry_images import RetryImages
from vlmill.pipeline.steps.write_texts import WriteTexts
from vlmill.pipeline.takedown import Redact


@dataclass(frozen=True, slots=True)
class PartitionTables:
    """One partition's tables."""

    source: str
    partition: str
    files: dict[str, File]  # by name, as the next step reads them
    purged: tuple[File, ...]  # that receipts still name, and that must not be there

    def __str__(self) -> str:
        return f"{self.source}/{self.partition}"

    def paths(self, root: Path) -> dict[str, Path]:
        """The files as a step is given them."""
        return {name: root / file.path for name, file in self.files.items()}

    def check(self, root: Path) -> dict[str, Path]:
        """The same but for the bytes of images, each file hashed in full before anybody reads it.

        Raises:
            StoreError: one is missing, or another than the one that was written.
        """
        tables = {name: file for name, file in self.files.items() if name not in {IMAGES_FILE, SUPPLEMENT_FILE}}
        return {name: check_hash(root / file.path, file.sha256) for name, file in tables.items()}


def choose_retry_step(recipe: Recipe, source: str) -> Retry | RetryImages | None:
    """The step that tries failed images of a source once more, if it has such; how it runs is the runner's business."""
    shape = recipe.source(source)
    return Retry(fetch=recipe.fetch_step(source)) if shape.fetches else RetryImages() if shape.opens else None


def list_text_histories(source: str) -> Iterator[TableHistory]:
    """What was done to the rows of a source's partitions since they were read, before their images are fetched."""
    yield TableHistory(f"steps/{source}/takedown", Redact("refused"))
    yield TableHistory(f"steps/{source}/takedown", Redact("samples"))


def list_image_histories(
    source: str, retry: Retry | RetryImages | None, *, again: bool = False
) -> Iterator[TableHistory]:
    """What was done to the images of a source's partitions since they came.

    Args:
        source: its name.
        retry: the step that tries failed images once more.
        again: whether to do so now.
    """
    folder = f"steps/{source}"
    rounds = RetryRounds(f"{folder}/retry", retry, again) if retry else None
    yield TableHistory(f"{folder}/takedown", Redact("images"), rounds)


def list_raw_tables(root: Path, recipe: Recipe, source: str) -> list[PartitionTables]:
    """The raw tables of all partitions of a source, in the order of their names.

    Raises:
        StoreError: the source was not read or fetched to its end.
    """
    fetches = recipe.source(source).fetches
    steps = ("read", "fetch") if fetches else ("read",)
    receipts: dict[str, list[Receipt]] = {}
    for step in steps:
        for receipt in read_manifest(root, f"steps/{source}/{step}"):
            receipts.setdefault(receipt.partition, []).append(receipt)
    histories = [*list_text_histories(source), *list_image_histories(source, choose_retry_step(recipe, source))]
    return [
        find_tables(Store(root), source, partition, found, histories) for partition, found in sorted(receipts.items())
    ]


def list_written_tables(root: Path, recipe: Recipe, source: str) -> list[PartitionTables]:
    """The raw tables with the texts that models wrote, as filters and shards have them.

    Where there are such texts, the samples without them are RAW_SAMPLES_FILE.

    Raises:
        StoreError: the source was not read or fetched to its end, or not all is written.
    """
    tables = list_raw_tables(root, recipe, source)
    if not recipe.list_writers():
        return tables
    kept = [replace(at, files=at.files | {RAW_SAMPLES_FILE: at.files[SAMPLES_FILE]}) for at in tables]
    return _add_files(kept, _group_files(root, f"steps/{source}/{WriteTexts.name}"))


def list_tables_with_stats(root: Path, recipe: Recipe, source: str) -> list[PartitionTables]:
    """The tables of `list_written_tables` with the image stats about their images.

    Raises:
        StoreError: the source was not through image stats to its end.
    """
    return _add_files(list_written_tables(root, recipe, source), _group_files(root, f"steps/{source}/image_stats"))


def list_filtered_tables(
    root: Path, recipe: Recipe, source: str, steps: Sequence[str] | None = None
) -> list[PartitionTables]:
    """All that render reads of a source: raw tables, image stats, and the verdicts of all steps, by name.

    Args:
        root: The run's folder.
        recipe: The run's.
        source: Its name.
        steps: Only the verdicts of these; None is all.

    Raises:
        StoreError: a filter or dedupe has not come to its end.
    """
    tables = list_tables_with_stats(root, recipe, source)
    wanted = recipe.all_verdict_steps() if steps is None else steps
    for name in wanted:
        if name != "dedupe":
            tables = _add_files(tables, _group_files(root, f"steps/{source}/{name}"))
    if "dedupe" not in wanted:
        return tables
    resolved = (file for receipt in read_manifest(root, "steps/dedupe/resolve") for file in receipt.files)
    verdicts = {file.name: replace(file, name=name_verdicts("dedupe")) for file in resolved}
    return _add_files(tables, {at.partition: (verdicts[name_resolved_verdicts(str(at))],) for at in tables})


def _group_files(root: Path, folder: str) -> dict[str, tuple[File, ...]]:
    return {receipt.partition: receipt.files for receipt in read_manifest(root, folder)}


def _add_files(tables: list[PartitionTables], more: Mapping[str, tuple[File, ...]]) -> list[PartitionTables]:
    """The tables with more files, by partition.

    Raises:
        StoreError: a partition has none of them.
    """
    if lacking := [str(at) for at in tables if at.partition not in more]:
        raise StoreError(f"{lacking[0]} is not through yet; run the build to its end: vlmill build RECIPE --out DIR")
    return [replace(at, files=at.files | {file.name: file for file in more[at.partition]}) for at in tables]


def find_tables(
    store: Store, source: str, partition: str, receipts: Sequence[Receipt], histories: Sequence[TableHistory]
) -> PartitionTables:
    """The tables that these receipts left of a partition, after all that was done to them since."""
    known = [file for receipt in receipts for file in receipt.files]
    files, purged = {file.name: file for file in known}, list[File]()
    for history in histories:
        for folder, receipt in find_history(store, partition, history, files):
            if folder == history.folder:
                purged += find_superseded(receipt, known)
            known += receipt.files
            files |= {file.name: file for file in receipt.files}
    return PartitionTables(source, partition, files, tuple(dict.fromkeys(purged)))
