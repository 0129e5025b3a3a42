"""How hosts answered while a partition was fetched: a small table beside its images, so that nobody reads those for it.

Part of fetch. `vlmill status` and the viewer show it, also while a build runs and on object storage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa

from vlmill.pipeline.core.sample import read_rows, write_rows

HOST_COUNTS = pa.schema(
    [
        pa.field("host", pa.string(), nullable=False),
        pa.field("reason", pa.string()),  # null: there are bytes
        pa.field("images", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # bytes
    ]
)


class HostOutcome(NamedTuple):
    """Images of one host that came to the same."""

    host: str
    reason: str | None
    images: int
    size: int  # bytes of all


class HostTally:
    """Counts what addresses came to, by host."""

    def __init__(self) -> None:
        self._images, self._sizes = Counter[tuple[str, str]](), Counter[tuple[str, str]]()

    def add(self, url: str, reason: str | None, size: int) -> None:
        """An image at an address has come, with so many bytes, or has not, for a reason."""
        key = find_host(url), reason or ""
        self._images[key] += 1
        self._sizes[key] += size

    def write(self, path: Path) -> None:
        """Write HOST_COUNTS, ordered by host and reason."""
        found = sorted(self._images.items())
        rows = (
            {"host": host, "reason": reason or None, "images": number, "size": self._sizes[host, reason]}
            for (host, reason), number in found
        )
        write_rows(path, HOST_COUNTS, rows)


def read_host_counts(path: Path) -> Iterator[HostOutcome]:
    """The rows of such a table."""
    return (HostOutcome(**row) for row in read_rows(path))


def find_host(url: str) -> str:
    """The host that an address names, without its port; `(no host)` where it names none."""
    try:
        return urlsplit(url).hostname or NO_HOST
    except ValueError:
        return NO_HOST


NO_HOST = "(no host)"
