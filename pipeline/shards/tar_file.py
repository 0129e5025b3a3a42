"""A tar that is written member by member, with what would differ between two machines or two runs fixed.

Shards and exports are made of these. The bytes are those of webdataset's TarWriter (no owners, mode 0644, time 0). That
package loads torch wherever torch is installed.
"""

from __future__ import annotations

import io
import tarfile
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class TarFile:
    """Writes a tar in the USTAR format at a path; a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w|", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed below

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
        return self._tar.offset

    def add(self, name: str, data: bytes) -> None:
        """Append a member."""
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o644
        self._tar.addfile(member, io.BytesIO(data))

    def close(self) -> None:
        """End the tar: two blocks of zeros at least, and as many as make records whole."""
        with self._file:
            self._tar.close()
