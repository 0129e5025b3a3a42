"""The store: files with receipts. Everything a run makes is committed here, and here alone.

The contract, which the tests hold line by line:

1. A partition exists if and only if a receipt exists with the key that the recipe asks for.
2. A task works in a separate folder under a unique temporary name beside its target. Its files are flushed to disk
and renamed;
   then the receipt is, last.
3. A receipt holds the key, the files' sha256 and the counts. A manifest rolls up the receipts of a step that is
complete for a
   source; readers use the manifest.
4. The key decides the names of a pure task's files, so nothing committed is ever changed in place.
5. A pure task may run twice, or in two processes at once: the bytes are the same, and so is what stands afterwards.
6. The files of an impure task carry their own sha256 in their names and its receipt is created only if absent; the
loser adopts
   the winner's. A committed one is never done again. It may read side inputs: files that are not in its key.
7. in = kept + dropped + failed is checked before a receipt is written.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

from vlmill.pipeline.core.at_work import AT_WORK
from vlmill.pipeline.core.errors import LackOfMemoryError, StoreError, VlmillError
from vlmill.pipeline.core.files import TEMPORARY, explain_full_disk, flush_path, move_file, read_json, write_atomically
from vlmill.pipeline.core.keys import DIGITS, hash_file, make_key
from vlmill.pipeline.core.run_path import RunPath, find_local_paths
from vlmill.pipeline.core.scratch import get_scratch
from vlmill.pipeline.core.step import Count, Counts, Step, match_names
from vlmill.pipeline.engine.lease import hold_lease, refuse_held_lease

STEP_FOLDERS = ("steps", "shards")
"""The folders of a run below which steps have theirs."""
FOLDERS = (*STEP_FOLDERS, "mixtures", "lists", "logs", "disclosure", "train")
"""The folders that commands make in a run. What else lies beside them is somebody else's, such as another run."""


