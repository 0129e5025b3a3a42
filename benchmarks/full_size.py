"""What a recipe would cost at full size: `python -m benchmarks.full_size RUN --full NAME=ROWS:IMAGES`.

RUN holds a part of the data. For each source named, `--full` says how many rows it has in full and how many images
these name. The run's timings (logs/timings.jsonl) and files give seconds of one core and bytes for each row or image.
Steps that look at images grow with these, the others with rows. Steps of all sources together (dedupe, mixtures) grow
with the rows of all. What one task does for all rows is printed apart: more machines do not shorten it. Build RUN in
one process, `/usr/bin/time -v vlmill build ... --workers 0`, and give `--cpu` the sum of its user and system time: on a
machine that does other things as well, tasks took longer than they worked, and are scaled to that sum.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from vlmill.pipeline.checks.task_costs import TaskCost, read_task_costs

BY_IMAGES = ("fetch", "hosts", "image_stats", "shards")
"""Steps whose work is images."""
ALONE = ("select", "mix", "plan", "lock", "repetition")
"""Steps of a mixture that one task does for all rows of a source or of the run."""
CORES = 16
PER_HOST = 32
"""Addresses of a host that are asked for at a time, by the default of a recipe; each is taken to answer in a second."""


@dataclass(frozen=True)
class Full:
    """A source at full size."""

    rows: int
    images: int


def read_full(value: str) -> tuple[str, Full]:
    """`NAME=ROWS:IMAGES`."""
    name, _, sizes = value.partition("=")
    rows, _, images = sizes.partition(":")
    return name, Full(int(float(rows)), int(float(images or rows)))


def count_read(costs: dict[str, list[TaskCost]], source: str) -> Full:
    """Rows that the run read of a source, and images that it looked at or asked for."""
    rows = sum(task.counts["rows"]["in"] for task in costs[f"steps/{source}/read"])
    asked = [task.counts["fetched"]["in"] for task in costs.get(f"steps/{source}/fetch", ())]
    seen = [task.counts["images_measured"]["in"] for task in costs[f"steps/{source}/image_stats"]]
    return Full(rows, sum(asked) or sum(seen))


def name_owner(folder: str) -> tuple[str, str]:
    """The source of a step, empty where it is of all of them, and the step."""
    kind, first, *rest = folder.split("/")
    if kind == "shards":
        return first, "lengths" if rest[-1] == "lengths" else "shards"
    return ("" if first in {"dedupe", "mixtures", "benchmarks"} else first), rest[-1] if rest else first


def main() -> None:
    """Print a line for each step, and what follows for some numbers of machines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--full", type=read_full, action="append", required=True, metavar="NAME=ROWS:IMAGES")
    parser.add_argument("--machines", type=int, nargs="+", default=[1, 10, 100], help=f"of {CORES} cores")
    parser.add_argument("--cpu", type=float, metavar="SECONDS", help="of the whole build, its children included")
    options = parser.parse_args()
    costs, full = read_task_costs(options.run), dict(options.full)
    had = {name: count_read(costs, name) for name in full}
    took = sum(task.seconds or 0.0 for tasks in costs.values() for task in tasks)
    busy = options.cpu / took if options.cpu else 1.0
    growth = sum(each.rows for each in full.values()) / sum(each.rows for each in had.values())
    seconds, size, number = defaultdict[tuple[str, str], float](float), defaultdict[tuple[str, str], float](float), {}
    for folder, tasks in costs.items():
        source, step = name_owner(folder)
        if source and source not in full:
            continue
        factor = growth
        if source:
            unit = "images" if step in BY_IMAGES else "rows"
            number[source, step] = getattr(had[source], unit)
            factor = getattr(full[source], unit) / number[source, step]
        timed = busy * sum(task.seconds or 0.0 for task in tasks)
        seconds[source, step] += factor * timed
        size[source, step] += factor * sum(task.bytes for task in tasks)
    print(f"tasks took {took:,.0f} s" + (f", of which {options.cpu:,.0f} s are taken as work" if options.cpu else ""))
    print(f"{'source':12} {'step':14} {'ms of a core for each':>24} {'core hours':>12} {'GB':>10}")
    for (source, step), taken in sorted(seconds.items()):
        unit = "images" if step in BY_IMAGES else "rows"
        whole = getattr(full[source], unit) if source else sum(each.rows for each in full.values())
        each = f"{1000 * taken / whole:.3f} {unit[:-1]}"
        print(f"{source or 'all':12} {step:14} {each:>24} {taken / 3600:12,.1f} {size[source, step] / 1e9:10,.1f}")
    alone = {step: taken for (source, step), taken in seconds.items() if step in ALONE}
    spread = sum(seconds.values()) - sum(alone.values())
    tail = sum(alone.values()) / 3600
    print(f"in many tasks {spread / 3600:,.0f} core hours; in tasks for all rows {tail:,.1f} hours")
    print(f"files {sum(size.values()) / 1e12:.1f} TB; {sum(each.images for each in full.values()):,} images")
    for machines in options.machines:
        hours = spread / 3600 / machines / CORES
        asked = sum(each.images for name, each in full.items() if (name, "fetch") in seconds)
        print(
            f"{machines:>5} machines of {CORES} cores: {hours:,.1f} h, then {tail:,.1f} h; "
            f"{asked / hours / 3600:,.0f} requests a second; a host with more than {hours * 3600 * PER_HOST:,.0f} "
            "addresses takes longer"
        )


if __name__ == "__main__":
    main()
