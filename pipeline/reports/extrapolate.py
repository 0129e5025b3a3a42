"""What the whole run would cost, from what a scaled run of the same recipe holds and took.

Rows are known, since all input files were surveyed. Samples, images, requests, bytes and times of a source are those of
its scaled run times all rows over the rows that were read; surveys and benchmarks were done in full and stay as they
are. Dedupe and mixtures are taken to grow with the rows of all sources. Three things are known to differ: a scaled run
finds fewer duplicates, so the whole run keeps fewer samples; reading a part of a file costs more per row than reading
all of it; pairs of near duplicates grow faster than rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.scaling import count_source_rows
from vlmill.pipeline.engine.timings import TimingLog
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.estimate_table import format_size, format_time
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.reports.verify import list_manifests

IN_FULL = "survey"
"""The step of a source that a scaled run does in full."""


@dataclass(frozen=True)
class Amounts:
    """What some folders of a run hold and took."""

    bytes: float = 0
    seconds: float = 0  # of one core each, of the tasks that were timed; others are taken to be as long
    tasks: int = 0
    timed: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.bytes + other.bytes,
            self.seconds + other.seconds,
            self.tasks + other.tasks,
            self.timed + other.timed,
        )

    def times(self, factor: float) -> Amounts:
        """The same for so many times the rows; the tasks stay those that were looked at."""
        return Amounts(self.bytes * factor, self.seconds * factor, self.tasks, self.timed)


@dataclass(frozen=True)
class SourceForecast:
    """One source in the whole run."""

    source: str
    read: int  # rows of the scaled run
    rows: int  # of the whole
    samples: int  # kept
    images: int  # that came, before any filter
    requests: int  # addresses that are asked for
    costs: Amounts


@dataclass(frozen=True)
class RunForecast:
    """The whole run."""

    sources: tuple[SourceForecast, ...]
    shared: Amounts  # of benchmarks, dedupe and mixtures

    @property
    def total(self) -> Amounts:
        """All bytes and seconds."""
        return sum((found.costs for found in self.sources), self.shared)

    def hours(self, workers: int) -> float:
        """Hours on so many cores, all of them busy throughout."""
        return self.total.seconds / 3600 / workers


def extrapolate_run(root: Path) -> RunForecast:
    """The whole run of the recipe that a scaled run's folder is locked to.

    Raises:
        StoreError: the folder holds no run, or a source was not read to its end.
    """
    recipe, funnel, amounts = read_locked_recipe(root), read_funnel(root), _measure_folders(root)
    sources = tuple(
        _forecast_source(root, recipe, source, funnel[source], amounts) for source in sorted(recipe.sources)
    )
    growth = sum(found.rows for found in sources) / max(sum(found.read for found in sources), 1)
    benchmarks = _add_amounts(amounts, "steps/benchmarks/")
    return RunForecast(sources, benchmarks + _add_amounts(amounts, "steps/dedupe/", "steps/mixtures/").times(growth))


def make_extrapolation_table(found: RunForecast, workers: int) -> Table:
    """The forecast for a terminal."""
    table = Table(title=f"the whole run, about ({format_time(3600 * found.hours(workers))} on {workers} cores)")
    for name in ("source", "rows", "samples", "images", "requests", "disk", "time of one core"):
        table.add_column(name, justify="left" if name == "source" else "right")
    for of in found.sources:
        counts = (f"{count:,}" for count in (of.rows, of.samples, of.images, of.requests))
        table.add_row(of.source, *counts, *_format_amounts(of.costs))
    table.add_row("of all together", "", "", "", "", *_format_amounts(found.shared))
    table.add_row("all", "", "", "", "", *_format_amounts(found.total))
    return table


def _format_amounts(found: Amounts) -> tuple[str, str]:
    return format_size(round(found.bytes)), format_time(found.seconds) if found.timed else "?"


def _forecast_source(
    root: Path, recipe: Recipe, source: str, funnel: Mapping[str, Mapping[str, int]], amounts: Mapping[str, Amounts]
) -> SourceForecast:
    rows = count_source_rows(root, recipe, source)
    read = sum(receipt.counts["rows"]["in"] for receipt in read_manifest(root, f"steps/{source}/read"))
    factor = rows / max(read, 1)
    survey = amounts.get(f"steps/{source}/{IN_FULL}", Amounts())
    shards = [f"shards/{source}/{policy}/" for policy in recipe.list_policies(source)]
    others = {folder: amount for folder, amount in amounts.items() if folder != f"steps/{source}/{IN_FULL}"}
    return SourceForecast(
        source=source,
        read=read,
        rows=rows,
        samples=round(funnel.get("samples", {}).get("kept", 0) * factor),
        images=round(funnel.get("images", {}).get("in", 0) * factor),
        requests=round(_count_requests(root, source) * factor),
        costs=survey + _add_amounts(others, f"steps/{source}/", *shards).times(factor),
    )


def _count_requests(root: Path, source: str) -> int:
    """Addresses that the scaled run asked for."""
    folder = f"steps/{source}/fetch"
    if not (root / folder / "manifest.json").exists():
        return 0
    return sum(receipt.counts["fetched"]["in"] for receipt in read_manifest(root, folder))


def _measure_folders(root: Path) -> dict[str, Amounts]:
    """Folder of a step -> what its manifest holds and took."""
    seconds, found = TimingLog(root).read(), dict[str, Amounts]()
    for path in list_manifests(root):
        folder = str(path.parent.relative_to(root))
        receipts = read_manifest(root, folder)
        known = [seconds[folder, receipt.key] for receipt in receipts if (folder, receipt.key) in seconds]
        whole = sum(known) * len(receipts) / len(known) if known else 0
        size = sum(file.size for receipt in receipts for file in receipt.files)
        found[folder] = Amounts(size, whole, len(receipts), len(known))
    return found


def _add_amounts(amounts: Mapping[str, Amounts], *prefixes: str) -> Amounts:
    chosen: Iterable[Amounts] = (amount for folder, amount in amounts.items() if f"{folder}/".startswith(prefixes))
    return sum(chosen, Amounts())
