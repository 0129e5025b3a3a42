"""What the whole run would cost, from what a scaled run of the same recipe holds and took.

Rows are known, since all input files were surveyed. Samples, images and requests of a source are those of its scaled
run times all rows over the rows that were read; so are bytes and times, but for what every task costs whatever it
holds, which counts for the tasks of the whole run. Surveys and benchmarks were done in full and stay as they are.
Dedupe and mixtures are taken to grow with the rows of all sources, but the pairs that dedupe measures with the square
of them, until a place has as many neighbours as the cap allows. Two things are known to differ: a scaled run finds
fewer duplicates, so the whole run keeps fewer samples; reading a part of a file costs more per row than all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from vlmill.pipeline.checks.estimate_table import format_size, format_time
from vlmill.pipeline.checks.task_costs import (
    NONE,
    Amounts,
    Fixed,
    TaskCost,
    fit_fixed_costs,
    group_by_step,
    grow_tasks,
    name_step,
    read_task_costs,
)
from vlmill.pipeline.dedupe.candidates import (
    BUCKET_BITS,
    IMAGE,
    count_neighbours,
    grow_measured,
    grow_pairs,
    read_span,
    split_range,
)
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.scaling import count_source_partitions, count_source_rows
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.funnel import read_funnel

PAIRS = "steps/dedupe/pairs"
"""The folder of the step that measures pairs."""
IN_FULL = "survey"
"""The step of a source that a scaled run does in full."""


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
    recipe, funnel, costs = read_locked_recipe(root), read_funnel(root), read_task_costs(root)
    read = {source: _count_read_rows(root, source) for source in sorted(recipe.sources)}
    fixed = {name: fit_fixed_costs(tasks) for name, tasks in group_by_step(costs, read).items()}
    sources = tuple(
        _forecast_source(root, recipe, source, read[source], funnel[source], costs, fixed) for source in read
    )
    growth = sum(found.rows for found in sources) / max(sum(found.read for found in sources), 1)
    return RunForecast(sources, _forecast_shared(root, recipe, costs, growth))


def _forecast_shared(root: Path, recipe: Recipe, costs: Mapping[str, Sequence[TaskCost]], growth: float) -> Amounts:
    """Benchmarks, dedupe and mixtures, where all sources have so many times the rows together."""
    found = Amounts()
    for folder, tasks in costs.items():
        if folder == PAIRS and recipe.dedupe:
            sized = [(sum(count["kept"] for count in task.counts.values()), task) for task in tasks]
            candidates = sum(task.counts["image_pairs"]["in"] for task in tasks) / max(_count_pictures(root, recipe), 1)
            grown = grow_pairs(_count_neighbours(root, recipe), recipe.dedupe.cap, growth)
            times = growth * grow_measured(candidates, recipe.dedupe.nearest, grown)
            found += grow_tasks(tasks, fit_fixed_costs([sized]), times, len(tasks))
        elif folder.startswith(("steps/dedupe/", "steps/mixtures/")):
            found += grow_tasks(tasks, NONE, growth, len(tasks))
        elif folder.startswith("steps/benchmarks/"):
            found += grow_tasks(tasks, NONE, 1, len(tasks))
    return found


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
    root: Path,
    recipe: Recipe,
    source: str,
    read: Mapping[str, int],
    funnel: Mapping[str, Mapping[str, int]],
    costs: Mapping[str, Sequence[TaskCost]],
    fixed: Mapping[str, Fixed],
) -> SourceForecast:
    rows, tasks = count_source_rows(root, recipe, source), count_source_partitions(root, recipe, source)
    factor = rows / max(sum(read.values()), 1)
    survey, spent = f"steps/{source}/{IN_FULL}", Amounts()
    shards = tuple(f"shards/{source}/{policy}/" for policy in recipe.list_policies(source))
    for folder, done in costs.items():
        if folder == survey:
            spent += grow_tasks(done, NONE, 1, len(done))
        elif f"{folder}/".startswith((f"steps/{source}/", *shards)):
            spent += grow_tasks(done, fixed[name_step(folder)], factor, tasks)
    return SourceForecast(
        source=source,
        read=sum(read.values()),
        rows=rows,
        samples=round(funnel.get("samples", {}).get("kept", 0) * factor),
        images=round(funnel.get("images", {}).get("in", 0) * factor),
        requests=round(_count_requests(root, source) * factor),
        costs=spent,
    )


def _count_read_rows(root: Path, source: str) -> dict[str, int]:
    """Partition -> rows that were read of it."""
    return {receipt.partition: receipt.counts["rows"]["in"] for receipt in read_manifest(root, f"steps/{source}/read")}


def _count_neighbours(root: Path, recipe: Recipe) -> float:
    """Those of a place of a picture, on average, in the first bucket of the run's dedupe."""
    made = recipe.dedupe is not None and (root / "steps/dedupe/candidates/manifest.json").exists()
    buckets = len(read_manifest(root, "steps/dedupe/candidates")) if made else 1
    first, last = split_range(0, buckets, BUCKET_BITS)
    filed = [
        np.stack(read_span(root / file.path, ("place", "key"), first, last))
        for source in recipe.sources
        for receipt in read_manifest(root, f"steps/{source}/signature")
        for file in receipt.files
        if file.name == "image.places.parquet"
    ]
    places = np.unique(np.concatenate(filed, axis=1), axis=1)[0] if filed else np.empty(0, np.uint64)
    return count_neighbours(IMAGE, places, recipe.dedupe.cap if recipe.dedupe else 1)


def _count_pictures(root: Path, recipe: Recipe) -> int:
    """Those of the run that dedupe compares."""
    signed = (receipt for source in recipe.sources for receipt in read_manifest(root, f"steps/{source}/signature"))
    return sum(receipt.counts["images_signed"]["kept"] for receipt in signed)


def _count_requests(root: Path, source: str) -> int:
    """Addresses that the scaled run asked for; those that it dropped were none."""
    folder = f"steps/{source}/fetch"
    if not (root / folder / "manifest.json").exists():
        return 0
    counted = (receipt.counts["fetched"] for receipt in read_manifest(root, folder))
    return sum(count["in"] - sum(count["dropped"].values()) for count in counted)
