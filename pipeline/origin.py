"""Origins: the upstream files of a source, listed by name and handed to steps as local files.

The order of names decides the file numbers, so it decides the names of partitions and shards; the listing order of a file
system or an object store never does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import fsspec

from pipeline.errors import SourceError
from pipeline.keys import file_sha256, to_json
from pipeline.sources import Source
from pipeline.step import Count, Counts, Inputs


@dataclass(frozen=True, slots=True)
class Origin:
    """One upstream file."""

    source: str
    number: int  # its place among the source's files, ordered by name
    name: str  # relative to the source's root, with "/"
    url: str  # where it lies now; in no key and no file


def list_origins(source: str, root: str, pattern: str) -> list[Origin]:
    """The files under `root` (a folder or an fsspec URL) that match `pattern`, ordered by name.

    Raises:
        SourceError: there is none.
    """
    base = f"{root.rstrip('/')}/"
    filesystem, start = fsspec.core.url_to_fs(base)
    start = f"{start.rstrip('/')}/"
    found = sorted(path[len(start) :] for path in filesystem.glob(start + pattern) if not filesystem.isdir(path))
    if not found:
        raise SourceError(
            f"source {source!r}: no file matches {base}{pattern}; say where they are with --source {source}=PATH"
        )
    return [
        Origin(source, number, name, filesystem.unstrip_protocol(start + name)) for number, name in enumerate(found)
    ]


@contextmanager
def local(origin: Origin) -> Iterator[Path]:
    """The origin as a local file: itself where it is local, else a copy for as long as the context lasts."""
    filesystem, path = fsspec.core.url_to_fs(origin.url)
    if "file" in filesystem.protocol:
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="vlmill-origin-") as folder:
        copy = Path(folder) / Path(path).name
        filesystem.get_file(path, str(copy))
        yield copy


def content(origin: Origin) -> tuple[str, int]:
    """sha256 and size of an origin, read in full: its content decides every key that follows."""
    try:
        with local(origin) as path:
            return file_sha256(path), path.stat().st_size
    except OSError as error:
        raise SourceError(f"source {origin.source!r}: {origin.name} cannot be read: {error}") from error


def cut(weights: list[int], rows: int, size: int) -> list[tuple[int, int]]:
    """Bounds [start, stop) of chunks with at most `rows` rows and about `size` bytes, at least one row each, in order."""
    bounds, start, held = [], 0, 0
    for row, weight in enumerate(weights):
        if row > start and (row - start >= rows or held + weight > size):
            bounds.append((start, row))
            start, held = row, 0
        held += weight
    return [*bounds, (start, len(weights))] if weights else []


@dataclass(frozen=True)
class Survey:
    """Step: where to cut an origin file into partitions. Leaves `cuts.json`, a list of [start, stop)."""

    name: ClassVar[str] = "survey"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    source: Source
    rows: int
    size: int

    @property
    def reads(self) -> tuple[str, ...]:
        """The origin alone."""
        return ("origin",)

    def made_by(self) -> Mapping[str, str]:
        """Nothing that could differ."""
        return {}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Weigh the rows of the origin and cut."""
        weights = self.source.survey(inputs["origin"])
        (folder / "cuts.json").write_text(to_json(cut(weights, self.rows, self.size)), encoding="utf-8")
        return {"surveyed": Count(len(weights), len(weights))}
