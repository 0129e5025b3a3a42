"""Chains: steps over one partition, run in one process, and the manifests of what was run.

Every step finds its receipt or does its task. So a chain can be run again from its start at no cost, by anybody, after any
death.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import read_json, write_atomically
from vlmill.pipeline.core.step import Step
from vlmill.pipeline.engine.store import File, Receipt, Store, Task, total_counts
from vlmill.pipeline.inputs.files import InputFile, hash_input, open_input
from vlmill.pipeline.steps.image_stats import ComputeImageStats
from vlmill.pipeline.takedown import TABLES, Match, Matches, Redact, make_redaction


@dataclass(frozen=True)
class ChainStep:
    """One step of a chain, and the folder that its files go to."""

    folder: str
    step: Step


@dataclass(frozen=True)
class TableHistory(ChainStep):
    """What was done to a raw table since it came: redactions, and retries between them, in the order in which they were done."""

    step: Redact
    retry: ChainStep | None = None
    again: bool = False  # whether to do one more round of the retry


@dataclass(frozen=True)
class MatchTakedowns(ChainStep):
    """Looks for what stands on the list of takedowns. What it finds is removed, and the chain run again."""

    step: Match
    redactions: str  # folder of the steps that remove


@dataclass(frozen=True)
class Chain:
    """Steps over one partition, each reading what those before it left."""

    partition: str
    steps: tuple[ChainStep, ...]
    input_file: InputFile | None = None
    files: tuple[File, ...] = ()  # what is there before the first step

    def __str__(self) -> str:
        """The name of the partition, for progress and errors."""
        return f"{self.steps[-1].folder} {self.partition}"

    def careful(self) -> Chain:
        """The same chain for a second attempt, after a worker died of it: images are decoded in a process of their own."""
        steps = (
            replace(chain_step, step=replace(chain_step.step, isolated=True))
            if isinstance(chain_step.step, ComputeImageStats)
            else chain_step
            for chain_step in self.steps
        )
        return replace(self, steps=tuple(steps))

    def done_again(self) -> Chain:
        """The same chain after its round of retries, which is not to be done a second time."""
        steps = (
            replace(chain_step, again=False) if isinstance(chain_step, TableHistory) else chain_step
            for chain_step in self.steps
        )
        return replace(self, steps=tuple(steps))


@dataclass(frozen=True)
class ChainRunner:
    """Runs chains of one run; travels to workers."""

    root: Path

    def __call__(self, chain: Chain) -> tuple[tuple[str, Receipt], ...]:
        """(folder, receipt) of every step of the chain, doing what is still to be done."""
        while isinstance(done := self._once(chain), Chain):
            chain = done
        return done

    def _once(self, chain: Chain) -> tuple[tuple[str, Receipt], ...] | Chain:
        """The same, or the chain to run in its place, because it begins with something less than it did."""
        store, files, receipts = (
            Store(self.root),
            {file.name: file for file in chain.files},
            list[tuple[str, Receipt]](),
        )
        for chain_step in chain.steps:
            try:
                for folder, receipt in self._receipts(store, chain, chain_step, files):
                    if isinstance(chain_step, TableHistory) and folder == chain_step.folder:
                        self._purge(receipt, [*chain.files, *(file for _, before in receipts for file in before.files)])
                    files |= {file.name: file for file in receipt.files}
                    receipts.append((folder, receipt))
            except _Missing as missing:
                _forget(store, chain, missing, receipts)
                return chain
            if isinstance(chain_step, MatchTakedowns) and self._removed(store, chain, chain_step, files):
                return chain.done_again()
        return tuple(receipts)

    def _receipts(
        self, store: Store, chain: Chain, chain_step: ChainStep, files: Mapping[str, File]
    ) -> Iterator[tuple[str, Receipt]]:
        """What a step has to show; `files` is looked at again after each receipt."""
        if isinstance(chain_step, TableHistory):
            yield from find_history(store, chain.partition, chain_step, files)
        else:
            task = Task.over(files, chain_step.folder, chain.partition, chain_step.step)
            yield chain_step.folder, self._perform(store, task, chain.input_file)

    def _removed(self, store: Store, chain: Chain, chain_step: MatchTakedowns, files: Mapping[str, File]) -> bool:
        """Whether something was found; it is removed from the tables."""
        found = Matches.read(self.root / files["found.json"].path)
        for table in TABLES:
            if getattr(found, table):
                store.perform(Task.over(files, chain_step.redactions, chain.partition, make_redaction(table, found)))
        return bool(found)

    def _purge(self, redaction: Receipt, before: Iterable[File]) -> None:
        """Delete every file that a redaction replaced; nobody will ask for it again."""
        for file in find_superseded(redaction, before):
            (self.root / file.path).unlink(missing_ok=True)

    def _perform(self, store: Store, task: Task, input_file: InputFile | None) -> Receipt:
        done = store.find(task)
        if done is not None:
            return done
        for file in (*task.inputs.values(), *task.side_inputs.values()):
            if file.name != "input" and not (self.root / file.path).exists():
                raise _Missing(file)
        if input_file is None or "input" not in task.inputs:
            return store.perform(task)
        with open_input(input_file) as path:
            return store.perform(task, {"input": path})


class _Missing(Exception):  # noqa: N818 - not yet an error: it may be made again
    """A file that a step is to read is not there."""

    def __init__(self, file: File) -> None:
        super().__init__(file)
        self.file = file


def _forget(store: Store, chain: Chain, missing: _Missing, receipts: Sequence[tuple[str, Receipt]]) -> None:
    """Forget the chain's first step, which left the missing file, so that it is done again.

    A redaction deletes what was read. It is asked for again where images are fetched under new settings: then the addresses are read
    from the input file once more, and sought through before anybody sees them.

    Raises:
        StoreError: something else is missing, which nobody may delete.
    """
    if chain.input_file is None or not receipts or missing.file not in receipts[0][1].files:
        raise StoreError(
            f"{missing.file.path} is missing; see what else is with: vlmill verify {store.root}"
        ) from missing
    store.forget(*receipts[0])


def find_history(
    store: Store, partition: str, chain_step: TableHistory, files: Mapping[str, File]
) -> Iterator[tuple[str, Receipt]]:
    """(folder, receipt) of what was done to a raw table, in its order; `files` is looked at again after each.

    A redaction deletes what it replaces, so whatever was done to the same tables before and after it is found under other keys.
    """
    retry = chain_step.retry
    while True:
        redaction = store.find(Task.over(files, chain_step.folder, partition, chain_step.step))
        if redaction is not None:
            yield chain_step.folder, redaction
            continue
        if retry is None:
            return
        task = Task.over(files, retry.folder, partition, retry.step)
        round_done = store.find(task)
        if round_done is None:
            if chain_step.again:
                yield retry.folder, store.perform(task)
            return
        yield retry.folder, round_done
        retry = replace(retry, step=replace(retry.step, round=retry.step.round + 1))  # type: ignore[attr-defined,type-var]


def find_superseded(redaction: Receipt, before: Iterable[File]) -> list[File]:
    """The files that a redaction replaced: those of the same names that came before it."""
    names, own = {file.name for file in redaction.files}, {file.path for file in redaction.files}
    return [file for file in before if file.name in names and file.path not in own]


@dataclass(frozen=True)
class HashInputFile:
    """Hashes input files in workers."""

    def __call__(self, input_file: InputFile) -> File:
        """The input file as an input of tasks."""
        sha256, size = hash_input(input_file)
        return File("input", input_file.url, sha256, size)


def read_manifest(root: Path, folder: str) -> list[Receipt]:
    """The receipts of a complete step, ordered by partition.

    Raises:
        StoreError: the step is not complete.
    """
    path = root / folder / "manifest.json"
    if not path.exists():
        raise StoreError(
            f"{root}: {folder} is not complete; run the build to its end: vlmill build RECIPE --out {root}"
        )
    return read_manifest_counts(path)[0]


def read_manifest_counts(path: Path) -> tuple[list[Receipt], dict[str, Any]]:
    """The receipts of a manifest, and the counts that they come to.

    Raises:
        StoreError: it is damaged.
    """
    data = read_json(path)
    try:
        return [Receipt.from_json(item) for item in data["receipts"]], data["counts"]
    except (KeyError, TypeError) as error:
        raise StoreError(f"{path} is no manifest; delete it and build again: what is sound is kept") from error


def write_manifest(root: Path, folder: str, receipts: list[Receipt]) -> None:
    """Roll up the receipts of a complete step, in their order; readers use nothing else."""
    books = {level: count.to_json() for level, count in sorted(total_counts(receipts).items())}
    manifest = {"folder": folder, "counts": books, "receipts": [receipt.to_json() for receipt in receipts]}
    write_atomically(root / folder / "manifest.json", manifest)
