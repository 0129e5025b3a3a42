"""Image files that rows name by their path: looked up under the folder where a source's images lie."""

from __future__ import annotations

import errno
import lzma
import posixpath
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from fsspec.implementations.local import LocalFileSystem

from vlmill.pipeline.core.confined import FileRefused, open_confined, read_bounded
from vlmill.pipeline.core.errors import SourceError, VlmillError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.inputs.ranges import asks_servers, describe_failure, explain_storage, find_filesystem, read_small
from vlmill.pipeline.sources.base import Picture

NO_FILE = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
"""What a path of upstream can be wrong with; any other trouble is the machine's."""

DAMAGED = (
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    RuntimeError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)
"""What readers of archives raise over a member that is damaged, encrypted, or a link or device."""

LARGEST = 1 << 28
"""Bytes of one image file: an uncompressed picture of the most pixels that are decoded has as many."""


@dataclass(frozen=True)
class Files:
    """A folder, or anything that fsspec reads: `s3://bucket/images`, `zip://::/data/images.zip`."""

    folder: str

    @property
    def waits(self) -> bool:
        """Whether every file costs a request to object storage, of which several may be made at once.

        Servers of web pages are asked for one file at a time.
        """
        if "://" not in self.folder or self.folder.startswith(("http://", "https://")):
            return False
        return asks_servers(find_filesystem(self.folder)[0])

    def load(self, path: str) -> Picture:
        """The picture at a path: its bytes, or why there are none. What leads out of the folder is not looked for.

        A path is relative to the folder; an absolute one, or a `file://` address, may lie in a folder of this machine.
        Where there is no such file, it is looked for as `spell_path` writes it otherwise.
        Of a folder on this machine regular files alone are read, and links that stay in it are followed.

        Raises:
            SourceError: the folder itself is not there, or a file in it may not be read.
        """
        first, *others = (self._load_spelt(one) for one in spell_path(path))
        return next((one for one in (first, *others) if one.reason is None), first)

    def _load_spelt(self, path: str) -> Picture:
        """The picture at a path as it is written."""
        filesystem, start = self._opened
        inside = _find_inside(path, start if isinstance(filesystem, LocalFileSystem) else "")
        if inside is None:
            return Picture(reason=Reason.FORBIDDEN_ADDRESS, detail="leads out of the folder of images")
        try:
            return Picture(data=self._read(PurePosixPath(inside)))
        except FileRefused as refused:
            outside = refused.reason is Reason.FORBIDDEN_ADDRESS
            said = "leads out of the folder of images" if outside else f"{path} {refused.detail}"
            return Picture(reason=refused.reason, detail=said)
        except DAMAGED as error:
            return Picture(reason=Reason.MISSING_FILE, detail=f"{path}: {error}")
        except OSError as error:
            if error.errno in NO_FILE or isinstance(error, FileNotFoundError):
                return Picture(reason=Reason.MISSING_FILE, detail=path)
            raise SourceError(f"{self.folder}/{path} cannot be read: {error}") from error
        except (VlmillError, MemoryError):
            raise
        except Exception as error:
            raise describe_failure(f"{self.folder}/{path}", error) from error

    def _read(self, path: PurePosixPath) -> bytes:
        """The bytes of a file. Raises FileRefused, OSError and DAMAGED."""
        filesystem, start = self._opened
        if isinstance(filesystem, LocalFileSystem):
            with open_confined(Path(start or "/"), str(path)) as file:
                return read_bounded(file, LARGEST)
        place = f"{start}/{path}" if start else str(path)
        return read_bounded(BytesIO(read_small(filesystem, place, LARGEST)), LARGEST)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system, and the folder in it."""
        filesystem, start = find_filesystem(self.folder)
        start = start.rstrip("/")
        with explain_storage(self.folder):
            there = not start or filesystem.isdir(start)
        if not there:
            raise SourceError(
                f"the folder of images {self.folder} is not there; say where it is with --set "
                "sources.NAME.images=FOLDER"
            )
        return filesystem, start


def spell_path(path: str) -> list[str]:
    """A path of a row as it is written, and how else it may be meant.

    Windows has a backslash between folders, and an address of a file may have a blank as `%20`.
    """
    plain = unquote(path) if path.startswith("file://") and "%" in path else path
    return list(dict.fromkeys((path, plain, plain.replace("\\", "/"))))


def _find_inside(path: str, folder: str) -> str | None:
    """The path relative to the folder of images, None where it leads out of it.

    Args:
        path: as a row has it.
        folder: of this machine, in which absolute paths may lie; empty where there is none.
    """
    if folder and path.startswith("file:///"):
        path = path.removeprefix("file://")
    if "://" in path or "\0" in path:
        return None
    pure = PurePosixPath(posixpath.normpath(posixpath.join(folder, path)))
    if not folder:
        return None if pure.is_absolute() or pure.parts[:1] == ("..",) else str(pure)
    if not pure.is_relative_to(folder):  # it may still be called by another name, through a link
        same = (parent for parent in pure.parents if PurePosixPath(path).is_absolute() and _is_same(parent, folder))
        folder = str(next(same, folder))
    return str(pure.relative_to(folder)) if pure.is_relative_to(folder) else None


def _is_same(one: PurePosixPath, other: str) -> bool:
    """Whether both paths are the same folder."""
    try:
        return Path(one).samefile(other)
    except OSError:
        return False
