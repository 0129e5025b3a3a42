"""What of a phase is done already, found out by the driver before anything is given to workers.

A build with nothing to do starts no process. Receipts are read from the manifests of the last build, which have all of
a step in one file; a receipt counts only while its own file is there. What was done since is read from its file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from vlmill.pipeline.core.errors import BadFileError, StoreError
from vlmill.pipeline.core.keys import DIGITS
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.engine.chain import (
    Chain,
    ChainPass,
    TimedChainRunner,
    TimedReceipts,
    read_manifest_counts,
    write_manifest,
)
from vlmill.pipeline.engine.executor import Executor, IoBound
from vlmill.pipeline.engine.store import Receipt, Store, Task

FoundChain = tuple[tuple[str, Receipt], ...]
"""(folder, receipt) of every step of a chain."""

Prepare = Callable[[Sequence[Chain], Sequence[FoundChain]], Sequence[Chain]]
"""Takes chains that are to be run and what the others come to; gives the same chains with what else they start from."""


class ReceiptFinder(Store):
    """A run's folder in which nothing is done."""

    only_finds: ClassVar[bool] = True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._manifests = dict[str, Mapping[tuple[str, str], Receipt]]()
        self._place = str(root)
        self._listed = dict[str, set[str]]()  # names in folders on object storage
        self._empty = set[str]()  # folders that are not there, as of steps that are done where somebody asks for them

    def find(self, task: Task) -> Receipt | None:
        """See Store."""
        if task.folder in self._empty:
            return None
        key = task.key()
        known = self.read_folder(task.folder).get((task.partition, key))
        if known is None:
            return super().find(task)
        return known if self._is_there(task, key) else None

    def perform(self, task: Task, elsewhere: Mapping[str, Path] = MappingProxyType({})) -> Receipt:
        """The receipt of a task that is done.

        Raises:
            NotDone: it is not.
        """
        del elsewhere
        found = self.find(task)
        if found is None:
            raise NotDone
        return found

    def look_again(self) -> None:
        """Forget what is in folders and which are not there: others may have made or emptied them."""
        self._manifests = {folder: found for folder, found in self._manifests.items() if folder not in self._empty}
        self._empty = set()
        self._listed = {}

    def find_chain(self, chain: Chain) -> FoundChain | None:
        """What a chain comes to, or None where some of it is still to be done."""
        chain_pass = ChainPass.begin(self, chain)
        try:
            for step in chain.steps:
                for folder, receipt in step.run(chain_pass):
                    chain_pass.add(folder, receipt)
                if step.changes_earlier_files(chain_pass):
                    return None
        except NotDone:
            return None
        return tuple(chain_pass.receipts)

    def read_folder(self, folder: str) -> Mapping[tuple[str, str], Receipt]:
        """The receipts of a step's manifest by partition and key; none where there is no sound one."""
        if folder not in self._manifests:
            path, found = self.root / folder / "manifest.json", list[Receipt]()
            if path.exists():
                with suppress(StoreError):  # it is written anew when all receipts are there
                    found = read_manifest_counts(path)[0]
            elif not path.parent.exists():
                self._empty.add(folder)
            self._manifests[folder] = {(receipt.partition, receipt.key): receipt for receipt in found}
        return self._manifests[folder]

    def write_manifest(self, folder: str, receipts: Mapping[tuple[str, str], Receipt]) -> None:
        """Roll up the receipts of a complete step, by partition, unless that is what its manifest has already."""
        found = {key: receipts[key] for key in sorted(receipts, key=lambda key: key[0])}
        known = self.read_folder(folder)
        if [*known] != [*found] or any(receipt is not known[key] for key, receipt in found.items()):
            write_manifest(self.root, folder, [*found.values()])
            self._manifests[folder] = found

    def _is_there(self, task: Task, key: str) -> bool:
        name = f"{task.partition}.{key[:DIGITS]}.receipt.json"
        if not isinstance(self.root, RunPath):
            return os.path.exists(f"{self._place}/{task.folder}/{name}")  # noqa: PTH110 - a path takes three times as long
        if task.folder not in self._listed:  # a thousand names a request, where each look would be one
            self._listed[task.folder] = {path.name for path in (self.root / task.folder).iterdir()}
        return name in self._listed[task.folder]


class NotDone(Exception):  # noqa: N818 - it is still to be done
    """A task has no receipt."""


def run_unfinished(
    finder: ReceiptFinder,
    executor: Executor,
    chains: Sequence[Chain],
    memory: int = 0,
    io_bound: IoBound | None = None,
    prepare: Prepare | None = None,
) -> Iterator[tuple[int, TimedReceipts | BadFileError]]:
    """Yield (index of a chain, what it comes to): first of those that are done, then of the others as results come.

    Each takes so many bytes of memory, where that is known. `prepare` is asked once, where any is to be run.
    """
    left, done = list[int](), list[FoundChain]()
    finder.look_again()
    for index, chain in enumerate(chains):
        found = finder.find_chain(chain)
        if found is None:
            left.append(index)
        else:
            if prepare:
                done.append(found)
            yield index, (found, ())
    runner, unfinished = TimedChainRunner(finder.root), [chains[index] for index in left]
    if prepare and unfinished:
        unfinished = list(prepare(unfinished, done))
    for place, result in executor.each(runner, unfinished, memory, io_bound):
        yield left[place], result
