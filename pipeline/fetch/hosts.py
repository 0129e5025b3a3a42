"""Asks hosts once for what they say of the use of their files: robots.txt and tdmrep.json.

Part of fetch, before any image is asked for. `ListHosts` names the hosts of a partition's addresses; `AskHosts` asks
those of a bucket, each once over all partitions, and writes down what they said and when; `Fetch` reads that.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, field
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import ClassVar
from zlib import crc32

import pyarrow as pa
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.names import HOST_FILES_SUFFIX, HOSTS_FILE, IMAGES_FILE
from vlmill.pipeline.core.sample import read_rows, write_rows
from vlmill.pipeline.core.step import RUNTIME, Count, Counts, Inputs, match_names
from vlmill.pipeline.fetch import Fetch
from vlmill.pipeline.fetch.address import FetchFailed
from vlmill.pipeline.fetch.host_files import HOST_FILES, HostFiles, list_origins
from vlmill.pipeline.fetch.opener import Opener

BUCKETS = 16
"""Of hosts, by a hash of their origins."""
ROBOTS, TDMREP = "/robots.txt", "/.well-known/tdmrep.json"
MAX_FILE = 512 << 10
"""Bytes of a file that are read: RFC 9309, 2.5 wants at least 500 KiB of robots.txt. What follows does not count."""
ORIGINS = pa.schema([pa.field("origin", pa.string(), nullable=False)])


@dataclass(frozen=True, config=STRICT)
class ListHosts:
    """Name the origins of a partition's addresses, sorted."""

    name: ClassVar[str] = "hosts"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = (IMAGES_FILE,)

    mirrors: tuple[str, ...] = ()  # URL prefixes, whose hosts are not asked

    def made_by(self) -> Mapping[str, str]:
        """See Step."""
        return {}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write hosts.parquet."""
        rows = read_rows(inputs[IMAGES_FILE], columns=["url", "reason"])
        found = sorted({*list_origins((row["url"] for row in rows if row["reason"] is None), self.mirrors)})
        write_rows(folder / HOSTS_FILE, ORIGINS, ({"origin": origin} for origin in found))
        return {"hosts": Count(len(found), len(found))}


@dataclass(frozen=True, config=STRICT)
class AskHosts:
    """Ask the hosts of a bucket, several at once, by the rules of fetch. Impure: what was answered first stays."""

    name: ClassVar[str] = "ask_hosts"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = (f"*/{HOSTS_FILE}",)

    bucket: int
    fetch: Fetch = field(default_factory=Fetch, metadata=RUNTIME)

    def made_by(self) -> Mapping[str, str]:
        """See Step."""
        return {"protego": installed("protego")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<bucket>.host_files.parquet`, a row for each host in the order of origins."""
        names = match_names(inputs, self.reads)
        found = {row["origin"] for name in names for row in read_rows(inputs[name])}
        origins = sorted(origin for origin in found if choose_bucket(origin) == self.bucket)
        opener, day = Opener(self.fetch), datetime.now(UTC).date().isoformat()
        with ThreadPoolExecutor(min(self.fetch.threads, len(origins)) or 1) as pool:
            answers = pool.map(lambda origin: ask_host(opener, origin, day), origins)
            write_rows(folder / f"{self.bucket:02d}{HOST_FILES_SUFFIX}", HOST_FILES, map(asdict, answers))
        return {"hosts": Count(len(origins), len(origins))}


def choose_bucket(origin: str) -> int:
    """The bucket of a host; pure."""
    return crc32(origin.encode()) % BUCKETS


def ask_host(opener: Opener, origin: str, day: str) -> HostFiles:
    """What a host says now. One that gives no robots.txt for trouble is not asked for more."""
    try:
        robots = opener.read_file(origin + ROBOTS, MAX_FILE)
    except FetchFailed as failed:
        return HostFiles(origin, day, None, None, f"{failed.reason}: {failed.detail}")
    try:
        tdmrep = opener.read_file(origin + TDMREP, MAX_FILE)
    except FetchFailed:  # which says nothing of a reservation
        tdmrep = None
    return HostFiles(origin, day, _decode_file(robots), _decode_file(tdmrep))


def _decode_file(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "replace").removeprefix("\ufeff")
