"""Chains: steps over one partition, run in one process, and the manifests of what was run.

Every step finds its receipt or does its task. So any process can run a chain again from its start
at no cost, after any crash. This file knows no step by its class: what one does in a chain beyond its task is in a
class that derives from `ChainStep` (see table_history.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from vlmill.pipeline.core.errors import BadFileError, NotBuiltError, StoreError
from vlmill.pipeline.core.files import read_json, write_atomically
from vlmill.pipeline.core.names import name_input
from vlmill.pipeline.core.step import Count, Step
from vlmill.pipeline.engine.store import File, Receipt, Store, Task, total_counts
from vlmill.pipeline.inputs.files import InputFile, open_inputs


@dataclass(frozen=True)
class ChainStep:
    """One step of a chain, and the folder that its files go to."""

    folder: str
    step: Step

    def run(self, chain_pass: ChainPass) -> Iterator[tuple[str, Receipt]]:
        """(folder, receipt) of all that it contributes.

        The files of a receipt are in the pass before the next one is asked for.
        """
        yield self.folder, chain_pass.perform(self.folder, self.step)

    def changes_earlier_files(self, chain_pass: ChainPass) -> bool:
        """Whether it acted on files of steps before it, so that the chain has to start anew.

        Asked when its receipts are there.
        """
        del chain_pass
        return False

    def started_anew(self) -> ChainStep:
        """The same in a chain that starts anew because a step behind it changed its files."""
        return self


class SharedSteps:
    """Steps that the chains of many partitions have in common, made once, so that their part of keys is (keys.py)."""

    def __init__(self) -> None:
        self._kept = dict[Hashable, tuple[ChainStep, ...]]()

    def keep(self, key: Hashable, make: Callable[[], Iterable[ChainStep]]) -> tuple[ChainStep, ...]:
        """The steps of a key, which are made when it is asked for first."""
        if key not in self._kept:
            self._kept[key] = tuple(make())
        return self._kept[key]


@dataclass(frozen=True)
class Chain:
    """Steps over one partition, each reading what those before it left."""

    partition: str
    steps: tuple[ChainStep, ...]
    input_files: tuple[InputFile, ...] = ()  # whose names among `files` are those of `name_input`, in this order
    files: tuple[File, ...] = ()  # what is there before the first step

    def __str__(self) -> str:
        """The name of the partition, for progress and errors."""
        return f"{self.steps[-1].folder} {self.partition}"

    def started_anew(self) -> Chain:
        """The same chain after a step changed files of those before it."""
        return replace(self, steps=tuple(step.started_anew() for step in self.steps))

    @property
    def named_inputs(self) -> dict[str, InputFile]:
        """Its input files by the names that steps know them by."""
        return {name_input(place): file for place, file in enumerate(self.input_files)}


@dataclass(frozen=True, slots=True)
class TaskTiming:
    """How long a task took that was done, not found."""

    folder: str
    key: str
    seconds: float


@dataclass
class ChainPass:
    """One pass over a chain: the files that the next step sees, and the receipts so far."""

    store: Store
    chain: Chain
    files: dict[str, File] = field(default_factory=dict)  # by name; a later step's replaces an earlier one's
    receipts: list[tuple[str, Receipt]] = field(default_factory=list)
    timings: list[TaskTiming] = field(default_factory=list)

    @classmethod
    def begin(cls, store: Store, chain: Chain) -> Self:
        """A pass whose first step sees what the chain starts from."""
        return cls(store, chain, {file.name: file for file in chain.files})

    @property
    def partition(self) -> str:
        """The partition that the chain is over."""
        return self.chain.partition

    def add(self, folder: str, receipt: Receipt) -> None:
        """Show the files of a receipt to the steps that follow."""
        self.files |= {file.name: file for file in receipt.files}
        self.receipts.append((folder, receipt))

    def list_files(self) -> list[File]:
        """All files that were there or were left so far, those that others replaced included."""
        return [*self.chain.files, *(file for _, receipt in self.receipts for file in receipt.files)]

    def perform(self, folder: str, step: Step) -> Receipt:
        """The receipt of a step over the files as they are, doing its task if there is none yet.

        Raises:
            MissingFile: a file that the task is to read is not there.
        """
        task = Task.over(self.files, folder, self.partition, step)
        done = self.store.find(task)
        if done is not None:
            return done
        if self.store.only_finds:
            return self.store.perform(task)
        named = self.chain.named_inputs
        for file in (*task.inputs.values(), *task.side_inputs.values()):
            if file.name not in named and not (self.store.root / file.path).exists():
                raise MissingFile(file)
        begun = time.perf_counter()
        read = [(name, file) for name, file in named.items() if name in task.inputs]
        with open_inputs({name: replace(file, sha256=task.inputs[name].sha256) for name, file in read}) as opened:
            receipt = self.store.perform(task, opened)
        self.timings.append(TaskTiming(folder, receipt.key, round(time.perf_counter() - begun, 4)))
        return receipt

    def forget_first(self, missing: MissingFile) -> None:
        """Forget the chain's first step, which left the missing file, so that it is done again.

        A redaction deletes what was read. It is asked for again where images are fetched under new settings: then the
        addresses are read from the input files once more, and matched with the takedowns before any step sees them.

        Raises:
            StoreError: something else is missing, which must not be deleted.
        """
        if not self.chain.input_files or not self.receipts or missing.file not in self.receipts[0][1].files:
            raise StoreError(
                f"{missing.file.path} is missing; see what else is with: vlmill verify {self.store.root}"
            ) from missing
        self.store.forget(*self.receipts[0])


class MissingFile(Exception):  # noqa: N818 - not yet an error: it may be made again
    """A file that a step is to read is not there."""

    def __init__(self, file: File) -> None:
        super().__init__(file)
        self.file = file


TimedReceipts = tuple[tuple[tuple[str, Receipt], ...], tuple[TaskTiming, ...]]
"""(folder, receipt) of every step of a chain, and how long each task took that was done."""


@dataclass(frozen=True)
class ChainRunner:
    """Runs chains of one run; travels to workers."""

    root: Path

    def __call__(self, chain: Chain) -> tuple[tuple[str, Receipt], ...]:
        """(folder, receipt) of every step of the chain, doing what is still to be done."""
        return self.run_timed(chain)[0]

    def run_timed(self, chain: Chain) -> TimedReceipts:
        """The same, and how long each task took that was done."""
        timings = list[TaskTiming]()
        while isinstance(done := self._run_once(chain, timings), Chain):
            chain = done
        return done, tuple(timings)

    def _run_once(self, chain: Chain, timings: list[TaskTiming]) -> tuple[tuple[str, Receipt], ...] | Chain:
        """The receipts, or the chain to run in its place, because it begins with something less than it did."""
        chain_pass = ChainPass.begin(Store(self.root), chain)
        chain_pass.timings = timings
        for step in chain.steps:
            try:
                for folder, receipt in step.run(chain_pass):
                    chain_pass.add(folder, receipt)
            except MissingFile as missing:
                chain_pass.forget_first(missing)
                return chain
            if step.changes_earlier_files(chain_pass):
                return chain.started_anew()
        return tuple(chain_pass.receipts)


@dataclass(frozen=True)
class TimedChainRunner:
    """Runs chains of one run, and says how long each task took; travels to workers.

    What is wrong with input files is given back, so that the other chains are run as well.
    """

    root: Path

    def __call__(self, chain: Chain) -> TimedReceipts | BadFileError:
        """The receipts of the chain and the times of what was done, or the error of its input files."""
        try:
            return ChainRunner(self.root).run_timed(chain)
        except BadFileError as error:
            return error


def read_manifest(root: Path, folder: str) -> list[Receipt]:
    """The receipts of a complete step, ordered by partition.

    Raises:
        NotBuiltError: the step is not complete.
        StoreError: its manifest is damaged.
    """
    return read_manifest_counts(_find_manifest(root, folder))[0]


def read_totals(root: Path, folder: str) -> dict[str, Count]:
    """What the receipts of a complete step come to by level, without reading them.

    Raises:
        NotBuiltError: the step is not complete.
        StoreError: its manifest is damaged.
    """
    return {level: Count.from_json(line) for level, line in read_counts(_find_manifest(root, folder)).items()}


def _find_manifest(root: Path, folder: str) -> Path:
    path = root / folder / "manifest.json"
    if not path.exists():
        raise NotBuiltError(
            f"{root}: {folder} is not complete; run the build to its end: vlmill build RECIPE --out {root}"
        )
    return path


def read_counts(path: Path) -> dict[str, Any]:
    """What the receipts of a manifest come to, which stands in its first line.

    Raises:
        StoreError: it is damaged.
    """
    head, _, _ = path.read_bytes().partition(b"\n")
    with suppress(ValueError, KeyError, TypeError):
        return dict(json.loads(head + b"]}")["counts"])
    return read_manifest_counts(path)[1]


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
    counts = {level: count.to_json() for level, count in sorted(total_counts(receipts).items())}
    head = json.dumps({"counts": counts, "folder": folder}, sort_keys=True, ensure_ascii=False)
    lines = [json.dumps(receipt.to_json(), sort_keys=True, ensure_ascii=False) for receipt in receipts]
    listed = ",\n".join(lines)  # a line each: an indented manifest takes ten times as long to write
    write_atomically(root / folder / "manifest.json", f'{head[:-1]}, "receipts": [\n{listed}\n]}}\n')
