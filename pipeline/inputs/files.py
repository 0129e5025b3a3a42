"""Input files: the upstream files of a source, listed by name and handed to steps for reading.

The order of names decides the file numbers, so it decides the names of partitions and shards; the listing order of a
file system or an object store never does. Input files lie on this machine, on anything fsspec reads, or on the Hugging
Face Hub.
"""

from __future__ import annotations

import glob
import hashlib
import io
import posixpath
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fsspec.utils import glob_translate

from vlmill.pipeline.core.errors import SourceError, StoreError
from vlmill.pipeline.core.files import explain_full_disk
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.meter import note_work
from vlmill.pipeline.core.places import check_encodable, suggest_near
from vlmill.pipeline.inputs.copies import keep_copy
from vlmill.pipeline.inputs.hub_files import HubFile, RemoteFile, is_hub
from vlmill.pipeline.inputs.ranges import RangedFile, explain_storage, find_filesystem, make_stamp

MAGIC = re.compile(r"[*?\[]")

BELOW = 200
"""Folders that are looked into for files that are not where they were said to be."""

AT_ONCE = 16
"""Files that are asked for at a time, where they are elsewhere."""

COPIED = 32 << 20
"""Bytes that are asked for at a time when a whole file is read."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One upstream file."""

    source: str
    number: int  # its place among the source's files, ordered by name
    name: str  # relative to the source's root, with "/"
    url: str  # where it lies now; in no key and no file
    size: int = 0  # in bytes; 0 where its file system does not say
    sha256: str = ""  # of its content, where the listing knows it, or once it was hashed
    ranged: bool = False  # whether its source asks for parts of it, so that it need not be copied
    stamp: str = ""  # what a listing says of its version, where it is not on this machine

    @property
    def on_hub(self) -> bool:
        """Whether it lies on the Hugging Face Hub."""
        return is_hub(self.url)

    @property
    def on_disk(self) -> bool:
        """Whether it lies in a file system of this machine."""
        return "://" not in self.url or self.url.startswith(("file://", "local://"))


def is_remote_folder(place: str) -> bool:
    """Whether an address is that of a folder. One whose storage cannot be asked is none: reading it will say why."""
    if "://" not in place or is_hub(place) or MAGIC.search(place):
        return False
    try:
        filesystem, path = find_filesystem(place)
        return bool(filesystem.isdir(path))
    except Exception:  # noqa: BLE001 - each storage has errors of its own
        return False


def list_input_files(
    source: str,
    root: str,
    pattern: str | None,
    *,
    subset: str | None = None,
    split: str | None = None,
    ranged: Callable[[str], bool] = lambda _: False,
) -> list[InputFile]:
    """The files of a source, ordered by name.

    Args:
        source: Its name.
        root: A folder, an fsspec URL, or `hf://datasets/OWNER/NAME[@REVISION][/FOLDER]`.
        pattern: Which files below it; None for those of a split.
        subset: Of a repository on the Hub, which names its files itself; None for its only or default one.
        split: Of the subset.
        ranged: Whether the source asks for parts of a file of this name.

    Raises:
        SourceError: there is none, or the Hub is not to be had.
        StoreError: the name of one is not UTF-8.
    """
    if pattern is None and split is None:
        raise SourceError(f"source {source!r}: neither a pattern of files nor a split says what to read below {root}")
    if pattern is None or is_hub(root):
        return _number_files(source, _list_hub_files(root, pattern, subset, split), ranged)
    base = f"{root.rstrip('/')}/"
    check_encodable(base)
    try:
        filesystem, start = find_filesystem(base)
    except SourceError as error:
        raise SourceError(
            f"source {source!r}: {root} cannot be read ({error}); say where its files are with "
            f"--source {source.partition('.')[0]}=PATH"
        ) from error
    start = f"{start.rstrip('/')}/"
    with explain_storage(f"source {source!r}: {root}"):
        there = _match_files(filesystem, start, pattern)
    found = sorted(there)
    if not found:
        raise SourceError(
            f"source {source!r}: no file matches {base}{pattern}{_explain_absence(filesystem, root, start, pattern)}; "
            f"say where they are with --source {source.partition('.')[0]}=PATH. PATH is a folder with files that match "
            f"{pattern}, or a pattern such as {base}*{posixpath.splitext(pattern)[1] or '.parquet'}, which takes the "
            "place of `files`"
        )
    for name in found:
        check_encodable(name)
    here = "file" in filesystem.protocol
    return [
        InputFile(
            source,
            number,
            name,
            filesystem.unstrip_protocol(start + name),
            there[name].get("size") or 0,
            ranged=not here and bool(there[name].get("size")) and ranged(name),
            stamp="" if here else make_stamp(there[name]),
        )
        for number, name in enumerate(found)
    ]


