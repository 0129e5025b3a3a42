"""Image files that rows name by their path: looked up under the folder where a source's images lie."""

from __future__ import annotations

import errno
import posixpath
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.sources.base import Picture

NO_FILE = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
"""What a path of upstream can be wrong with; any other trouble is the machine's."""


@dataclass(frozen=True)
class Files:
    """A folder, or anything that fsspec reads: `s3://bucket/images`, `zip://::/data/images.zip`."""

    folder: str

    def load(self, path: str) -> Picture:
        """The picture at a path: its bytes, or why there are none. What leads out of the folder is not looked for.

        A path is relative to the folder; an absolute one, or a `file://` address, may lie in a folder of this machine.

        Raises:
            SourceError: the folder itself is not there, or a file in it may not be read.
        """
        filesystem, start = self._opened
        inside = _find_inside(path, start if "file" in filesystem.protocol else "")
        if inside is None:
            return Picture(reason=Reason.FORBIDDEN_ADDRESS, detail="leads out of the folder of images")
        try:
            return Picture(data=filesystem.cat_file(f"{start}/{inside}" if start else inside))
        except OSError as error:
            if error.errno in NO_FILE or isinstance(error, FileNotFoundError):
                return Picture(reason=Reason.MISSING_FILE, detail=path)
            raise SourceError(f"{self.folder}/{path} cannot be read: {error}") from error

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system, and the folder in it."""
        filesystem, start = fsspec.core.url_to_fs(self.folder)
        start = start.rstrip("/")
        if start and not filesystem.isdir(start):
            raise SourceError(
                f"the folder of images {self.folder} is not there; say where it is with --set "
                "sources.NAME.images=FOLDER"
            )
        return filesystem, start


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
