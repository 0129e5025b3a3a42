"""Digests of what a training writes: of a checkpoint beside its files, of everything else in a stage's result.

Whoever reads such a file hashes it in full first, so that no step uses what has changed since it was written.
Imports no torch, for `vlmill verify` reads digests too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import write_atomically
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.seal import CHANGED, read_sealed_json, seal_json

DIGESTS = "digests.json"
"""In a checkpoint: file -> sha256."""

RESULT = "result.json"
"""In a stage's folder, written last: identity, scores, and the digests of all files of the stage but checkpoints."""

REST = "A checkpoint before it is taken up when this one is deleted"


def write_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Note the sha256 of a checkpoint's files, beside those that are noted."""
    before = read_digests(folder) if (folder / DIGESTS).exists() else {}
    write_atomically(folder / DIGESTS, seal_json({"files": {**before, **digests}}))


def read_digests(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a checkpoint.

    Raises:
        StoreError: there are none, or they have changed.
    """
    found: dict[str, str] = read_sealed_json(folder / DIGESTS, REST)["files"]
    return found


def check_file(folder: Path, name: str, digests: Mapping[str, str]) -> None:
    """Hash a file in full.

    Raises:
        StoreError: it is missing, not among `digests`, or has changed since it was written.
    """
    if not (folder / name).is_file():
        raise StoreError(f"{folder / name} is missing")
    if hash_file(folder / name) != digests.get(name):
        raise StoreError(f"{folder / name} {CHANGED}")


def read_result(folder: Path) -> dict[str, Any]:
    """What `write_result` was given of a stage.

    Raises:
        StoreError: the file has changed.
    """
    return read_sealed_json(
        folder / RESULT, "Delete it and train the stage again: it goes on from its last checkpoint, and is scored anew"
    )


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write a stage's result, with the digests of all files that it has left but its checkpoints."""
    files = {name: hash_file(folder / name) for name in _list_result_files(folder)}
    write_atomically(folder / RESULT, seal_json({**result, "files": files}))


def check_result_file(folder: Path, name: str) -> None:
    """Hash a file of a finished stage.

    Raises:
        StoreError: it has changed since the stage was finished.
    """
    check_file(folder, name, read_result(folder)["files"])


def _list_result_files(folder: Path) -> Iterator[str]:
    """The files of a stage that its result answers for."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        skipped = name.parts[0] == "checkpoints" or any(part.startswith(".") for part in name.parts)
        if path.is_file() and not skipped and name.name != RESULT and not name.name.startswith("scoring-"):
            yield str(name)


def verify_training(root: Path) -> Iterator[str]:
    """Yield a line per file of a run's trainings that is not as it was written; see `verify_run`."""
    for stage in sorted(path for path in (root / "train").glob("*") if path.is_dir()):
        for folder in sorted((stage / "checkpoints").glob("[0-9]*")):
            yield from _verify_files(root, folder, read_digests)
        if (stage / RESULT).exists():
            yield from _verify_files(root, stage, lambda folder: read_result(folder)["files"])


def _verify_files(root: Path, folder: Path, read: Callable[[Path], Mapping[str, str]]) -> Iterator[str]:
    try:
        digests = read(folder)
    except StoreError as error:
        yield str(error).replace(f"{root}/", "")
        return
    for name in sorted(digests):
        try:
            check_file(folder, name, digests)
        except StoreError as error:
            yield str(error).replace(f"{root}/", "")