@dataclass(frozen=True, slots=True)
class File:
    """A committed file, or an input file: the name steps know it by, where it lies, and what is in it."""

    name: str
    path: str  # relative to the run's folder; absolute for input files alone
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """Says that a task is done: under which key, what it left behind, and the counts of what came in."""

    key: str
    partition: str
    files: tuple[File, ...]
    counts: Mapping[str, Any]  # level -> {"in", "kept", "dropped", "failed"}
    made_by: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The receipt as it is written."""
        files = [{"name": f.name, "path": f.path, "sha256": f.sha256, "size": f.size} for f in self.files]
        return {
            "key": self.key,
            "partition": self.partition,
            "files": files,
            "counts": self.counts,
            "made_by": dict(self.made_by),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Receipt:
        """The receipt that `to_json` gave.

        Raises:
            StoreError: a file of it would lie outside of the run's folder.
        """
        files = tuple(File(**item) for item in data["files"])
        for file in files:
            if file.path.startswith("/") or ".." in file.path.split("/"):
                raise StoreError(
                    f"the receipt of {data['partition']} names {file.path!r}, and files of a run lie in its "
                    "folder; delete that receipt and build again"
                )
        return cls(data["key"], data["partition"], files, data["counts"], data["made_by"])


@dataclass(frozen=True, slots=True)
class Task:
    """One step over one partition."""

    folder: str  # where its files go, relative to the run's folder
    partition: str
    step: Step
    inputs: Mapping[str, File] = field(default_factory=dict)
    side_inputs: Mapping[str, File] = field(default_factory=dict)  # inputs of an impure step that are not in its key

    @classmethod
    def over(cls, files: Mapping[str, File], folder: str, partition: str, step: Step) -> Self:
        """The task of a step where these files are there."""
        seen = getattr(step, "side_inputs", None)  # of HasSideInputs; to ask for the protocol takes 0.1 ms
        assert seen is None or not step.pure, f"{step.name} is pure: all that it sees is in its key"
        side_inputs = select_files(files, seen) if seen is not None else {}
        return cls(folder, partition, step, select_files(files, step.reads), side_inputs)

    def key(self) -> str:
        """What decides its bytes."""
        return make_key(self.step, {name: file.sha256 for name, file in self.inputs.items()})


def select_files(files: Mapping[str, File], wanted: tuple[str, ...]) -> dict[str, File]:
    """The files whose names match one of the names or patterns that a step reads."""
    return {name: files[name] for name in match_names(files, wanted)}


class Store:
    """A run's folder. Holds no state of its own: any number of processes may hold one over the same folder."""

    only_finds: ClassVar[bool] = False  # whether nothing is done in it, as in finding.py

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, task: Task) -> Receipt | None:
        """The receipt of `task`, or None if it is still to be done."""
        key = task.key()
        try:
            receipt = Receipt.from_json(json.loads(self._receipt_path(task, key).read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            path = self._receipt_path(task, key)
            raise StoreError(f"{path} is no receipt ({error}); delete it and run the build again") from error
        if receipt.key != key:
            raise StoreError(
                f"{self._receipt_path(task, key)} was written for key {receipt.key}, not {key}; delete it and "
                "run the build again"
            )
        return receipt

    def perform(self, task: Task, elsewhere: Mapping[str, Path] = MappingProxyType({})) -> Receipt:
        """The receipt of `task`, doing it first if there is none yet. Safe to call in many processes at once.

        `elsewhere` says where inputs lie that are not in the folder: input files.

        Raises:
            StoreError: other versions made the earlier partitions of this step; a step whose counts do not balance; a
                full disk; or a step failed over a file that is not what its receipt says.
            LackOfMemoryError: the step needs more than this process may have; says at which sample.
        """
        done = self.find(task)
        if done is not None:
            return done
        self._check_made_by(task)
        with self._working_folder(task) as folder:
            files = {name: file for name, file in {**task.side_inputs, **task.inputs}.items() if name not in elsewhere}
            paths = find_local_paths({name: self.root / file.path for name, file in files.items()})
            AT_WORK.begin(f"{task.folder} {task.partition}")
            try:
                counts = task.step.run({**paths, **elsewhere}, folder)
                _check_balance(task, counts)
                return self._commit(task, folder, counts)
            except VlmillError:
                raise
            except MemoryError as error:
                raise LackOfMemoryError(f"{AT_WORK}: out of memory ({str(error) or type(error).__name__})") from error
            except Exception as error:
                target = folder if isinstance(self.root, RunPath) else self.root / task.folder
                if hint := explain_full_disk(error, target, (Path(tempfile.gettempdir()),)) or (
                    self._explain_damage(task, files.values(), error)
                ):
                    raise StoreError(hint) from error
                raise

    def _explain_damage(self, task: Task, read: Iterable[File], error: Exception) -> str:
        """Which files of the run that a failed task read are damaged; empty where none is, and the step is at fault."""
        paths = [file.path for file in read if _is_damaged(self.root / file.path, file.sha256)]
        if not paths:
            return ""
        return (
            f"{task.folder} {task.partition}: {', '.join(paths)} is damaged, and not what its receipt says "
            f"({type(error).__name__}: {error}); vlmill verify {self.root} says what else is, and the way out"
        )

    def forget(self, folder: str, receipt: Receipt) -> None:
        """Undo a receipt, so that its task is done again."""
        (self.root / folder / f"{receipt.partition}.{receipt.key[:DIGITS]}.receipt.json").unlink(missing_ok=True)

    def _commit(self, task: Task, folder: Path, counts: Counts) -> Receipt:
        """Move what the task left in `folder` to its place, then write the receipt."""
        key, target = task.key(), self.root / task.folder
        files = []
        for path in sorted(folder.iterdir()):
            flush_path(path)
            sha256 = hash_file(path)
            name = f"{task.partition}.{(key if task.step.pure else sha256)[:DIGITS]}.{path.name}"
            files.append(File(path.name, f"{task.folder}/{name}", sha256, path.stat().st_size))
            move_file(path, target / name)
        flush_path(target)
        by_level = {level: count.to_json() for level, count in sorted(counts.items())}
        receipt = Receipt(key, task.partition, tuple(files), by_level, dict(task.step.made_by()))
        return self._sign(task, receipt)

    def _sign(self, task: Task, receipt: Receipt) -> Receipt:
        """Write the receipt; for an impure task adopt the receipt that another process wrote first."""
        path = self._receipt_path(task, receipt.key)
        written = write_atomically(path, receipt.to_json(), only_if_absent=not task.step.pure)
        if written or task.step.pure:
            return receipt
        winner = self.find(task)
        if winner is None:
            raise StoreError(f"{path} vanished while it was read; run the build again")
        for file in {file.path for file in receipt.files} - {file.path for file in winner.files}:
            (self.root / file).unlink(missing_ok=True)
        return winner

    def _receipt_path(self, task: Task, key: str) -> Path:
        return self.root / task.folder / f"{task.partition}.{key[:DIGITS]}.receipt.json"

    @contextmanager
    def _working_folder(self, task: Task) -> Iterator[Path]:
        if isinstance(self.root, RunPath):
            with get_scratch().work() as folder:
                yield folder
            return
        folder = self.root / task.folder / f"{TEMPORARY}{task.partition}-{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _check_made_by(self, task: Task) -> None:
        """Refuse to add a partition to a step whose other partitions were made by other versions."""
        now = dict(task.step.made_by())
        path = self.root / task.folder / "made_by.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() and write_atomically(path, now, only_if_absent=True):
            return
        before = read_json(path)
        if before != now:
            differing = ", ".join(
                f"{name} {before.get(name)} -> {now.get(name)}"
                for name in sorted({*before, *now})
                if before.get(name) != now.get(name)
            )
            raise StoreError(
                f"{task.folder} was begun with other versions ({differing}). Install those again, or run the build "
                "with --rebuild, which makes pure steps anew under today's versions and never fetches again what "
                "was fetched"
            )

    @contextmanager
    def locked(self) -> Iterator[Callable[[], None]]:
        """Hold the folder against a second build.

        Yields what raises StoreError where it is held no more, as only a lease can be lost. Commits need no such look;
        what removes files has to take one before.

        Raises:
            StoreError: another build holds it.
        """
        if isinstance(self.root, RunPath):
            with hold_lease(self.root) as lease:
                yield lease.check
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(
                    f"{self.root}: another build or a training is at work in this folder; wait for it, or give this "
                    "one another --out"
                ) from None
            yield lambda: None

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the folder against builds, beside others that read it.

        Raises:
            StoreError: a build is at work in it.
        """
        if isinstance(self.root, RunPath):
            refuse_held_lease(self.root)
            yield
            return
        with (self.root / ".lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(
                    f"{self.root}: a build is at work in this folder; call again when it has ended"
                ) from None
            yield

    def sweep(self) -> None:
        """Remove the working folders that killed tasks left behind. Call it only while the folder is locked.

        Nothing else that lies in the folder is looked through, such as another run. On object storage they leave none
        there, but markers of builds on clusters may be left.
        """
        if isinstance(self.root, RunPath):
            for marker in self.root.glob(f"{TEMPORARY}*"):
                marker.unlink(missing_ok=True)
            return
        own = [folder for name in FOLDERS if not (folder := self.root / name).is_symlink()]
        below = [path for folder in own for path in sorted(folder.rglob(f"{TEMPORARY}*"))]
        for path in [*self.root.glob(f"{TEMPORARY}*"), *below]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def list_step_files(root: Path, name: str) -> list[Path]:
    """Files of this name in the folders of a run's steps, ordered by path."""
    return [path for top in STEP_FOLDERS for path in sorted(root.glob(f"{top}/**/{name}"))]


def _is_damaged(path: Path, sha256: str) -> bool:
    return not path.exists() or hash_file(path) != sha256


def _check_balance(task: Task, counts: Counts) -> None:
    for level, count in counts.items():
        if not count.balanced():
            raise StoreError(
                f"{task.folder} {task.partition}: the counts of {task.step.name} do not balance: {level} "
                f"{count.to_json()}"
            )


def total_counts(receipts: list[Receipt]) -> dict[str, Count]:
    """The counts of many receipts, added up by level."""
    totals: dict[str, Count] = {}
    for receipt in receipts:
        for level, line in receipt.counts.items():
            totals.setdefault(level, Count()).add(Count.from_json(line))
    return totals
