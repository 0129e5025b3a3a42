"""What the signals of a run asked servers: requests, tokens, cost, and what came to nothing. By signal and source.

A part of the section `signals` of `vlmill report`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from rich import box
from rich.table import Table

from vlmill.pipeline.core.names import name_answers
from vlmill.pipeline.core.sample import read_rows
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.signals.ask import Ask

SUMS = ("requests", "failures", "bad", "input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class AskedCounts:
    """What one signal asked about one source. Answers that a build took over from an earlier one are among it."""

    signal: str
    source: str
    units: int  # images, texts or samples that have an answer or a reason
    questions: int  # different ones in a partition
    unanswered: int  # units without a value
    requests: int  # that were sent
    failures: int  # of these: the server failed or was busy
    bad: int  # of these: answers that were not of the declared form
    input_tokens: int
    output_tokens: int
    cost: float | None  # at the recipe's price


def read_asked(root: Path, source: str | None = None) -> tuple[AskedCounts, ...]:
    """The counts of every signal that asks a server, of one source or of all.

    Raises:
        NotBuiltError: the build has not come to the end of its signals.
    """
    recipe = read_locked_recipe(root)
    return tuple(
        _count_asked(root, name, signal, one)
        for name, signal in recipe.list_asking_signals().items()
        for one in sorted(recipe.sources)
        if source in {None, one}
    )


def _count_asked(root: Path, name: str, signal: Ask, source: str) -> AskedCounts:
    receipts = read_manifest(root, f"steps/{source}/{name}")
    paths = [root / file.path for receipt in receipts for file in receipt.files if file.name == name_answers(name)]
    tables = [_read_table(path) for path in paths]
    units, questions, unanswered = 0, 0, 0
    sums = dict.fromkeys(SUMS, 0)
    for table in tables:
        units, unanswered = units + table.height, unanswered + int(table["reason"].is_not_null().sum())
        different = table.unique("request")
        questions += different.height
        sums = {key: value + int(different[key].sum()) for key, value in sums.items()}
    cost = signal.find_cost(sums["input_tokens"], sums["output_tokens"])
    return AskedCounts(name, source, units, questions, unanswered, **sums, cost=cost)


def _read_table(path: Path) -> pl.DataFrame:
    rows: Iterable[dict[str, object]] = read_rows(path, ["request", "reason", *SUMS])
    schema = {"request": pl.String, "reason": pl.String, **dict.fromkeys(SUMS, pl.Int64)}
    return pl.DataFrame(list(rows), schema=schema)


def make_asked_table(found: Sequence[AskedCounts]) -> Table:
    """A line for each signal and source."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("asked", "source"):
        table.add_column(name, overflow="fold")
    for name in ("units", "questions", "requests", "retried", "bad", "unanswered", "tokens in", "out", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        counts = (one.units, one.questions, one.requests, one.failures, one.bad, one.unanswered)
        tokens = (one.input_tokens, one.output_tokens)
        cost = "-" if one.cost is None else f"{one.cost:,.4f}"
        table.add_row(one.signal, one.source, *(f"{number:,}" for number in (*counts, *tokens)), cost)
    return table
