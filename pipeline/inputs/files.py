"""Input files: the upstream files of a source, listed by name and handed to steps for reading.

The order of names decides the file numbers, so it decides the names of partitions and shards; the listing order of a
file system or an object store never does. Input files lie on this machine, on anything fsspec reads, or on the Hugging
Face Hub.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import fsspec
from fsspec.utils import glob_translate

from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.meter import note_work
from vlmill.pipeline.inputs import hub

MAGIC = re.compile(r"[*?\[]")

COPIED = 32 << 20
"""Bytes that are asked for at a time when a whole file is copied from the Hub."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One upstream file."""

    source: str
    number: int  # its place among the source's files, ordered by name
    name: str  # relative to the source's root, with "/"
    url: str  # where it lies now; in no key and no file
    size: int = 0  # in bytes; 0 where its file system does not say
    sha256: str = ""  # of its content, where the listing knows it
    ranged: bool = False  # whether its source asks for parts of it, so that it need not be copied

    @property
    def on_hub(self) -> bool:
        """Whether it lies on the Hugging Face Hub."""
        return hub.is_hub(self.url)


def find_filesystem(url: str) -> tuple[Any, str]:
    """The file system of fsspec that an address or a path is on, and the path there.

    Raises:
        SourceError: no installed package reads such an address.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        wanted = url.partition("://")[0]
        raise SourceError(
            f"{url}: reading {wanted}:// needs one more package ({error}); install it with pip"
        ) from error
    except ValueError as error:
        raise SourceError(f"{url}: {error}") from error
    return filesystem, str(path)


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
    """
    if pattern is None and split is not None:
        return _number_files(source, hub.find_split(root, subset, split), ranged)
    if pattern is None:
        raise SourceError(f"source {source!r}: neither a pattern of files nor a split says what to read below {root}")
    if hub.is_hub(root):
        return _number_files(source, hub.find_files(root, pattern), ranged)
    base = f"{root.rstrip('/')}/"
    try:
        filesystem, start = find_filesystem(base)
    except SourceError as error:
        raise SourceError(
            f"source {source!r}: {root} cannot be read ({error}); say where its files are with "
            f"--source {source.partition('.')[0]}=PATH"
        ) from error
    start = f"{start.rstrip('/')}/"
    sizes = _match_files(filesystem, start, pattern)
    found = sorted(sizes)
    if not found:
        raise SourceError(
            f"source {source!r}: no file matches {base}{pattern}; say where they are with "
            f"--source {source.partition('.')[0]}=PATH. PATH is a folder with files that match {pattern}, or a pattern "
            f"such as {base}*.parquet, which takes the place of `files`"
        )
    return [
        InputFile(source, number, name, filesystem.unstrip_protocol(start + name), sizes[name])
        for number, name in enumerate(found)
    ]


def _match_files(filesystem: Any, start: str, pattern: str) -> dict[str, int]:
    """Names and sizes of the files below a folder that match a pattern, as fsspec's glob has it.

    A file of just this name is meant by it, whatever it is called. No letter of the folder's own name is a pattern.
    """
    if "[" in pattern and filesystem.isfile(start + pattern):
        return {pattern: filesystem.info(start + pattern).get("size") or 0}
    if MAGIC.search(start):
        fixed = posixpath.dirname(MAGIC.split(pattern, maxsplit=1)[0])
        matches = re.compile(glob_translate(pattern)).match
        listed = filesystem.find(start + fixed, detail=True)
    else:
        matches, listed = None, filesystem.glob(start + pattern, detail=True)
    sizes = {path[len(start) :]: one.get("size") or 0 for path, one in listed.items() if one.get("type") != "directory"}
    return sizes if matches is None else {name: size for name, size in sizes.items() if matches(name)}


def _number_files(source: str, entries: list[hub.HubFile], ranged: Callable[[str], bool]) -> list[InputFile]:
    ordered = sorted(entries, key=lambda entry: entry.name)
    return [
        InputFile(source, number, e.name, e.url, e.size, e.sha256, ranged(e.name)) for number, e in enumerate(ordered)
    ]


@contextmanager
def open_input(input_file: InputFile) -> Iterator[Path]:
    """The input file as its source reads it.

    A file of the Hub is read by range if that is enough for the source; else it is a local file.
    """
    if input_file.on_hub and input_file.ranged:
        yield cast(
            "Path", hub.RemoteFile(input_file.url, input_file.size)
        )  # such a source opens its input file, and no more
        return
    with open_local(input_file) as path:
        yield path


@contextmanager
def open_local(input_file: InputFile) -> Iterator[Path]:
    """The input file as a local file: itself where it is local, else a copy for as long as the context lasts."""
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
    with tempfile.TemporaryDirectory(prefix="vlmill-input file-") as folder:
        copy = Path(folder) / Path(place).name
        filesystem.get_file(place, str(copy))
        yield copy


@contextmanager
def _copy_file(input_file: InputFile) -> Iterator[Path]:
    """A copy of a file on the Hub, checked against its sha256."""
    with tempfile.TemporaryDirectory(prefix="vlmill-input file-") as folder:
        copy = Path(folder) / Path(input_file.name).name
        with hub.RemoteFile(input_file.url, input_file.size).open() as remote, copy.open("wb") as file:
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
        with open_local(input_file) as path:
            sha256, size = hash_file(path), path.stat().st_size
            note_work(size=size)
            return sha256, size
    except OSError as error:
        raise SourceError(f"source {input_file.source!r}: {input_file.name} cannot be read: {error}") from error
