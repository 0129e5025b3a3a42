"""An estimate for a terminal: a table of sources, the totals in words, and what was assumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from rich.table import Table

from vlmill.pipeline.reports.estimate import REQUEST_SECONDS, RunEstimate

COLUMNS = ("source", "files", "GB", "rows", "samples", "images", "requests", "tables GB", "shards GB", "hours", "from")


def make_source_table(estimate: RunEstimate) -> Table:
    """A row for each source; hours are those of all workers together."""
    table = Table(title="about so much is there")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("source", "from") else "right")
    for one in estimate.sources:
        counts = (f"{n:,}" if n is not None else "?" for n in (one.rows, one.samples, one.images, one.requests))
        shards = [size for size in one.shard_bytes.values() if size is not None]
        sizes = (one.bytes, one.table_bytes, sum(shards) if len(shards) == len(one.shard_bytes) else None)
        gigabytes = [_format_gigabytes(size) for size in sizes]
        hours = f"{sum(one.seconds.values()) / estimate.workers / 3600:.3g}" if one.seconds else "?"
        table.add_row(one.source, str(one.files), gigabytes[0], *counts, *gigabytes[1:], hours, one.rests_on)
    return table


def list_totals(estimate: RunEstimate) -> Iterator[str]:
    """The totals, a line each."""
    requests = estimate.add_up("requests")
    yield f"network: {'?' if requests is None else f'{requests:,}'} requests for images"
    yield (
        f"disk: tables {_format_gigabytes(estimate.add_up('table_bytes'))} GB, images as they came among them "
        f"{_format_gigabytes(estimate.add_up('image_bytes'))} GB; shards: "
        + (_join_amounts(estimate.add_up_policies("shard_bytes"), _format_gigabytes, " GB") or "none, without policies")
        + f"; {estimate.free / 1e9:.2f} GB are free"
    )
    if estimate.stage_tokens:
        yield f"tokens: {_join_amounts(estimate.stage_tokens, lambda count: '?' if count is None else f'{count:,}')}"
    yield f"time: {estimate.hours:.3g} hours with {estimate.workers} workers like one process on this machine"


def list_assumptions(estimate: RunEstimate) -> Iterator[str]:
    """What was assumed, and what is not in the estimate."""
    yield "Samples and images are counted before any filter, shards and tokens after filters and before duplicates go."
    yield (
        "Hours are those of the rows that were measured, times all rows: without the comparison for duplicates, "
        "benchmarks, mixing, hashing input files, copying them from elsewhere, and the start of workers."
    )
    if estimate.add_up("requests") != 0:
        yield (
            f"A request is assumed to take {REQUEST_SECONDS:g} s, with `fetch.threads` of them at once in each worker. "
            "What requested images cost beyond that, on disk and in time, is not in the sums."
        )


def _format_gigabytes(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e9:.2f}" if size >= 10_000_000 else f"{size / 1e9:.5f}"


def _join_amounts(amounts: Mapping[str, int | None], form: Callable[[int | None], str], unit: str = "") -> str:
    return ", ".join(f"{name} {form(amount)}{unit}" for name, amount in amounts.items())
