"""Image files that rows name by their path: looked up under the folder where a source's images lie."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
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

        Raises:
            SourceError: the folder itself is not there, or a file in it may not be read.
        """
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or "://" in path or "\0" in path:
            return Picture(reason=Reason.FORBIDDEN_ADDRESS, detail="leads out of the folder of images")
        filesystem, start = self._opened
        try:
            return Picture(data=filesystem.cat_file(f"{start}/{pure}" if start else str(pure)))
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
