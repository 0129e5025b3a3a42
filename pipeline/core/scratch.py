"""Scratch: local copies of objects that this process reads, with a bound.

Each process has a folder of its own below the system's folder for temporary files (TMPDIR), removed when it ends; what
killed processes left is removed by the next one. Copies of committed files, which carry a key in their names, stay
valid; of others the tag is asked for each time.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import shutil
import tempfile
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import IO

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.object_store import ObjectStore, StoredObject

PREFIX = "vlmill-scratch-"

BOUND = "VLMILL_SCRATCH_BYTES"
"""The environment variable that sets how many bytes a process may keep."""

DEFAULT_BOUND = 16 << 30

COMMITTED = re.compile(r"\.[0-9a-f]{12}\.[^/]+$")
"""Names of committed files: their bytes never change."""


class Scratch:
    """The copies of this process, by address. Safe to share among threads."""

    def __init__(self) -> None:
        self.bound = int(os.environ.get(BOUND, DEFAULT_BOUND))
        self._lock, self._process = RLock(), os.getpid()
        self._copies: OrderedDict[str, tuple[int, str, int]] = OrderedDict()  # size, tag, period of the last use
        self._period = self._tasks = self.size = 0
        self._folder: Path | None = None
        self._held: IO[str] | None = None

    @property
    def folder(self) -> Path:
        """The folder of this process, made when it is first asked for."""
        with self._lock:
            if self._folder is None:
                _remove_orphans()
                self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
                self._held = (self._folder / ".held").open("w")
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                atexit.register(self.remove)
            return self._folder

    @contextmanager
    def work(self) -> Iterator[Path]:
        """A new folder for the files of a task. While it works, copies that it asked for stay; earlier ones may go."""
        folder = self.folder / "work" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        try:
            with self.task():
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def fetch(self, store: ObjectStore, key: str) -> Path:
        """The local copy of an object, as it is now.

        Raises:
            FileNotFoundError: there is no such object.
            StoreError: it cannot be had, or the copies of this task would exceed the bound.
        """
        address = f"{store.bucket}/{key}"
        path = self._place(address)
        with self._lock:
            known = self._copies.get(address)
            if known is not None and COMMITTED.search(key):
                return self._use(address, path)
        found = store.find(key)
        if found is None:
            self.drop(address)
            raise FileNotFoundError(f"{address} is not there")
        with self._lock:
            known = self._copies.get(address)
            if known is not None and known[1] == found.etag:
                return self._use(address, path)
        self._reserve(found, address)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            store.download(found, partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        self._note(address, found.size, found.etag)
        return path

    def adopt(self, address: str, file: Path, etag: str) -> None:
        """Take a file that was just written to the storage for its copy."""
        size, path = file.stat().st_size, self._place(address)
        path.parent.mkdir(parents=True, exist_ok=True)
        file.replace(path)
        self._note(address, size, etag)

    def drop(self, address: str) -> None:
        """Forget the copy of an object that was removed."""
        with self._lock:
            if known := self._copies.pop(address, None):
                self.size -= known[0]
                self._place(address).unlink(missing_ok=True)

    @contextmanager
    def task(self) -> Iterator[None]:
        """While a task works, what it asked for stays; copies of earlier ones may go."""
        with self._lock:
            self._period += self._tasks == 0
            self._tasks += 1
        try:
            yield
        finally:
            with self._lock:
                self._tasks -= 1
                self._period += self._tasks == 0

    def remove(self) -> None:
        """Remove all copies. A forked process leaves its parent's alone."""
        if self._folder is not None and self._process == os.getpid():
            shutil.rmtree(self._folder, ignore_errors=True)

    def _place(self, address: str) -> Path:
        return self.folder / "copies" / address.replace("://", "/")

    def _use(self, address: str, path: Path) -> Path:
        size, etag, _ = self._copies[address]
        self._copies[address] = (size, etag, self._period)
        self._copies.move_to_end(address)
        return path

    def _note(self, address: str, size: int, etag: str) -> None:
        with self._lock:
            if known := self._copies.pop(address, None):
                self.size -= known[0]
            self._copies[address] = (size, etag, self._period)
            self.size += size

    def _reserve(self, found: StoredObject, address: str) -> None:
        """Make place for an object, of copies that were last used before this task, the oldest first."""
        with self._lock:
            for old, (_, _, period) in list(self._copies.items()):
                if self.size + found.size <= self.bound:
                    break
                if period < self._period:
                    self.drop(old)
            if self.size + found.size > self.bound:
                raise StoreError(
                    f"{address}: its {found.size:,} bytes and the {self.size:,} of other files that are being read "
                    f"exceed the bound of local copies, {self.bound:,} bytes; set a larger one: {BOUND}=BYTES. They "
                    f"lie below {tempfile.gettempdir()}, which TMPDIR moves"
                )


def _remove_orphans() -> None:
    """Remove the folders of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), (folder / ".held").open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


_SCRATCH = dict[int, Scratch]()


def get_scratch() -> Scratch:
    """The scratch of this process."""
    process = os.getpid()
    if process not in _SCRATCH:
        _SCRATCH[process] = Scratch()
    return _SCRATCH[process]
