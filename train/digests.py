"""Digests of what a training writes: of a checkpoint beside its files, of everything else in a stage's result.

Whoever reads such a file hashes it in full first, so that no step uses what has changed since it was written.
Imports no torch, for `vlmill verify` reads digests too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import read_json, write_atomically
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.core.seal import CHANGED, read_sealed_json, seal_json

DIGESTS = "digests.json"
"""In a checkpoint, and in the folder of a finished stage for all its files but checkpoints: file -> sha256."""

RESULT = "result.json"
"""In a stage's folder, written last: identity and scores."""

SCORING = "scoring-"
"""How files in a stage's folder begin that hold what was scored before a scoring came to its end."""

CURE = (
    "Delete what has changed: a training goes on from the checkpoint before, and a stage without result.json is "
    "scored anew"
)


def write_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Note the sha256 of a checkpoint's files, beside those that are noted."""
    before = read_digests(folder) if (folder / DIGESTS).exists() else {}
    write_atomically(folder / DIGESTS, seal_json({"files": {**before, **digests}}))


def read_digests(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a checkpoint or a finished stage.

    Raises:
        StoreError: there are none, or they have changed.
    """
    found: dict[str, str] = read_sealed_json(folder / DIGESTS, CURE)["files"]
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
    check_result_file(folder, RESULT)
    found: dict[str, Any] = read_json(folder / RESULT)
    return found


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write the digests of all files that a stage has left but its checkpoints, and last its result."""
    (folder / RESULT).unlink(missing_ok=True)
    text = json.dumps(result, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    files = {name: hash_file(folder / name) for name in _list_result_files(folder)}
    files[RESULT] = hashlib.sha256(text.encode()).hexdigest()
    write_atomically(folder / DIGESTS, seal_json({"files": files}))
    write_atomically(folder / RESULT, text)


def check_result_file(folder: Path, name: str) -> None:
    """Hash a file of a finished stage.

    Raises:
        StoreError: it has changed since the stage was finished.
    """
    try:
        check_file(folder, name, read_digests(folder))
    except StoreError as error:
        raise StoreError(
            f"{error}. Delete {folder / RESULT} and train the stage again: it goes on from its last checkpoint"
        ) from error


def check_export(export: Path) -> None:
    """Hash the files of an export that lies where it was written.

    Raises:
        StoreError: one has changed since.
    """
    folder = export.absolute().parent
    if (folder / RESULT).exists():
        for name in read_digests(folder):
            if name.startswith(f"{export.name}/"):
                check_result_file(folder, name)


def _list_result_files(folder: Path) -> Iterator[str]:
    """The files of a stage that are as they will stay, but for its result."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        skipped = name.parts[0] in {"checkpoints", DIGESTS, RESULT} or any(part.startswith(".") for part in name.parts)
        if path.is_file() and not skipped and not name.name.startswith(SCORING):
            yield str(name)


def verify_training(root: Path) -> Iterator[str]:
    """Yield a line per file of a run's trainings that is not as it was written; see `verify_run`."""
    for stage in sorted(path for path in (root / "train").glob("*") if path.is_dir()):
        for folder in sorted((stage / "checkpoints").glob("[0-9]*")):
            if isinstance(folder, RunPath) and not (folder / DIGESTS).exists():
                continue  # a killed training had begun to put it
            yield from _verify_files(root, folder)
        if (stage / RESULT).exists():
            yield from _verify_files(root, stage)


def _verify_files(root: Path, folder: Path) -> Iterator[str]:
    try:
        digests = read_digests(folder)
    except StoreError as error:
        yield str(error).replace(f"{root}/", "")
        return
    for name in sorted(digests):
        try:
            check_file(folder, name, digests)
        except StoreError as error:
            yield str(error).replace(f"{root}/", "")
