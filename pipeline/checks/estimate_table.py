"""An estimate for a terminal: a table of sources, the totals in words, and what was assumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.filesize import decimal
from rich.table import Table

from vlmill.pipeline.checks.estimate import REQUEST_SECONDS, RunEstimate
from vlmill.pipeline.signals.ask import CHARACTERS_PER_TOKEN, PIXELS_PER_TOKEN

COLUMNS = ("source", "files", "size", "rows", "samples", "images", "requests", "tables", "shards", "time", "from")


def make_source_table(estimate: RunEstimate) -> Table:
    """A row for each source; the time is that of all workers together."""
    table = Table(title="what is there, about")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("source", "from") else "right")
    for one in estimate.sources:
        counts = (_format_count(count) for count in (one.rows, one.samples, one.images, one.requests))
        sizes = (format_size(size) for size in (one.table_bytes, _add_known(list(one.shard_bytes.values()))))
        time = format_time(sum(one.seconds.values()) / estimate.workers) if one.seconds else "?"
        table.add_row(one.source, str(one.files), format_size(one.bytes), *counts, *sizes, time, one.rests_on)
    return table


def list_totals(estimate: RunEstimate) -> Iterator[str]:
    """The totals, a line each; nothing where no source could be looked at."""
    if not estimate.sources:
        return
    yield f"network: {_format_count(estimate.add_up('requests'))} requests for images"
    yield (
        f"disk: tables {_add_sizes([one.table_bytes for one in estimate.sources])}, which hold images of "
        f"{_add_sizes([one.image_bytes for one in estimate.sources])}, packed; shards: "
        + (", ".join(_list_shards(estimate)) or "none, without policies")
        + ("" if estimate.free is None else f"; {format_size(estimate.free)} are free")
    )
    if estimate.stage_tokens:
        yield f"tokens: {_join_amounts(estimate.stage_tokens, _format_count)}"
    yield from list_signal_costs(estimate)
    for name, asked in estimate.asked.items():
        cost = "" if asked.cost is None else f", {asked.cost:,.2f} at its price"
        yield (
            f"signal {name}: at most {asked.requests:,} requests to its server, about {asked.input_tokens:,} tokens "
            f"sent and at most {asked.output_tokens:,} answered{cost}"
        )
    yield from list_dedupe_costs(estimate)
    taken = format_time(3600 * estimate.hours)
    yield f"time: {taken} with {estimate.workers} workers, each as fast as one process on this machine"


NOUNS = {"images": "images", "texts": "texts", "samples": "samples", "pairs": "images with their texts"}
"""What a signal's units are called."""


def list_signal_costs(estimate: RunEstimate) -> Iterator[str]:
    """A line of what models are asked about, and of how long a worker of each takes; then a line for each clusters.

    What servers are asked has lines of its own.
    """
    models = [one for one in estimate.signals if one.signal not in estimate.asked]
    asked = (f"{one.signal} {_format_count(one.units)} {NOUNS[one.of]}" for one in models)
    times = (f"{one.signal} {_format_seconds(one.seconds)}" for one in models)
    if models:
        yield f"signals: {', '.join(asked)}; time of one worker each, from a build in this folder: {', '.join(times)}"
    for one in estimate.clusters:
        time = "?" if one.seconds is None else format_time(one.seconds)
        yield (
            f"signal {one.signal}: {one.clusters:,} clusters of {_format_count(one.vectors)} vectors of {one.of}, "
            f"trained on {_format_count(one.trained)}; about {time} of one core, where a vector has 512 numbers"
        )


def _format_seconds(seconds: float | None) -> str:
    return "not timed there" if seconds is None else format_time(seconds)


def list_dedupe_costs(estimate: RunEstimate) -> Iterator[str]:
    """A line for each source whose pictures are so alike that dedupe takes most of its time, the longest first."""
    costly = [one for one in estimate.sources if one.seconds.get("pairs", 0) > sum(one.seconds.values()) / 2]
    for one in sorted(costly, key=lambda one: -one.seconds["pairs"]):
        yield (
            f"dedupe: the pictures of {one.source} look alike, as if made from templates: about "
            f"{_format_count(one.picture_pairs)} pairs to compare, {format_time(one.seconds['pairs'])} of one worker, "
            "most of the time of this source; a lower `dedupe.cap` compares fewer"
        )


def list_assumptions(estimate: RunEstimate) -> Iterator[str]:
    """What was assumed, and what is not in the estimate."""
    if not estimate.sources:
        return
    yield "Samples and images are counted before any filter, shards and tokens after filters and before duplicates go."
    yield (
        "The time is that of the rows that were measured, times all rows: without the comparison of texts, and of "
        "pictures of several sources, for duplicates; without signals, benchmarks, mixing, hashing input files, "
        "copying them from elsewhere, and the start of workers."
    )
    if estimate.asked:
        yield (
            f"Of what servers are asked, {CHARACTERS_PER_TOKEN} characters or {PIXELS_PER_TOKEN} pixels are taken for "
            "a token; models differ. Content that repeats in a partition is asked once."
        )
    if estimate.add_up("requests") != 0:
        yield (
            f"A request is assumed to take {REQUEST_SECONDS:g} s, with `fetch.threads` of them at once in each worker. "
            "What requested images cost beyond that, on disk, in time and in tokens, is in no sum; `?` stands where "
            "nothing else is known."
        )


def format_size(size: int | None) -> str:
    """Bytes as `1.2 GB`; `?` for what is not known."""
    return "?" if size is None else decimal(size)


def format_time(seconds: float) -> str:
    """Seconds, minutes or hours, whichever is short to read."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _format_count(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _add_known(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _add_sizes(sizes: Sequence[int | None]) -> str:
    """The sum of sizes, or of those that are known."""
    known = [size for size in sizes if size is not None]
    if known and len(known) < len(sizes):
        return f"at least {decimal(sum(known))}"
    return format_size(_add_known(sizes))


def _list_shards(estimate: RunEstimate) -> Iterator[str]:
    for policy in estimate.add_up_policies("shard_bytes"):
        yield f"{policy} {_add_sizes([one.shard_bytes.get(policy) for one in estimate.sources])}"


def _join_amounts(amounts: Mapping[str, int | None], form: Callable[[int | None], str]) -> str:
    return ", ".join(f"{name} {form(amount)}" for name, amount in amounts.items())
