"""Files that are not on this machine, read by range: each read is a request for just those bytes.

`hub.py` reads those of the Hub so, `files.py` those of anything that fsspec reads.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import fsspec

from vlmill.pipeline.core.errors import SourceError, VlmillError
from vlmill.pipeline.core.object_store import CURES, SCHEME, describe_client, find_code

AGAIN = "run the same command again when it can be had"
REFUSALS = frozenset({"AccessDenied", "status 401", "status 403"})
UNREADABLE = (
    "the keys or the role of this process may not read it, or it is not there and they may not list the bucket: they "
    "need to list and read objects there"
)
MISSING_BUCKET = "NoSuchBucket"
LONGEST = 300
"""Of what other storages than S3 say, so many characters of the first line at most are repeated."""


class RangedReader(io.RawIOBase):
    """A file of known size, for libraries that seek in it. Whoever derives from it has `fetch_range`."""

    def __init__(self, size: int) -> None:
        self._size, self._place = size, 0

    def fetch_range(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop), all of them.

        Raises:
            SourceError: they cannot be had.
        """
        raise NotImplementedError

    def readable(self) -> bool:
        """It is for reading alone."""
        return True

    def seekable(self) -> bool:
        """It can be read from any place."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; nothing is asked for."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with one request."""
        stop = min(self._place + len(buffer), self._size)
        if stop <= self._place:
            return 0
        data = self.fetch_range(self._place, stop)
        buffer[: len(data)] = data
        self._place = stop
        return len(data)


@dataclass(frozen=True, slots=True)
class RangedFile:
    """A file of a file system of fsspec in the place of a path: it can be opened, and is read by range."""

    url: str
    size: int
    stamp: str = ""  # what the listing had of its version; empty: it is not compared

    def __str__(self) -> str:
        return self.url

    def open(self, mode: Literal["rb"] = "rb") -> io.RawIOBase:
        """The file for reading.

        Raises:
            SourceError: it is another one than was listed.
        """
        del mode
        filesystem, path = find_filesystem(self.url)
        if self.stamp:
            filesystem.invalidate_cache()
            with explain_storage(self.url):
                now = make_stamp(filesystem.info(path))
            if now != self.stamp:
                raise SourceError(
                    f"{self.url} has changed since it was listed ({self.stamp} then, {now} now); run again"
                )
        return _FilesystemReader(filesystem, path, self)

    def answers_ranges(self) -> bool:
        """Whether its server sends parts; some of those that speak HTTP send the whole file."""
        if not self.url.startswith(("http://", "https://")):
            return True
        filesystem, path = find_filesystem(self.url)
        return self.size > 1 and len(filesystem.cat_file(path, start=0, end=1)) == 1


class _FilesystemReader(RangedReader):
    def __init__(self, filesystem: Any, path: str, file: RangedFile) -> None:
        super().__init__(file.size)
        self._filesystem, self._path, self._file = filesystem, path, file

    def fetch_range(self, start: int, stop: int) -> bytes:
        with explain_storage(self._file.url):
            data: bytes = self._filesystem.cat_file(self._path, start=start, end=stop)
        if len(data) != stop - start:
            raise SourceError(f"{self._file}: asked for bytes {start}-{stop - 1}, got {len(data)}; run again")
        return data


def find_filesystem(url: str) -> tuple[Any, str]:
    """The file system of fsspec that an address or a path is on, and the path there.

    Raises:
        SourceError: no installed package reads such an address.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        wanted = url.partition("://")[0]
        if wanted == SCHEME and find_spec("obstore") is not None:
            return _open_objects(), url.partition("://")[2]
        raise SourceError(
            f"{url}: reading {wanted}:// needs one more package ({error}); install it with pip"
        ) from error
    except ValueError as error:
        raise SourceError(f"{url}: {error}") from error
    return filesystem, str(path)


@contextmanager
def explain_storage(url: str) -> Iterator[None]:
    """Errors of a storage, whatever their class, as one that names the file; answers of S3 are not repeated."""
    try:
        yield
    except (VlmillError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the local disk, or already a line of its own
        raise describe_failure(url, error) from error


def describe_failure(url: str, error: Exception) -> SourceError:
    """An error of a storage, whatever its class, in a line that names the file, what was said, and what to do."""
    if isinstance(error, FileNotFoundError) and MISSING_BUCKET not in str(error):
        return SourceError(f"{url} is not there any more; put it back, or run the same command again")
    if type(error).__module__.startswith("obstore") or MISSING_BUCKET in str(error):
        said = find_code(str(error))
        cure = UNREADABLE if said in REFUSALS else CURES.get(said, AGAIN)
    else:
        line, cure = str(error).partition("\n")[0][:LONGEST], AGAIN
        said = f"{type(error).__name__}: {line}".removesuffix(": ")
    return SourceError(f"{url} cannot be read ({said}): {cure}")


def read_small(filesystem: Any, path: str, largest: int) -> bytes:
    """All of a file, or `largest` bytes and one more: where each request takes its time, by one of them.

    Raises whatever the file system does.
    """
    if not asks_servers(filesystem):
        with filesystem.open(path, "rb") as file:
            data: bytes = file.read(largest + 1)
        return data
    try:
        data = filesystem.cat_file(path, start=0, end=largest + 1)
    except Exception as error:
        no_range = "InvalidRange" in str(error) or "416" in str(error)
        if no_range and filesystem.info(path)["size"] == 0:
            return b""  # an empty object has no first byte to be asked for
        raise
    return data


def asks_servers(filesystem: Any) -> bool:
    """Whether it asks a server, which may be asked several things at once."""
    return bool(getattr(filesystem, "async_impl", False))


def _open_objects() -> Any:
    """S3 by the package that runs on object storage use, where s3fs is not installed."""
    from obstore.fsspec import FsspecStore  # noqa: PLC0415 - most runs read no such source

    return FsspecStore(SCHEME, **describe_client())


def make_stamp(info: Mapping[str, Any]) -> str:
    """What tells a version of a file: its tag, else its time, and its size; empty where a listing has neither."""
    for name in ("ETag", "etag", "e_tag", "LastModified", "last_modified", "mtime", "updated", "modified"):
        if version := info.get(name):
            return f"{name} {version} size {info.get('size')}"
    return ""
