"""Paths of a run that lies on object storage: an address for people, a local file for libraries.

`RunPath("s3://bucket/run") / "steps/web/read/manifest.json"` is a `Path`. Its text is the address. Whoever opens it,
or passes it to a library (`os.fspath`), gets a local copy of the object as it is now (`core/scratch.py`). What a run
writes goes through `write_bytes`, `create`, `take_file` and `append_text`: one object each, whole or not at all.
Nothing is renamed or changed in place, and every other way of writing is an error. A folder exists as long as an object
is in it.
"""

from __future__ import annotations

import atexit
import os
import re
import time
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PosixPath
from typing import Any, NoReturn, cast

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.object_store import SCHEME, ObjectStore, StoredObject, open_bucket
from vlmill.pipeline.core.scratch import get_scratch

AT_ONCE = 16
"""Objects that are copied at a time."""

APPENDED_EVERY = 5.0
"""Seconds after which a log that grows is put again."""


class RunPath(PosixPath):
    """A path of object storage; relative ones, as `relative_to` gives them, are plain paths.

    Raises:
        StoreError: by every method that asks the service, where it cannot be had or refuses.
    """

    __slots__ = ()

    def __str__(self) -> str:
        """The address."""
        return f"{SCHEME}://{'/'.join(self.parts[1:])}" if self.is_absolute() else super().__str__()

    def __fspath__(self) -> str:
        """A local copy of the object.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return str(get_scratch().fetch(self._store, self._key)) if self.is_absolute() else super().__fspath__()

    def __truediv__(self, key: str | os.PathLike[str]) -> RunPath:
        """The path below this one; another address or an absolute path takes its place, as of any path."""
        text = str(key)
        if text.startswith(f"{SCHEME}://"):
            return RunPath(text)
        if text.startswith("/"):
            return cast("RunPath", Path(text))  # what a recipe names on this machine
        return super().__truediv__(text)

    def __reduce__(self) -> tuple[type[RunPath], tuple[str]]:
        """As workers get it."""
        return RunPath, (str(self),)

    @property
    def _store(self) -> ObjectStore:
        return open_bucket(f"{SCHEME}://{self.parts[1]}", os.getpid())

    @property
    def _key(self) -> str:
        return "/".join(self.parts[2:])

    # -- looking ---------------------------------------------------------------------------------------------------

    def is_absolute(self) -> bool:
        """Whether it is an address."""
        return bool(self.parts) and self.parts[0] == f"{SCHEME}:"

    def absolute(self) -> RunPath:
        """Itself."""
        return self

    def resolve(self, strict: bool = False) -> RunPath:  # noqa: ARG002 - as Path has it
        """Itself."""
        return self

    def find_object(self) -> StoredObject | None:
        """The object there, without its bytes."""
        return self._store.find(self._key) if self._key else None

    def exists(self, **_: Any) -> bool:
        """Whether there is an object or a folder."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is an object."""
        return self.find_object() is not None

    def is_dir(self) -> bool:
        """Whether objects are below it."""
        return next(self._store.list_below(self._key), None) is not None

    def stat(self, **_: Any) -> os.stat_result:
        """That of the local copy: size and type count, times do not."""
        return Path(os.fspath(self)).stat()

    def iterdir(self) -> Generator[RunPath, None, None]:
        """What is right in this folder, ordered by name."""
        folders, objects = self._store.list_folder(self._key)
        names = [*folders, *(found.key for found in objects)]
        yield from (self / name.rstrip("/").rpartition("/")[2] for name in sorted(names))

    def glob(self, pattern: str) -> Generator[RunPath, None, None]:
        """What matches below this folder: of a pattern of one part files and folders, of others files alone."""
        from fsspec.utils import glob_translate  # noqa: PLC0415 - every command imports this module, few need that one

        matches = re.compile(glob_translate(pattern)).match
        if "/" not in pattern and "**" not in pattern:
            yield from (path for path in self.iterdir() if matches(path.name))
            return
        start = len(self._key) + 1
        for found in self._store.list_below(self._key):
            if matches(found.key[start:]):
                yield self / found.key[start:]

    def rglob(self, pattern: str) -> Generator[RunPath, None, None]:
        """The same at any depth."""
        yield from self.glob(f"**/{pattern}")

    # -- reading -----------------------------------------------------------------------------------------------------

    def open(self, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        """Open the local copy for reading.

        Raises:
            StoreError: for writing.
        """
        if set(mode) - set("rbt"):
            self._refuse(f"be opened with mode {mode!r}")
        return Path(os.fspath(self)).open(mode, *arguments, **options)

    def read_bytes(self) -> bytes:
        """All of a small object, as it is now."""
        return self._store.read(self._key)

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """The same as text."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    # -- writing -----------------------------------------------------------------------------------------------------

    def write_bytes(self, data: bytes) -> int:  # type: ignore[override]
        """Put an object in the place of what is there."""
        self._store.write(self._key, data)
        return len(data)

    def write_text(self, data: str, encoding: str | None = None, *_: Any, **__: Any) -> int:
        """The same of a text."""
        return self.write_bytes(data.encode(encoding or "utf-8"))

    def create(self, data: bytes) -> bool:
        """Put an object only if there is none; says whether this call has put it."""
        return self._store.create(self._key, data)

    def take_file(self, file: Path) -> None:
        """Put a local file there; it becomes the local copy."""
        etag = self._store.write(self._key, file)
        get_scratch().adopt(str(self), file, etag)

    def put_file(self, file: Path) -> None:
        """Put a copy of a local file there."""
        self._store.write(self._key, file)

    def copy_to(self, file: Path) -> None:
        """Copy the object to a local file that is not there yet.

        Raises:
            FileNotFoundError: there is no such object.
        """
        found = self.find_object()
        if found is None:
            raise FileNotFoundError(f"{self} is not there")
        file.parent.mkdir(parents=True, exist_ok=True)
        self._store.download(found, file)

    def append_text(self, text: str) -> None:
        """Add to a log that one process writes; it is put every few seconds, and when the process ends."""
        log = _LOGS.get(str(self))
        if log is None:
            log = _LOGS[str(self)] = _Log(self, self.read_bytes() if self.is_file() else b"")
        log.append(text)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object.

        Raises:
            FileNotFoundError: there is none, and `missing_ok` is not set.
        """
        if not missing_ok and not self.is_file():
            raise FileNotFoundError(f"{self} is not there")
        self._store.delete([self._key])
        get_scratch().drop(str(self))

    def remove_folder(self) -> None:
        """Remove all objects below this folder."""
        for found in list(self._store.list_below(self._key)):
            self._store.delete([found.key])
            get_scratch().drop(f"{self._store.bucket}/{found.key}")

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Nothing: a folder is there with its first object."""

    def rmdir(self) -> None:
        """Nothing: a folder goes with its last object."""

    def _refuse(self, what: str) -> NoReturn:
        raise StoreError(f"{self} cannot {what}: it lies on object storage, where files are written whole")

    def rename(self, target: Any) -> NoReturn:
        """Refused: object storage has no renaming."""
        self._refuse(f"be renamed to {target}")

    replace = rename

    def symlink_to(self, target: Any, target_is_directory: bool = False) -> NoReturn:  # noqa: ARG002
        """Refused: object storage has no links."""
        self._refuse(f"be a link to {target}")

    hardlink_to = symlink_to

    def touch(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: nobody needs it."""
        self._refuse("be touched")


class _Log:
    """A log of this process on object storage."""

    def __init__(self, path: RunPath, before: bytes) -> None:
        self._path, self._text, self._put, self._process = path, bytearray(before), 0.0, os.getpid()
        self._changed = False
        atexit.register(self.put)

    def append(self, text: str) -> None:
        self._text += text.encode()
        self._changed = True
        if time.monotonic() - self._put >= APPENDED_EVERY:
            self.put()

    def put(self) -> None:
        if self._changed and self._process == os.getpid():
            with suppress(StoreError):  # a log holds up no work, which will say more
                self._path.write_bytes(bytes(self._text))
                self._changed = False
            self._put = time.monotonic()


_LOGS = dict[str, _Log]()


def put_logs() -> None:
    """Put the logs of this process that have grown."""
    for log in _LOGS.values():
        log.put()


def find_local_paths(paths: Mapping[str, Path]) -> dict[str, Path]:
    """The same files as paths of this machine; those on object storage are copied, several at a time."""
    remote = [name for name, path in paths.items() if isinstance(path, RunPath)]
    if not remote:
        return dict(paths)
    with ThreadPoolExecutor(min(len(remote), AT_ONCE)) as pool:
        copies = dict(zip(remote, pool.map(lambda name: Path(os.fspath(paths[name])), remote), strict=True))
    return {name: copies.get(name, path) for name, path in paths.items()}
