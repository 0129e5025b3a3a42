"""Which hosts a run asked for images, and how often each gave none. Reads what `fetch` left, also while a build runs.

Of a large run it reads some tasks, evenly spread. Of a run on object storage it reads none: the addresses stand in the
files of the images, which would have to be copied whole.
`vlmill status` and the page of a build in `vlmill explore` show it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
from rich import box
from rich.markup import escape
from rich.table import Table

from vlmill.pipeline.core.names import IMAGES_FILE
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.reports.funnel import format_share

TASKS = 200
"""Of `fetch` that are read at most."""

REASONS = 3
"""Of a host, those shown in a table."""


@dataclass(frozen=True, slots=True)
class HostCount:
    """Addresses of one host."""

    host: str
    asked: int
    failed: int
    reasons: Mapping[str, int]  # the most frequent first


@dataclass(frozen=True, slots=True)
class HostCounts:
    """The hosts of some tasks of `fetch`."""

    hosts: tuple[HostCount, ...]  # those first that failed most often, then those asked most
    read: int  # tasks that are counted
    tasks: int  # tasks that are done


def count_hosts(root: Path, sources: Iterable[str]) -> HostCounts:
    """The hosts that were asked so far; of a run on object storage none."""
    if isinstance(root, RunPath):
        return HostCounts((), 0, 0)
    paths = [
        path for source in sources for path in sorted((root / "steps" / source / "fetch").glob(f"*.{IMAGES_FILE}"))
    ]
    read = paths[:: -(-len(paths) // TASKS)] if paths else []
    asked, failed = Counter[str](), defaultdict[str, Counter[str]](Counter)
    for path in read:
        with suppress(OSError, pl.exceptions.PolarsError):  # a file that a build is taking away
            table = pl.scan_parquet(path, glob=False).select("url", "reason").filter(pl.col("url").is_not_null())
            for url, reason in table.collect().iter_rows():
                host = _find_host(url)
                asked[host] += 1
                if reason:
                    failed[host][reason] += 1
    found = (
        HostCount(host, number, failed[host].total(), dict(failed[host].most_common()))
        for host, number in asked.items()
    )
    return HostCounts(tuple(sorted(found, key=lambda one: (-one.failed, -one.asked, one.host))), len(read), len(paths))


def _find_host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "(no host)"
    except ValueError:
        return "(no host)"


def make_host_table(found: HostCounts, shown: int) -> Table:
    """The first `shown` hosts with the share of their addresses that gave no image, and why."""
    title = f"hosts of images, {min(shown, len(found.hosts)):,} of {len(found.hosts):,}"
    if found.read < found.tasks:
        title += f", in {found.read:,} of {found.tasks:,} partitions that were fetched"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title=title, title_justify="left")
    for name in ("host", "asked", "failed", "share"):
        table.add_column(name, justify="left" if name == "host" else "right", overflow="fold")
    table.add_column("most for", overflow="fold")
    for one in found.hosts[:shown]:
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in list(one.reasons.items())[:REASONS])
        table.add_row(
            escape(one.host), f"{one.asked:,}", f"{one.failed:,}", format_share(one.failed, one.asked), reasons
        )
    return table
