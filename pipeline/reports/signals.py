"""What the signals of a run say, by source: numbers, quantiles, a histogram, and where the threshold lies.

A section of `vlmill report`; the page of statistics draws the histograms.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from vlmill.pipeline.core.errors import NotBuiltError
from vlmill.pipeline.core.names import QUANTILES_FILE, name_embeddings, name_scores
from vlmill.pipeline.core.scores import count_scored, read_scores
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.schema import Recipe

BINS = 40
"""Of a histogram, all of one width between the least and the largest value of the run, a hundredth at each end left
out where values lie far beyond the others."""

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


Range = tuple[float | None, float | None]
"""The least and the largest value that pass; None where a side is open."""


@dataclass(frozen=True, slots=True)
class SignalCounts:
    """The values of one signal in one source."""

    value: str  # as thresholds name it
    source: str
    number: int  # of values
    missing: int  # things that the signal looks at, and that have none
    mean: float | None
    quantiles: tuple[float, ...]  # at QUANTILES; none where there are no values
    edges: tuple[float, ...]  # of the bins, the same for every source; what lies beyond is in the outer ones
    counts: tuple[int, ...]
    bounds: tuple[Range, ...]  # what passes, of each bound on it


def read_signals(root: Path) -> tuple[SignalCounts, ...]:
    """Every value of the recipe's signals, by source.

    Raises:
        NotBuiltError: the recipe has no signals, or the build has not come to their end.
    """
    recipe = read_locked_recipe(root)
    if not recipe.signals:
        raise NotBuiltError(f"{root}: its recipe has no signals, so no model was asked; give it a signals block")
    return tuple(_list_signals(root, recipe))


def _list_signals(root: Path, recipe: Recipe) -> Iterator[SignalCounts]:
    for name, signal in recipe.signals.items():
        tables = {source: _list_tables(root, source, name) for source in sorted(recipe.sources)}
        for column in signal.columns(name):
            if column in recipe.list_labels():
                continue
            found = {source: _read_values(paths, column) for source, paths in tables.items()}
            edges = _choose_edges(np.concatenate([values for values, _ in found.values()]))
            for source, (values, missing) in found.items():
                if values.size or missing:
                    yield _count_values(
                        column, source, values, missing, edges, _list_bounds(root, recipe, column, source)
                    )


def list_silent_signals(root: Path, recipe: Recipe, only: str | None = None) -> Iterator[str]:
    """A warning for each signal and source where it was asked and nothing has a value, with the reasons.

    Only the tables' statistics are read, but for these. What has not been built yet says nothing.
    """
    for name in recipe.models:
        for source in sorted(recipe.sources if only is None else {only}):
            try:
                paths = _list_tables(root, source, name)
            except NotBuiltError:
                continue
            if paths and not any(map(count_scored, paths)):
                reasons = Counter(reason for path in paths for reason in read_scores(path, ["reason"])["reason"])
                if reasons:
                    said = ", ".join(f"{reason} {number:,}" for reason, number in sorted(reasons.items()))
                    yield (
                        f"signal {name} has no value in source {source}: it was asked {reasons.total():,} times "
                        f"({said}); a threshold on it drops nothing there. Look at its model and settings"
                    )


def _list_tables(root: Path, source: str, name: str) -> list[Path]:
    """Its tables of values, or of vectors."""
    receipts, names = read_manifest(root, f"steps/{source}/{name}"), {name_scores(name), name_embeddings(name)}
    return [root / file.path for receipt in receipts for file in receipt.files if file.name in names]


def _read_values(paths: Sequence[Path], column: str) -> tuple[np.ndarray, int]:
    """The values of a source, and how many things have none."""
    columns = [read_scores(path, [column])[column] for path in paths]
    values = [found.drop_nulls().to_numpy() for found in columns]
    return np.concatenate([np.empty(0, np.float32), *values]), sum(found.null_count() for found in columns)


def _choose_edges(values: np.ndarray) -> np.ndarray:
    """The edges of BINS bins; where the outer hundredths lie far out, these are in the outer bins."""
    if not values.size:
        return np.linspace(0, 1, BINS + 1)
    low, high = values.min(), values.max()
    first, last = np.quantile(values, [0.01, 0.99])
    spread = last - first
    if spread > 0 and high - low > 3 * spread:
        low, high = max(low, first - spread / 2), min(high, last + spread / 2)
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def _count_values(
    column: str,
    source: str,
    values: np.ndarray,
    missing: int,
    edges: np.ndarray,
    bounds: tuple[Range, ...],
) -> SignalCounts:
    counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
    quantiles = np.quantile(values, QUANTILES) if values.size else np.empty(0)
    return SignalCounts(
        value=column,
        source=source,
        number=values.size,
        missing=missing,
        mean=float(values.mean()) if values.size else None,
        quantiles=tuple(float(value) for value in quantiles),
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(int(count) for count in counts),
        bounds=bounds,
    )


def _list_bounds(root: Path, recipe: Recipe, column: str, source: str) -> tuple[Range, ...]:
    """The bounds of the recipe's threshold on a value in a source, quantiles as the build found them."""
    threshold = recipe.find_threshold()
    if threshold is None:
        return ()
    cuts = dict[str, float]()
    if threshold.quantiles and (root / "steps/signals/quantiles/manifest.json").exists():
        (receipt,) = read_manifest(root, "steps/signals/quantiles")
        (path,) = (root / file.path for file in receipt.files if file.name == QUANTILES_FILE)
        cuts = json.loads(path.read_bytes())
    found = (group[column] for group in threshold.groups if column in group)
    ranges = (bound.find_range(column, source, cuts) for bound in found if bound.asks(source))
    return tuple((least if isfinite(least) else None, most if isfinite(most) else None) for least, most in ranges)


def make_signal_table(found: Sequence[SignalCounts]) -> Table:
    """A line for each value and source."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("signal", "source"):
        table.add_column(name, overflow="fold")
    for name in ("values", "none", "mean", *(f"{share:.0%}" for share in QUANTILES)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("kept", overflow="fold")
    for one in found:
        values = [f"{value:.4g}" for value in (one.mean, *one.quantiles) if value is not None]
        numbers = (f"{one.number:,}", f"{one.missing:,}", *(values or ["-"] * (1 + len(QUANTILES))))
        table.add_row(one.value, one.source, *numbers, ", ".join(format_bound(*bound) for bound in one.bounds))
    return table


def format_bound(least: float | None, most: float | None) -> str:
    """A bound as it is read: `0.2 to 0.8`, `at least 0.2`."""
    if least is None:
        return "all" if most is None else f"at most {most:.4g}"
    return f"at least {least:.4g}" if most is None else f"{least:.4g} to {most:.4g}"
