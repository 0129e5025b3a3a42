"""What the downloading processes of a build tell each other of hosts that fail: a small file for each such host.

Part of fetch. A process reads what others know when it begins, and writes what it learns while it works. So a host that
failed in one is asked less by the next, on whatever node. It changes how fast a host is asked, and nothing else: no
address fails since another process said so. The files lie in the run's folder, local or on object storage, have no
receipt, and go when all is fetched. Of two processes that write of one host the last one counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import write_atomically
from vlmill.pipeline.core.run_path import RunPath

AT_ONCE = 8
"""Files that are read at a time."""


class HostLimit(NamedTuple):
    """How much less than it might a process asks a host."""

    share: float  # of what it may have open there; 1 is all
    rests_until: float  # seconds since 1970; before, nothing is asked


class HostLimits:
    """The hosts that processes of a build have limited, in a folder."""

    def __init__(self, folder: str) -> None:
        self._folder = RunPath(folder) if "://" in folder else Path(folder)
        self._written = dict[str, HostLimit]()

    def read(self, hosts: Iterable[str]) -> dict[str, HostLimit]:
        """What is known of some hosts; of most nothing. Nothing of all where the folder cannot be read."""
        try:
            there = {path.name for path in self._folder.iterdir()}
        except (OSError, StoreError):
            return {}
        wanted = sorted({host for host in hosts if _name_file(host) in there})
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = dict(zip(wanted, pool.map(self._read_limit, wanted), strict=True))
        return {host: limit for host, limit in found.items() if limit}

    def write(self, limits: Mapping[str, HostLimit]) -> None:
        """Tell others of what has changed; a host that may be asked for as much as ever is forgotten.

        That it cannot be told is no error: others learn it for themselves.
        """
        for host, limit in limits.items():
            if self._written.get(host) == limit:
                continue
            self._written[host] = limit
            with suppress(OSError, StoreError):
                if limit.share >= 1:
                    (self._folder / _name_file(host)).unlink(missing_ok=True)
                else:
                    write_atomically(self._folder / _name_file(host), json.dumps(limit) + "\n")

    def _read_limit(self, host: str) -> HostLimit | None:
        with suppress(OSError, StoreError, ValueError, TypeError):
            share, rests_until = json.loads((self._folder / _name_file(host)).read_text())
            return HostLimit(min(1.0, max(0.0, float(share))), float(rests_until))
        return None


def _name_file(host: str) -> str:
    return f"{hashlib.sha256(host.encode()).hexdigest()[:32]}.json"
