"""A tar that webdataset's TarWriter writes member by member, with what differs between machines and runs fixed.

Shards and exports are made of these: no owners, mode 0644, time 0.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

PACKAGE = "webdataset"


class TarFile:
    """Writes a tar in the USTAR format at a path; a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._tar = find_tar_writer()(self._file, user="", group="", mode=0o644, mtime=0, encoder=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(*([OSError] if error else [])):  # the first error counts; half a tar is kept by nobody
            self.close()

    @property
    def offset(self) -> int:
        """Bytes so far, whole blocks."""
        return int(self._tar.tarstream.offset)

    def add(self, key: str, name: str, data: bytes) -> None:
        """Append a member of the sample `key`. One at a time: TarWriter sorts what it gets together."""
        self._tar.write({"__key__": key, name: data})

    def close(self) -> None:
        """End the tar: two blocks of zeros at least, and as many as make records whole."""
        with self._file:
            self._tar.close()


@cache
def find_tar_writer() -> Any:
    """TarWriter of the webdataset package.

    The package imports torch where that is installed: seconds, and 185 MB in every process that writes. A writer needs
    none of it, so the package is imported as it is where there is no torch, and then forgotten: whoever imports it for
    reading gets it with torch.
    """
    if PACKAGE in sys.modules or "torch" in sys.modules:
        return import_module(PACKAGE).TarWriter
    # None makes `import torch` an ImportError
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        return import_module(PACKAGE).TarWriter
    finally:
        del sys.modules["torch"]
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