def _explain_absence(filesystem: Any, root: str, start: str, pattern: str) -> str:
    """Why a pattern below a folder matches no file, where that shows; else empty."""
    if pattern.startswith(("/", "~")):
        return " (`files` is a pattern below `root`, and not a path of its own)"
    if "/~" in f"/{root}":
        return " (`root` is taken as it is: write the whole path in place of ~)"
    if "file" not in filesystem.protocol:
        return ""
    if not filesystem.isdir(start):
        return f" (there is no such folder{suggest_near(root, Path.is_dir)})"
    below = [folder for folder in sorted(Path(start).iterdir())[:BELOW] if folder.is_dir()]
    found = next((folder.name for folder in below if _match_files(filesystem, f"{folder}/", pattern)), "")
    near = "" if glob.has_magic(pattern) else suggest_near(Path(start, pattern)).removeprefix("; ")
    said = f"in {found}/ there are some: {found}/{pattern}" if found else near
    return f" ({said})" if said else ""


def _match_files(filesystem: Any, start: str, pattern: str) -> dict[str, Mapping[str, Any]]:
    """Names of the files, and what a listing has of them, below a folder that match a pattern, as fsspec's glob has it.

    A file of just this name is meant by it, whatever it is called. No letter of the folder's own name is a pattern.
    """
    if "[" in pattern and filesystem.isfile(start + pattern):
        return {pattern: filesystem.info(start + pattern)}
    if MAGIC.search(start):
        fixed = posixpath.dirname(MAGIC.split(pattern, maxsplit=1)[0])
        matches = re.compile(glob_translate(pattern)).match
        listed = filesystem.find(start + fixed, detail=True)
    else:
        matches, listed = None, filesystem.glob(start + pattern, detail=True)
    files = {path[len(start) :]: one for path, one in listed.items() if one.get("type") != "directory"}
    return files if matches is None else {name: one for name, one in files.items() if matches(name)}


def _list_hub_files(root: str, pattern: str | None, subset: str | None, split: str | None) -> list[HubFile]:
    from vlmill.pipeline.inputs import hub  # noqa: PLC0415 - imports huggingface_hub

    if pattern is not None:
        return hub.find_files(root, pattern)
    assert split is not None
    return hub.find_split(root, subset, split)


def _number_files(source: str, entries: list[HubFile], ranged: Callable[[str], bool]) -> list[InputFile]:
    ordered = sorted(entries, key=lambda entry: entry.name)
    return [
        InputFile(source, number, e.name, e.url, e.size, e.sha256, ranged(e.name)) for number, e in enumerate(ordered)
    ]


@contextmanager
def open_input(input_file: InputFile) -> Iterator[Path]:
    """The input file as its source reads it.

    A file elsewhere is read by range if that is enough for the source; else it is a local file.
    """
    remote = _open_ranges(input_file)
    if remote is not None:
        yield cast("Path", remote)  # such a source opens its input file, and no more
        return
    with open_local(input_file) as path:
        yield path


def _open_ranges(input_file: InputFile) -> RemoteFile | RangedFile | None:
    """What is like a path and read by range; None for what has to be a local file."""
    if not input_file.ranged:
        return None
    if input_file.on_hub:
        return RemoteFile(input_file.url, input_file.size)
    remote = RangedFile(input_file.url, input_file.size, input_file.stamp)
    return remote if remote.answers_ranges() else None


