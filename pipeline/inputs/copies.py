"""Copies of input files that cannot be read by range: a process keeps the last one, for the next partition of it.

Of what a packed file holds it keeps the last one, too: beside the copy, since both are needed of a packed remote file.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal

from vlmill.pipeline.core.scratch import get_scratch


@dataclass
class _Kept:
    """The copy of one purpose that this process keeps."""

    version: tuple[str, str] = ("", "")  # address and stamp of the file
    folder: Path | None = None
    path: Path | None = None
    readers: int = 0


_KEPT, _LOCK = {"copied": _Kept(), "unpacked": _Kept()}, Lock()


@contextmanager
def keep_copy(
    version: tuple[str, str],
    name: str,
    copy: Callable[[Path], None],
    purpose: Literal["copied", "unpacked"] = "copied",
) -> Iterator[Path]:
    """A copy of a file, made by `copy` unless it is the one that is kept.

    Args:
        version: The file's address and its stamp; without a stamp the copy goes when the context ends.
        name: What the copy is called.
        copy: Writes the file to a path.
        purpose: One copy is kept of each.
    """
    kept = _KEPT[purpose]
    with _LOCK:
        if version[1] and kept.version == version:
            assert kept.path is not None
            kept.readers += 1
            path = kept.path
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
            keeps = bool(version[1]) and kept.readers == 0
            if keeps:
                if kept.folder is not None:
                    shutil.rmtree(kept.folder, ignore_errors=True)
                kept.version, kept.folder, kept.path, kept.readers = version, folder, path, 1
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
            kept.readers -= 1
