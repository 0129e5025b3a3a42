"""What the tasks of a run hold and took: a part that every task of a step costs, and a part for each row of it.

`extrapolate.py` says what follows for the whole run. A scaled run has few rows in each task, so what a task costs
whatever it holds (a model that is loaded, a child process, the head of a file) would count many times over with them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.timings import TimingLog
from vlmill.pipeline.reports.verify import list_manifests

LEAST_SPREAD = 0.5
"""Tasks times the squared spread of their sizes, from which a fit tells the two parts from each other. Of tasks that
are about equally large it would say what chance says."""


@dataclass(frozen=True)
class TaskCost:
    """A task that was done."""

    partition: str
    bytes: int
    seconds: float | None  # of one core; None where it was not timed
    counts: Mapping[str, Any]


@dataclass(frozen=True)
class Amounts:
    """What some steps of a run hold and took."""

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


def read_task_costs(root: Path) -> dict[str, list[TaskCost]]:
    """Folder of each complete step of a run -> its tasks."""
    seconds, found = TimingLog(root).read(), dict[str, list[TaskCost]]()
    for path in list_manifests(root):
        folder = str(path.parent.relative_to(root))
        found[folder] = [
            TaskCost(
                receipt.partition,
                sum(file.size for file in receipt.files),
                seconds.get((folder, receipt.key)),
                receipt.counts,
            )
            for receipt in read_manifest(root, folder)
        ]
    return found


@dataclass(frozen=True)
class Fixed:
    """What a task of a step costs whatever it holds."""

    bytes: float = 0
    seconds: float = 0


NONE = Fixed()


def fit_fixed_costs(sized: Iterable[Sequence[tuple[float, TaskCost]]]) -> Fixed:
    """What a task of a step costs whatever it holds, from its tasks with their sizes, source by source. Pure."""
    listed = [list(tasks) for tasks in sized]
    return Fixed(
        fit_intercept([(size, task.bytes) for size, task in tasks] for tasks in listed),
        fit_intercept([(size, task.seconds) for size, task in tasks if task.seconds is not None] for tasks in listed),
    )


def fit_intercept(groups: Iterable[Sequence[tuple[float, float]]]) -> float:
    """The least squares fit of cost = intercept + slope of the group * size, over all groups; from 0 to the least cost.

    Pure. A group whose sizes are equal says nothing of the intercept; it is 0 where nothing is known of it. Where rows
    differ in cost the fit is too high, but no task costs less than what every task costs.

    Args:
        groups: size and cost of each task.
    """
    gained, known, least = 0.0, 0.0, np.inf
    for points in groups:
        sizes, costs = np.array(points, float).reshape(-1, 2).T
        squares = float(sizes @ sizes)
        if squares:
            gained += float(costs.sum() - sizes.sum() * (sizes @ costs) / squares)
            known += float(sizes.size - sizes.sum() ** 2 / squares)
            least = min(least, float(costs.min()))
    return min(max(gained / known, 0.0), least) if known >= LEAST_SPREAD else 0.0


def grow_tasks(tasks: Sequence[TaskCost], fixed: Fixed, factor: float, number: int) -> Amounts:
    """What so many tasks of a step hold and take with `factor` times what these hold together. Pure.

    The tasks of the result stay those that were looked at.
    """
    timed = [task.seconds for task in tasks if task.seconds is not None]
    costs = {"bytes": (sum(task.bytes for task in tasks), fixed.bytes), "seconds": (0.0, 0.0)}
    if timed:
        costs["seconds"] = sum(timed) * len(tasks) / len(timed), fixed.seconds
    grown = dict[str, float]()
    for name, (whole, each) in costs.items():
        alike = min(each * len(tasks), whole)
        grown[name] = alike * number / max(len(tasks), 1) + (whole - alike) * factor
    return Amounts(grown["bytes"], grown["seconds"], len(tasks), len(timed))


def group_by_step(
    costs: Mapping[str, Sequence[TaskCost]], sizes: Mapping[str, Mapping[str, float]]
) -> dict[str, list[list[tuple[float, TaskCost]]]]:
    """Step, such as `steps/read` or `shards/POLICY` -> of each source its tasks with their sizes. Pure.

    Args:
        costs: folder -> tasks.
        sizes: source -> partition -> rows.
    """
    found = defaultdict[str, list[list[tuple[float, TaskCost]]]](list)
    for folder, tasks in costs.items():
        source = folder.split("/")[1]
        if source in sizes:
            found[name_step(folder)].append([(sizes[source].get(task.partition, 0), task) for task in tasks])
    return found


def name_step(folder: str) -> str:
    """The name that the folders of a step have in common, whatever the source. Pure."""
    first, _, *rest = folder.split("/")
    return "/".join((first, *rest))
