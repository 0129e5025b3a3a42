"""What the signals of a recipe would cost: how much each is asked about, and how long that takes where it was timed.

No model is asked for an estimate, since loading one may take minutes. `vlmill check` counts what signals would be asked
of the first rows (sample_costs.py), and takes their speed from a build of the same signals in the run's folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vlmill.pipeline.checks.task_costs import read_task_costs
from vlmill.pipeline.recipe.lock import is_bound, read_locked_recipe
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.signals import Signal
from vlmill.pipeline.signals.base import Of
from vlmill.pipeline.signals.custom import CustomSignal
from vlmill.pipeline.signals.weights import list_weights


@dataclass(frozen=True)
class SignalEstimate:
    """How much a signal would be asked about in a build from nothing."""

    signal: str  # its name
    of: Of  # images, texts or samples
    units: int | None  # how many of these
    seconds: float | None  # of one worker; None where no build in the run's folder has timed it


@dataclass(frozen=True)
class ClustersEstimate:
    """What it takes to group the vectors of a signal; None where their number is not known."""

    signal: str  # its name
    of: str  # images or texts
    clusters: int  # how many the recipe asks for
    vectors: int | None  # that are grouped
    trained: int | None  # vectors that centroids are trained on
    seconds: float | None  # of one core, with vectors of 512 numbers; training is one task


COMPARISONS = {"train": 1e8, "assign": 3e7}
"""Vectors of 512 numbers that one core compares with a centroid in a second (docs/measurements.md)."""


def estimate_clusters(recipe: Recipe, units: Mapping[str, int | None]) -> tuple[ClustersEstimate, ...]:
    """What the clusters of a recipe would take; `units` as in `estimate_signals`."""
    found = list[ClustersEstimate]()
    for name, one in recipe.clusters.items():
        vectors, trained, seconds = units.get(one.of), None, None
        if vectors is not None:
            trained = min(vectors, one.clusters * one.per_cluster)
            compared = {"train": one.iterations * trained * one.clusters, "assign": vectors * one.clusters}
            seconds = sum(number / COMPARISONS[work] for work, number in compared.items())
        found.append(ClustersEstimate(name, one.of, one.clusters, vectors, trained, seconds))
    return tuple(found)


def list_countable(recipe: Recipe) -> dict[str, Signal]:
    """The signals of a recipe but those whose code may not run."""
    return {
        name: signal
        for name, signal in recipe.models.items()
        if not isinstance(signal, CustomSignal) or signal.code is not None
    }


def estimate_signals(recipe: Recipe, units: Mapping[str, int | None], root: Path) -> tuple[SignalEstimate, ...]:
    """What the signals of a recipe would be asked about, and how long a worker would take.

    Args:
        recipe: What would be built.
        units: How many each signal would be asked about; None where that is not known.
        root: The folder that it would be built in. Where a build has timed the same signal there, that speed counts.
    """
    speeds, found = read_signal_speeds(root, recipe), list[SignalEstimate]()
    for name, signal in list_countable(recipe).items():
        number, speed = units.get(name), speeds.get(name)
        seconds = None if number is None or speed is None else number * speed
        found.append(SignalEstimate(name, signal.of, number, seconds))
    return tuple(found)


def read_signal_speeds(root: Path, recipe: Recipe) -> dict[str, float]:
    """Seconds a unit of the signals that a build in a folder has timed, loading among them; others are left out."""
    if not is_bound(root):
        return {}
    locked, speeds = read_locked_recipe(root).models, dict[str, float]()
    for name in recipe.models.keys() & locked.keys():
        if _describe_signal(recipe.models[name]) != _describe_signal(locked[name]):
            continue
        folders = [f"steps/{source}/{name}" for source in recipe.sources]
        done = [task for folder, tasks in read_task_costs(root).items() if folder in folders for task in tasks]
        timed = [(task.counts["scored"]["in"], task.seconds) for task in done if task.seconds is not None]
        if (units := sum(count for count, _ in timed)) > 0:
            speeds[name] = sum(seconds for _, seconds in timed) / units
    return speeds


def _describe_signal(signal: Signal) -> tuple[str, int, object]:
    """Its kind, version and parameters, but for what is in its weights."""
    weights = {name: replace(value, sha256="") for name, value in list_weights(signal).items()}
    return signal.kind, signal.version, replace(signal, **weights)  # type: ignore[type-var]
