"""Files that are written whole or not at all, and JSON that is read with an error that names the file.

Here alone a file of a run is written in two ways: in a folder it is moved into place, on object storage it is put.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import StoreError, VlmillError
from vlmill.pipeline.core.run_path import RunPath

TEMPORARY = ".tmp-"
TEMPORARY_NAME = re.compile(rf"{re.escape(TEMPORARY)}(.+)-[0-9a-f]{{32}}")

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Numbers of errors that say that no more can be written."""


NO_SPACE = "no space is left on its disk"

LITTLE = 1 << 20
"""Bytes below which a disk counts as full, once something could not be written: what had been begun may be gone."""

CUT_SHORT = re.compile(r"\d+ requested and \d+ written")
"""What numpy says of a disk that took a part of an array; it has no number of an error."""


def explain_full_disk(error: BaseException, place: Path | None = None, maybe: Iterable[Path] = ()) -> str:
    """What to do where an error, or one that led to it, is about a full disk; empty for any other.

    Args:
        error: Libraries wrap the system's error in their own, or tell it in words. One of ours that says it is
            repeated.
        place: What was written; else what the error names.
        maybe: Other places that may have been written: the first of all whose disk is full is named.
    """
    if isinstance(error, VlmillError) and NO_SPACE in str(error):
        return str(error)
    if isinstance(error, OSError) and error.errno in FULL:
        full, named = True, error.filename
    else:
        told = os.strerror(errno.ENOSPC) in str(error) or CUT_SHORT.fullmatch(str(error)) is not None
        full, named = told and not isinstance(error, VlmillError), None
    if not full:
        return explain_full_disk(error.__cause__, place, maybe) if error.__cause__ else ""
    places = [Path(os.fsdecode(named))] if named and place is None else [place] if place else []
    where = find_full_disk([*places, *maybe]) or next(iter(places), "a file of this command")
    return (
        f"{where} cannot be written: {NO_SPACE}, or in your quota of it; make room and run the same "
        "command again: what is committed is kept"
    )


def find_full_disk(places: Iterable[Path]) -> Path | None:
    """The first place whose disk has next to no room left, of those on this machine; None where each has some."""
    for place in places:
        if isinstance(place, RunPath):
            continue
        there = next((one for one in (place.absolute(), *place.absolute().parents) if one.exists()), None)
        if there is not None and shutil.disk_usage(there).free < LITTLE:
            return place
    return None


REFUSED = {
    errno.EROFS: "its file system is read-only",
    errno.EACCES: "you may not",
    errno.EPERM: "you may not",
    errno.EEXIST: "it is there, and no folder",
    errno.ENOTDIR: "a part of it is there, and no folder",
    errno.EISDIR: "it is a folder",
    errno.ENOENT: "nothing can be made in its folder",
}
"""Numbers of errors that say that a place takes no files, and why."""


def find_refused_write(error: BaseException) -> Path | None:
    """The file or folder that cannot be made or opened in its place; None for any other error.

    A temporary name is that of the file that it was for.
    """
    if not isinstance(error, OSError) or error.errno not in REFUSED or not error.filename:
        return None
    path = Path(os.fsdecode(error.filename))
    if error.errno == errno.ENOENT and not (TEMPORARY_NAME.fullmatch(path.name) or _keeps_no_files(path.parent)):
        return None  # it was to be read
    if found := TEMPORARY_NAME.fullmatch(path.name):
        path = path.with_name(found[1])
    return path


def explain_refused_write(error: BaseException) -> str:
    """What is wrong where a file cannot be made or opened in a place; empty for any other error."""
    path = find_refused_write(error)
    if path is None:
        return ""
    assert isinstance(error, OSError)
    return f"{path} cannot be made or opened: {REFUSED[error.errno or 0]}{_name_owner(path, error.errno)}"


def _name_owner(path: Path, number: int | None) -> str:
    """Whose the file, or else the nearest folder above it that is there, is, where this process may not."""
    if number not in (errno.EACCES, errno.EPERM):
        return ""
    for there in (path, *path.parents):
        with suppress(OSError):
            found, you = there.stat(), os.geteuid()
            return f" ({there} belongs to user {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}; you are {you})"
    return ""


def follow_umask(path: Path) -> None:
    """Give a file the mode that new files have here; some libraries write files that their owner alone can read."""
    beside = path.with_name(f"{TEMPORARY}{path.name}-{uuid.uuid4().hex}")
    beside.touch()
    mode = stat.S_IMODE(beside.stat().st_mode)
    beside.unlink()
    path.chmod(mode)


def _keeps_no_files(folder: Path) -> bool:
    """Whether a folder is of a file system without room for files, as `/proc` is."""
    try:
        return os.statvfs(folder).f_blocks == 0
    except OSError:
        return False


def read_json(path: Path) -> Any:
    """What a file of the run holds.

    Raises:
        StoreError: it is damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreError(f"{path} is damaged ({error}); delete it and build again: what is sound is kept") from error


def write_atomically(path: Path, value: Any, *, only_if_absent: bool = False) -> bool:
    """Write JSON (or a text) under a temporary name, flush it, and move it into place. Says whether it was written.

    With `only_if_absent` a file that is there stays, and the answer is False; so is one that holds the same already.

    Raises:
        StoreError: the disk is full.
    """
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    if not isinstance(path, RunPath) and path.exists() and not path.is_file():
        raise StoreError(f"{path} cannot be written: it is there, and no regular file; give another name")
    if not only_if_absent and path.exists() and path.read_bytes() == text.encode():
        return False
    if isinstance(path, RunPath):
        return path.create(text.encode()) if only_if_absent else path.write_bytes(text.encode()) >= 0
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{uuid.uuid4().hex}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if only_if_absent:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        else:
            temporary.replace(path)
        flush_path(path.parent)
    except OSError as error:
        if hint := explain_full_disk(error, path):
            raise StoreError(hint) from error
        raise
    else:
        return True
    finally:
        temporary.unlink(missing_ok=True)


def move_file(file: Path, target: Path) -> None:
    """Move a file that was just written, and flushed, to its place in the run: by name, or by putting it there."""
    if isinstance(target, RunPath):
        target.take_file(file)
    else:
        file.replace(target)


def copy_file(file: Path, target: Path) -> None:
    """Copy a file of the run in the run. Nothing is changed in place, since a folder may be made of hard links."""
    if isinstance(target, RunPath):
        target.write_bytes(file.read_bytes())
    else:
        target.unlink(missing_ok=True)
        shutil.copyfile(file, target)


def remove_folder(folder: Path) -> None:
    """Remove a folder of the run and all that is in it; nothing where there is none."""
    if isinstance(folder, RunPath):
        folder.remove_folder()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def append_text(path: Path, text: str) -> None:
    """Add whole lines to a log that one process writes."""
    if isinstance(path, RunPath):
        path.append_text(text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def flush_path(path: Path) -> None:
    """Have the kernel put a file or a folder's entries on disk; what is on object storage is there for good."""
    if isinstance(path, RunPath):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
