"""Which hosts a run asked for images, and how often each gave none. Reads what `fetch` left, also while a build runs.

Of a large run it reads some tasks, evenly spread: a small table beside the images of each. What was fetched before
there were such tables is counted from the images, and not on object storage, where these would be copied whole.
`vlmill status` and the page of a build in `vlmill explore` show it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
from rich import box
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from vlmill.pipeline.core.names import HOST_COUNTS_FILE, IMAGES_FILE
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.fetch.host_counts import find_host, read_host_counts
from vlmill.pipeline.reports.funnel import format_share

TASKS = 200
"""Of `fetch` that are read at most."""

REASONS = 3
"""Of a host, those shown in a table."""


@dataclass(frozen=True, slots=True)
class HostCount:
    """Addresses of one host."""

    host: str  # its name
    asked: int  # addresses that were requested
    failed: int  # of these
    reasons: Mapping[str, int]  # the most frequent first
    bytes: int | None  # that came; None where that is not known of all


@dataclass(frozen=True, slots=True)
class HostCounts:
    """The hosts of some tasks of `fetch`."""

    hosts: tuple[HostCount, ...]  # those first that failed most often, then those asked most
    read: int  # tasks that are counted
    tasks: int  # tasks that are done


def count_hosts(root: Path, sources: Iterable[str]) -> HostCounts:
    """The hosts that were asked so far."""
    paths = [path for source in sources for path in _list_tables(root / "steps" / source / "fetch")]
    read = paths[:: -(-len(paths) // TASKS)] if paths else []
    asked, failed, sizes = Counter[str](), defaultdict[str, Counter[str]](Counter), Counter[str]()
    unsized = set[str]()
    for path in read:
        with suppress(OSError, pl.exceptions.PolarsError, pa.ArrowException):  # a file that a build is taking away
            for host, reason, images, size in list(_read_outcomes(path)):
                asked[host] += images
                if reason:
                    failed[host][reason] += images
                elif size is None:
                    unsized.add(host)
                else:
                    sizes[host] += size
    found = (
        HostCount(
            host,
            number,
            failed[host].total(),
            dict(failed[host].most_common()),
            None if host in unsized else sizes[host],
        )
        for host, number in asked.items()
    )
    return HostCounts(tuple(sorted(found, key=lambda one: (-one.failed, -one.asked, one.host))), len(read), len(paths))


def _list_tables(folder: Path) -> list[Path]:
    """A table for each task of a fetch, in the order of their names: of hosts, else of images."""
    names = sorted(path.name for path in folder.glob("*.parquet"))
    counted = {name.split(".", 1)[0]: name for name in names if name.endswith(f".{HOST_COUNTS_FILE}")}
    images = [name for name in names if name.endswith(f".{IMAGES_FILE}") and name.split(".", 1)[0] not in counted]
    return [folder / name for name in sorted([*counted.values(), *([] if isinstance(folder, RunPath) else images)])]


def _read_outcomes(path: Path) -> Iterator[tuple[str, str | None, int, int | None]]:
    """Host, reason, images and bytes, as a table has them; bytes are None where it is one of images."""
    if path.name.endswith(f".{HOST_COUNTS_FILE}"):
        yield from read_host_counts(path)
        return
    table = pl.scan_parquet(path, glob=False).select("url", "reason").filter(pl.col("url").is_not_null())
    for url, reason in table.collect().iter_rows():
        yield find_host(url), reason, 1, None


def make_host_table(found: HostCounts, shown: int) -> Table:
    """The first `shown` hosts with the share of their addresses that gave no image, and why."""
    title = f"hosts of images, {min(shown, len(found.hosts)):,} of {len(found.hosts):,}"
    if found.read < found.tasks:
        title += f", in {found.read:,} of {found.tasks:,} partitions that were fetched"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title=title, title_justify="left")
    for name in ("host", "asked", "failed", "share", "bytes"):
        table.add_column(name, justify="left" if name == "host" else "right", overflow="fold")
    table.add_column("most for", overflow="fold")
    for one in found.hosts[:shown]:
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in list(one.reasons.items())[:REASONS])
        size = "?" if one.bytes is None else decimal(one.bytes)
        counts = f"{one.asked:,}", f"{one.failed:,}", format_share(one.failed, one.asked), size
        table.add_row(escape(one.host), *counts, reasons)
    return table
