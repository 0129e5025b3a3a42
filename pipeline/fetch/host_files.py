"""What hosts answered when they were asked for robots.txt and tdmrep.json, and which addresses they keep from us.

Part of fetch. Tables of it are left by hosts.py and read by `Fetch`, each process the hosts of its addresses alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa

from vlmill.pipeline.fetch.address import FetchFailed, parse_address
from vlmill.pipeline.fetch.reservations import Reservation, find_reservation

HOST_FILES = pa.schema(
    [
        pa.field("origin", pa.string(), nullable=False),  # `https://example.org`, with a port that is not the scheme's
        pa.field("asked", pa.string(), nullable=False),  # the day, in UTC
        pa.field("robots", pa.string()),  # robots.txt; null where there is none (4xx), so that everything is allowed
        pa.field("tdmrep", pa.string()),  # /.well-known/tdmrep.json
        pa.field("failure", pa.string(), nullable=False),  # why robots.txt could not be had; empty where it could
    ]
)


@dataclass(frozen=True, slots=True)
class HostFiles:
    """What a host answered: a row of HOST_FILES."""

    origin: str
    asked: str
    robots: str | None
    tdmrep: str | None
    failure: str = ""


@dataclass(frozen=True)
class HostRules:
    """What the hosts of some addresses said, and how it is taken."""

    files: Mapping[str, HostFiles]  # by origin
    agent: str  # the first word of our name, in lower case
    fail_closed: bool = False

    def find(self, url: str) -> Reservation | None:
        """Why an address is kept from us; None where it is not, or its host was not asked."""
        try:
            target = parse_address(url)
        except FetchFailed:  # which the download will say
            return None
        origin = get_origin(target.url)
        found = self.files.get(origin) or self.files.get(_change_scheme(origin))
        if found is None:
            return None
        path = target.url.removeprefix(origin)
        return find_reservation(found, path, self.agent, fail_closed=self.fail_closed)


def get_origin(url: str) -> str:
    """`https://example.org` of an address in its one spelling."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def _change_scheme(origin: str) -> str:
    """The same host under the other scheme: redirects from http to https are common."""
    scheme, _, host = origin.partition("://")
    return f"{'http' if scheme == 'https' else 'https'}://{host}"


def list_origins(urls: Iterable[str | None], mirrors: Collection[str]) -> Iterator[str]:
    """The origins of addresses. What has a mirror is asked of that, which is ours, and has none."""
    prefixes = tuple(parse_address(prefix).url for prefix in mirrors)
    for url in urls:
        if url is not None:
            try:
                spelled = parse_address(url).url
            except FetchFailed:
                continue
            if not spelled.startswith(prefixes):
                yield get_origin(spelled)


def read_host_files(paths: Iterable[Path], origins: Collection[str]) -> dict[str, HostFiles]:
    """The answers of some hosts, by origin, from tables of HOST_FILES."""
    found = dict[str, HostFiles]()
    wanted = sorted(origins)
    for path in paths:
        for row in (
            pl.scan_parquet(path, glob=False).filter(pl.col("origin").is_in(wanted)).collect().iter_rows(named=True)
        ):
            found[row["origin"]] = HostFiles(**row)
    return found
