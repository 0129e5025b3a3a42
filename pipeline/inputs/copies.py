"""Copies of input files that cannot be read by range: a process keeps the last one, for the next partition of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from vlmill.pipeline.core.scratch import get_scratch


@dataclass
class _Kept:
    """The copy that this process keeps."""

    version: tuple[str, str] = ("", "")  # address and stamp of the file
    folder: Path | None = None
    path: Path | None = None
    readers: int = 0


_KEPT, _LOCK = _Kept(), Lock()


@contextmanager
def keep_copy(version: tuple[str, str], name: str, copy: Callable[[Path], None]) -> Iterator[Path]:
    """A copy of a file, made by `copy` unless it is the one that is kept.

    Args:
        version: The file's address and its stamp; without a stamp the copy goes when the context ends.
        name: What the copy is called.
        copy: Writes the file to a path.
    """
    with _LOCK:
        if version[1] and _KEPT.version == version:
            assert _KEPT.path is not None
            _KEPT.readers += 1
            path = _KEPT.path
        else:
            path = None
    if path is None:
        folder = Path(tempfile.mkdtemp(dir=get_scratch().folder))
        path = folder / name
        try:
            copy(path)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with _LOCK:
            keeps = bool(version[1]) and _KEPT.readers == 0
            if keeps:
                if _KEPT.folder is not None:
                    shutil.rmtree(_KEPT.folder, ignore_errors=True)
                _KEPT.version, _KEPT.folder, _KEPT.path, _KEPT.readers = version, folder, path, 1
        if not keeps:
            try:
                yield path
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return
    try:
        yield path
    finally:
        with _LOCK:
            _KEPT.readers -= 1
