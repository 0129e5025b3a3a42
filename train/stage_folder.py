"""The folder of a stage's training: `train/<stage>/` in the folder of the run.

Of a run on object storage it is a local folder, which is copied from there when it is first asked for and put there
after each checkpoint and at the end. A checkpoint counts there when its digests are there, and a stage when its result
is: they are put last. So a kill at any moment leaves the checkpoint before, as in a folder.

Several ranks share that of the first one, so they have to be on its machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.core.scratch import get_scratch
from vlmill.pipeline.engine.lease import FOLDER as LEASES
from vlmill.pipeline.engine.lease import hold_lease
from vlmill.train.checkpoint import PARTIAL
from vlmill.train.digests import DIGESTS, RESULT
from vlmill.train.distributed import ProcessGroup

AT_ONCE = 8
"""Files that are copied from object storage at a time."""

Version = tuple[int, int]
"""Size and time of a local file, by which a change of it is known."""

_OPENED = dict[Path, tuple[RunPath, dict[str, Version]]]()
"""Local folder -> what it is a copy of, and the files that are there as they are here."""

_SHARED = dict[Path, RunPath]()
"""The same of a folder that the first rank has opened and puts."""


def open_stage_folder(directory: Path, stage: str) -> Path:
    """The folder that a stage's training reads and writes."""
    there = directory / "train" / stage
    if not isinstance(there, RunPath):
        return there
    if shared := next((folder for folder, address in _SHARED.items() if address == there), None):
        return shared
    folder = get_scratch().folder / "train" / str(there).replace("://", "/")
    if folder not in _OPENED:
        _OPENED[folder] = there, {}
        _copy_stage(there, folder, clears=os.environ.get("RANK", "0") == "0")
    return folder


def share_stage_folder(directory: Path, stage: str, group: ProcessGroup) -> Path:
    """The same for all ranks of a training, every one of which has to call it.

    Raises:
        StoreError: the run is on object storage, and a rank is on another machine than the first.
    """
    there = directory / "train" / stage
    if group.size == 1 or not isinstance(there, RunPath):
        return open_stage_folder(directory, stage)
    folder = Path(group.gather(str(open_stage_folder(directory, stage)) if group.leads else "")[0])
    if not all(group.gather(folder.is_dir())):
        raise StoreError(
            f"{directory}: ranks on several machines write one checkpoint together, in a folder that all of them see; "
            f"copy the run to one, without its tars, and train there with --shards {directory}; or take ranks of one "
            "machine"
        )
    if not group.leads:
        _SHARED[folder] = there
    return folder


def put_stage_folder(folder: Path) -> None:
    """Put what has changed since it was put last, and remove there what is here no more; nothing for other folders."""
    if folder not in _OPENED:
        return
    there, known = _OPENED[folder]
    now = dict(_list_files(folder))
    if now.get(RESULT) != known.get(RESULT):
        (there / RESULT).unlink(missing_ok=True)
    for name in sorted(now, key=lambda name: (name == RESULT, name == DIGESTS, name.endswith(DIGESTS), name)):
        if known.get(name) != now[name]:
            (there / name).put_file(folder / name)
            known[name] = now[name]
    for name in sorted(known.keys() - now.keys(), key=lambda name: (not name.endswith(DIGESTS), name)):
        (there / name).unlink(missing_ok=True)
        del known[name]


def name_stage_folder(folder: Path) -> Path:
    """The folder as people know it."""
    return _OPENED[folder][0] if folder in _OPENED else _SHARED.get(folder, folder)


@contextmanager
def hold_stage_folder(folder: Path) -> Iterator[None]:
    """Hold a stage on object storage against a second training; nothing for other folders.

    Raises:
        StoreError: another one holds it.
    """
    if folder not in _OPENED:
        yield
        return
    with hold_lease(_OPENED[folder][0]):
        yield


def _copy_stage(there: RunPath, folder: Path, *, clears: bool) -> None:
    """Copy what is complete; `clears` removes there what a killed training had begun to put."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [str(path.relative_to(there)) for path in there.rglob("*")]
    names = [name for name in names if not name.startswith(f"{LEASES}/")]
    complete = {name.removesuffix(f"/{DIGESTS}") for name in names if name.endswith(f"/{DIGESTS}")}
    whole = [name for name in names if not _is_of_checkpoint(name) or "/".join(name.split("/")[:2]) in complete]
    for name in sorted({*names} - {*whole}) if clears else ():
        (there / name).unlink(missing_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda name: (there / name).copy_to(folder / name), whole):
            pass
    _OPENED[folder][1].update(_list_files(folder))


def _is_of_checkpoint(name: str) -> bool:
    return name.startswith("checkpoints/") and name.count("/") > 1


def _list_files(folder: Path) -> Iterator[tuple[str, Version]]:
    """Name and version of each file that is complete."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name.name != ".lock" and not any(part.startswith(PARTIAL) for part in name.parts):
            stat = path.stat()
            yield str(name), (stat.st_size, stat.st_mtime_ns)
