"""Files that data name: regular ones inside one folder, opened without waiting, whatever links and devices lie there.

Used where a row or an address says which file is meant. What a person names on the command line goes another way.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from vlmill.pipeline.core.reasons import Reason

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC

AT_ONCE = 1 << 20
"""Bytes that are read at a time."""


class FileRefused(Exception):  # noqa: N818 - a verdict about a name, not a programming error
    """A file is not opened: `reason` is FORBIDDEN_ADDRESS, MISSING_FILE or TOO_MANY_BYTES."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def open_confined(folder: Path, name: str) -> BinaryIO:
    """The regular file of that name inside a folder; links that stay in the folder are followed.

    The name is resolved first. Then the folder's own path leads to the file one step after the other, and no step is a
    link any more, so a link that is put there meanwhile leads nowhere.

    Raises:
        FileRefused: it lies outside, by `..` or a link, or is a folder, a pipe, a socket or a device.
        OSError: it is not there, or may not be read.
    """
    root = Path(os.path.realpath(folder))
    real = Path(os.path.realpath(root / name))
    if not real.is_relative_to(root) or real == root:
        raise FileRefused(Reason.FORBIDDEN_ADDRESS, "leads out of its folder")
    *parents, last = real.relative_to(root).parts
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parents:
            outer, here = here, os.open(part, FOLDER, dir_fd=here)
            os.close(outer)
        if not stat.S_ISREG(os.stat(last, dir_fd=here, follow_symlinks=False).st_mode):
            raise FileRefused(Reason.MISSING_FILE, "is no regular file")
        file = os.fdopen(os.open(last, FILE, dir_fd=here), "rb")
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileRefused(Reason.MISSING_FILE, "is no regular file")
    return file


def read_bounded(file: BinaryIO, largest: int) -> bytes:
    """All bytes of an open file, which may say that it has fewer than come.

    Raises:
        FileRefused: TOO_MANY_BYTES, after `largest` and one more.
    """
    parts, room = list[bytes](), largest + 1
    while part := file.read(min(room, AT_ONCE)):  # one read of `largest` bytes takes memory for all of them
        parts.append(part)
        room -= len(part)
    if not room:
        raise FileRefused(Reason.TOO_MANY_BYTES, f"more than {largest:,} bytes")
    return b"".join(parts)
