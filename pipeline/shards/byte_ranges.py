"""Parts of shards, read by range from where the shards lie: a folder, or any storage that fsspec knows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.object_store import SCHEME, ObjectStore


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A part of a file."""

    path: str  # relative to the place
    offset: int
    size: int
    sha256: bytes | None = None  # that these bytes have to have; None: whatever is there is taken


class ShardStorage:
    """Where the shards of a run lie. In no key and no file; safe to share among threads.

    Args:
        root: A folder, or the address of one that fsspec reads: `s3://bucket/run`.

    Raises:
        RecipeError: no installed package reads such an address.
    """

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._remote: Any
        try:
            filesystem, start = fsspec.core.url_to_fs(root)
            self._remote = None if isinstance(filesystem, LocalFileSystem) else filesystem
        except (ImportError, ValueError) as error:
            scheme, _, start = root.partition("://")
            if scheme != SCHEME or find_spec("obstore") is None:
                raise RecipeError(f"shards at {root}: {error}") from error
            self._remote = ObjectStore(f"{SCHEME}://{start.partition('/')[0]}")  # where s3fs is not installed
        self._start: str = start.rstrip("/")

    def read(self, spans: Sequence[ByteRange]) -> Iterator[bytes]:
        """The bytes of spans, in order: from a folder one after the other; from elsewhere all are asked for at once.

        Raises:
            StoreError: they cannot be had, or not all of them, or they have another sha256.
        """
        found = self._local(spans) if self._remote is None else self._ranges(spans)
        for span, data in zip(spans, found, strict=True):
            if isinstance(data, Exception):
                raise StoreError(f"{self._asked(span)}, and {_describe_error(data)}. {self._cure(data)}") from data
            if len(data) != span.size:
                raise self.damage(span, f"{len(data)} came")
            if span.sha256 is not None and hashlib.sha256(data).digest() != span.sha256:
                raise self.damage(span, "their sha256 is not the one in the shard's index")
            yield data

    def damage(self, span: ByteRange, found: str) -> StoreError:
        """The error that what was read is not what the shard's index says."""
        return StoreError(f"{self._asked(span)}, and {found}. {self._cure(None)}")

    def _asked(self, span: ByteRange) -> str:
        return f"{self.root}/{span.path}: {span.size} bytes at {span.offset} were asked for"

    def _cure(self, error: Exception | None) -> str:
        if self._remote is None:
            return "The shard or its index is missing or damaged; vlmill verify DIR says what the folder of a run lacks"
        if error is None:
            return "What lies there is no copy of the run's shard; copy it there again"
        if isinstance(error, FileNotFoundError):
            return "Copy the run's shards there, under the paths that they have in its folder"
        return "Run the same command again when the storage can be had: a training goes on from its last checkpoint"

    def _local(self, spans: Sequence[ByteRange]) -> Iterator[bytes | Exception]:
        for span in spans:
            try:
                descriptor = os.open(Path(self._start, span.path), os.O_RDONLY)
                try:
                    yield os.pread(descriptor, span.size, span.offset)
                finally:
                    os.close(descriptor)
            except OSError as error:
                yield error

    def _ranges(self, spans: Sequence[ByteRange]) -> list[bytes | Exception]:
        """The bytes of each span, or why they cannot be had; asked for twice, since servers close idle connections."""
        found = self._ask(spans)
        failed = [place for place, data in enumerate(found) if isinstance(data, Exception)]
        for place, data in zip(failed, self._ask([spans[place] for place in failed]) if failed else (), strict=True):
            found[place] = data
        return found

    def _ask(self, spans: Sequence[ByteRange]) -> list[bytes | Exception]:
        paths = [f"{self._start}/{span.path}" for span in spans]
        starts, ends = [span.offset for span in spans], [span.offset + span.size for span in spans]
        try:
            found: list[bytes | Exception] = self._remote.cat_ranges(paths, starts, ends, on_error="return")
        except Exception as error:  # noqa: BLE001 - each storage has errors of its own, and some raise before any read
            return [error] * len(spans)
        return found


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
