"""What `vlmill what-if` prints of an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from vlmill.pipeline.reports.what_if import Kept, WhatIfAnswer

NOTHING = "nothing would change"


def make_tables(answer: WhatIfAnswer) -> Iterator[Table]:
    """What would be kept, and why what changes does."""
    table = Table(title="What would be kept", title_justify="left")
    for name in ("source", ""):
        table.add_column(name)
    for name in ("in", "kept now", "kept then", "newly dropped", "newly kept"):
        table.add_column(name, justify="right")
    shown = {
        source: levels for source, levels in answer.sources.items() if any(map(_changes_something, levels.values()))
    }
    for source, levels in (shown or answer.sources).items():
        for level, kept in levels.items():
            numbers = (kept.came, kept.now, kept.then, kept.newly_dropped, kept.newly_kept)
            table.add_row(source if level == next(iter(levels)) else "", level, *(f"{number:,}" for number in numbers))
        table.add_section()
    if shown and (left := len(answer.sources) - len(shown)):
        table.caption = f"{left} source{'s' * (left > 1)} where nothing changes: not shown"
    yield table
    if answer.changes:
        yield _make_reason_table(answer)


def _changes_something(kept: Kept) -> bool:
    """Whether something of a level would be newly dropped or kept."""
    return bool(kept.newly_dropped or kept.newly_kept)


def _make_reason_table(answer: WhatIfAnswer) -> Table:
    """By source, level and reason: what is newly dropped with its reason then, newly kept with its reason now."""
    table = Table(title="Why", title_justify="left")
    for name in ("source", "", "reason"):
        table.add_column(name)
    for name in ("newly dropped", "newly kept"):
        table.add_column(name, justify="right")
    table.add_column("such as", overflow="fold")
    for source, levels in answer.sources.items():
        for level in ("samples", "nodes"):  # images are counted with their nodes
            for reason, change in sorted(levels[level].why.items()):
                numbers = (f"{change.newly_dropped:,}", f"{change.newly_kept:,}")
                table.add_row(source, level, str(reason), *numbers, ", ".join(change.examples))
        table.add_section()
    return table
