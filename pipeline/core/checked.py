"""Files of a run whose sha256 a receipt or a lock has: nobody uses bytes of them that were not hashed."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.keys import hash_file

REMEMBERED = 1 << 16
"""Files whose hash this process remembers, as long as neither their size nor their time changes."""


def read_checked(path: Path, sha256: str) -> bytes:
    """All of a small file, such as a table of a shard.

    Raises:
        StoreError: it is missing, or another than the one that was written.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _explain_damage(path, error) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _explain_damage(path, "its sha256 is not the one that the run has of it")
    return data


def check_hash(path: Path, sha256: str) -> Path:
    """The path of a file that is too large to be held, after a look at all of it: the first time in this process.

    Raises:
        StoreError: it is missing, or another than the one that was written.
    """
    try:
        stat = path.stat()
        found = _hash_once(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise _explain_damage(path, error) from error
    if found != sha256:
        raise _explain_damage(path, "its sha256 is not the one that the run has of it")
    return path


@lru_cache(REMEMBERED)
def _hash_once(path: Path, inode: int, size: int, time: int) -> str:  # noqa: ARG001 - they tell when it has changed
    return hash_file(path)


def _explain_damage(path: Path, said: object) -> StoreError:
    return StoreError(f"{path} is missing or damaged ({said}), see: vlmill verify DIR")