@contextmanager
def open_inputs(input_files: Mapping[str, InputFile]) -> Iterator[dict[str, Path]]:
    """Several input files as `open_input` gives each, by their names; those elsewhere are asked for at once."""
    with ExitStack() as stack:
        here = {name: file for name, file in input_files.items() if file.on_disk}
        opened = {name: stack.enter_context(open_input(file)) for name, file in here.items()}
        elsewhere = [name for name in input_files if name not in here]
        if elsewhere:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                opened |= zip(
                    elsewhere,
                    pool.map(lambda name: stack.enter_context(open_input(input_files[name])), elsewhere),
                    strict=True,
                )
        yield opened


@contextmanager
def open_local(input_file: InputFile) -> Iterator[Path]:
    """The input file as a local file: itself where it is local, else a copy, which is kept until the next one."""
    if input_file.on_hub:
        with _copy_file(input_file) as path:
            yield path
        return
    filesystem, place = find_filesystem(input_file.url)
    if "file" in filesystem.protocol:
        if Path(place).exists() and not Path(place).is_file():
            raise SourceError(f"{place} is no regular file; leave it out of the source's pattern of files")
        yield Path(place)
        return
    version, name = (input_file.url, input_file.stamp), Path(place).name
    with keep_copy(version, name, lambda path: _download_file(filesystem, input_file, place, path)) as path:
        yield path


def _download_file(filesystem: Any, input_file: InputFile, place: str, path: Path) -> None:
    """Copy a file, and check that it is still what it was when it was hashed, if that is known."""
    try:
        with explain_storage(input_file.url):
            filesystem.get_file(place, str(path))
    except (OSError, SourceError) as error:
        if hint := explain_full_disk(error, path):
            raise StoreError(hint) from error
        raise
    if input_file.sha256 and hash_file(path) != input_file.sha256:
        raise SourceError(f"{input_file.url} has changed since it was hashed ({input_file.sha256}); run again")


@contextmanager
def _copy_file(input_file: InputFile) -> Iterator[Path]:
    """A copy of a file on the Hub, checked against its sha256."""
    with tempfile.TemporaryDirectory(prefix="vlmill-input file-") as folder:
        copy = Path(folder) / Path(input_file.name).name
        with RemoteFile(input_file.url, input_file.size).open() as remote, copy.open("wb") as file:
            shutil.copyfileobj(remote, file, COPIED)
        if input_file.sha256 and hash_file(copy) != input_file.sha256:
            raise SourceError(
                f"{input_file.url}: what came is not what the Hub lists (sha256 {input_file.sha256}); run it again"
            )
        yield copy


def hash_input(input_file: InputFile) -> tuple[str, int]:
    """sha256 and size of an input file, read in full unless the listing has them.

    Its content decides every key that follows.
    """
    if input_file.sha256:
        return input_file.sha256, input_file.size
    try:
        if (remote := _open_ranges(input_file)) is not None:
            with remote.open() as file:
                sha256, size = _hash_parts(file), input_file.size
        else:
            with open_local(input_file) as path:
                sha256, size = hash_file(path), path.stat().st_size
    except OSError as error:
        raise SourceError(f"source {input_file.source!r}: {input_file.name} cannot be read: {error}") from error
    note_work(size=size)
    return sha256, size


def hash_inputs(input_files: Sequence[InputFile]) -> list[tuple[str, int]]:
    """sha256 and size of each, as `hash_input` has them; of files elsewhere several are read at a time."""
    if len(input_files) == 1:
        return [hash_input(input_files[0])]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(hash_input, input_files))


def _hash_parts(file: io.RawIOBase) -> str:
    """sha256 of a file that is read by range: nothing of it is written to a disk."""
    digest = hashlib.sha256()
    while part := file.read(COPIED):
        digest.update(part)
    return digest.hexdigest()
