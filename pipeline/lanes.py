"""Lanes: steps over one partition, walked in one process, and the manifests of what was walked.

Every step finds its receipt or does its task. So a lane can be walked again from its start at no cost, by anybody, after any
death.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.fetch import Retry
from pipeline.inspect import Inspect
from pipeline.origin import Origin, content, opened
from pipeline.step import Step
from pipeline.store import File, Receipt, Store, Task, select, total, write_atomically


@dataclass(frozen=True)
class Link:
    """One step of a lane, and the folder that its files go to."""

    folder: str
    step: Step


@dataclass(frozen=True)
class Rounds(Link):
    """A retry: every round of it that was done counts, and one more is done if `again`."""

    step: Retry
    again: bool = False


@dataclass(frozen=True)
class Lane:
    """Steps over one partition, each reading what those before it left."""

    part: str
    links: tuple[Link, ...]
    origin: Origin | None = None
    files: tuple[File, ...] = ()  # what is there before the first step

    def __str__(self) -> str:
        """The name of the partition, for progress and errors."""
        return f"{self.links[-1].folder} {self.part}"

    def careful(self) -> Lane:
        """The same lane for a second attempt, after a worker died of it: images are decoded in a process of their own."""
        links = (
            replace(link, step=replace(link.step, isolated=True)) if isinstance(link.step, Inspect) else link
            for link in self.links
        )
        return replace(self, links=tuple(links))


@dataclass(frozen=True)
class Walk:
    """Walks lanes of one run; travels to workers."""

    root: Path

    def __call__(self, lane: Lane) -> tuple[tuple[str, Receipt], ...]:
        """(folder, receipt) of every step of the lane, doing what is still to be done."""
        store, files, receipts = Store(self.root), {file.name: file for file in lane.files}, list[tuple[str, Receipt]]()
        for link in lane.links:
            for receipt in self._receipts(store, lane, link, files):
                files |= {file.name: file for file in receipt.files}
                receipts.append((link.folder, receipt))
        return tuple(receipts)

    def _receipts(self, store: Store, lane: Lane, link: Link, files: Mapping[str, File]) -> Iterator[Receipt]:
        """What a link has to show; `files` is looked at again after each receipt."""
        task = Task(link.folder, lane.part, link.step, select(files, link.step.reads))
        if not isinstance(link, Rounds):
            yield self._perform(store, task, lane.origin)
            return
        while (receipt := store.find(task)) is not None:
            yield receipt
            step = replace(link.step, round=task.step.round + 1)  # type: ignore[attr-defined]
            task = Task(link.folder, lane.part, step, select(files, step.reads))
        if link.again:
            yield store.perform(task)

    def _perform(self, store: Store, task: Task, origin: Origin | None) -> Receipt:
        if origin is None or "origin" not in task.inputs or store.find(task) is not None:
            return store.perform(task)
        with opened(origin) as path:
            return store.perform(task, {"origin": path})


@dataclass(frozen=True)
class Content:
    """Hashes origins in workers."""

    def __call__(self, origin: Origin) -> File:
        """The origin as an input of tasks."""
        sha256, size = content(origin)
        return File("origin", origin.url, sha256, size)


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
    return [Receipt.from_json(item) for item in json.loads(path.read_bytes())["receipts"]]


def write_manifest(root: Path, folder: str, receipts: list[Receipt]) -> None:
    """Roll up the receipts of a complete step, in their order; readers use nothing else."""
    books = {level: count.to_json() for level, count in sorted(total(receipts).items())}
    manifest = {"folder": folder, "counts": books, "receipts": [receipt.to_json() for receipt in receipts]}
    write_atomically(root / folder / "manifest.json", manifest)
