"""How far a build and a training are: phases, rates, what fails where, what is dropped so far, disk, time left.

Read from the logs, receipts and tables that are there; nothing has to be built for it, and the build knows nothing of
who looks.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from vlmill.pipeline.core.event_log import EVENTS
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.reports.hosts import count_hosts
from vlmill.pipeline.reports.status import read_progress

HOSTS = 30
UNCOUNTED = frozenset({"undecided", "pages"})
"""Counts that say again what others say: doubts, and rows by the pages that they fan out to."""
LEVELS = {"filtered": "nodes", "images_measured": "images"}
"""What is counted, where a receipt calls it otherwise."""
EVENTS_SHOWN = 60
POINTS = 400
"""Of a curve of losses."""
TAIL = 1 << 22
"""Bytes from the end of a log that are read."""
EVERY = 15.0
"""Seconds for which sizes on disk and failures by host are remembered."""


class BuildWatch:
    """What is said of the build in a folder; slow answers are remembered for some seconds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._kept = dict[str, tuple[float, Any]]()

    def describe(self) -> dict[str, Any]:
        """The build as it stands."""
        events = read_tail(self.root / EVENTS)
        recipe = read_locked_recipe(self.root)
        return {
            "steps": [
                {
                    "phase": step.phase,
                    "step": step.step,
                    "of": step.of,
                    "done": step.done,
                    "tasks": step.tasks,
                    "complete": step.complete,
                }
                for step in read_progress(self.root)
            ],
            "phases": list_phases(events),
            "running": find_running(events),
            "events": [event for event in events if event.get("event") not in {"phase", "phase_end"}][-EVENTS_SHOWN:],
            "dropped": self._remember("dropped", lambda: count_drops(self.root, list(recipe.sources))),
            "hosts": self._remember("hosts", lambda: list_failing_hosts(self.root, list(recipe.sources))),
            "disk": self._remember("disk", lambda: measure_disk(self.root)),
            "now": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _remember(self, name: str, find: Any) -> Any:
        told, value = self._kept.get(name, (-EVERY, None))
        if monotonic() - told >= EVERY:
            value = find()
            self._kept[name] = monotonic(), value
        return value


def read_tail(path: Path) -> list[dict[str, Any]]:
    """The last lines of a log of JSON lines; those that a kill cut are passed over."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = file.read().decode("utf-8", "replace").splitlines()
    found = list[dict[str, Any]]()
    for line in lines:
        with suppress(ValueError):
            one = json.loads(line)
            if isinstance(one, dict):
                found.append(one)
    return found


def list_phases(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The phases of the last build, in order: tasks, seconds, and work by kind; the one that runs has no seconds."""
    begins = [place for place, event in enumerate(events) if event.get("event") == "begin"]
    phases = list[dict[str, Any]]()
    for event in events[begins[-1] if begins else 0 :]:
        if event.get("event") == "phase":
            phases.append(
                {
                    "phase": event.get("phase"),
                    "tasks": event.get("tasks"),
                    "began": event.get("time"),
                    "seconds": None,
                    "work": {},
                }
            )
        elif event.get("event") == "phase_end" and phases:
            phases[-1] |= {"seconds": event.get("seconds"), "work": event.get("work", {})}
    return phases


def find_running(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The command that has begun and not ended, and whether its process is on this machine."""
    last = next((event for event in reversed(events) if event.get("event") in {"begin", "end", "failed"}), None)
    if last is None or last["event"] != "begin":
        return None
    return {
        "command": last.get("command"),
        "since": last.get("time"),
        "pid": last.get("pid"),
        "alive": _is_alive(last.get("pid")),
    }


def _is_alive(process: Any) -> bool:
    """Whether a process of that number is on this machine."""
    if not isinstance(process, int) or process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def count_drops(root: Path, sources: list[str]) -> list[dict[str, Any]]:
    """What each step has lost so far, by source: `step source level reason number`, from receipts that are there."""
    found = Counter[tuple[str, str, str, str]]()
    for source in sources:
        for path in sorted((root / "steps" / source).glob("*/*.receipt.json")):
            with suppress(OSError, ValueError):
                for level, counts in json.loads(path.read_bytes()).get("counts", {}).items():
                    if level in UNCOUNTED:
                        continue
                    for how in ("dropped", "failed"):
                        for reason, number in counts.get(how, {}).items():
                            found[path.parent.name, source, LEVELS.get(level, level), reason] += number
    return [
        {"step": step, "source": source, "level": level, "reason": reason, "number": number}
        for (step, source, level, reason), number in found.most_common()
    ]


def list_failing_hosts(root: Path, sources: list[str]) -> list[dict[str, Any]]:
    """The hosts from which most pictures were not had: `host asked failed reasons`."""
    return [asdict(one) for one in count_hosts(root, sources).hosts if one.failed][:HOSTS]


def measure_disk(root: Path) -> dict[str, Any]:
    """Bytes of the run by folder, and how many are free where it lies."""
    sizes = {name: sum(_list_file_sizes(root / name)) for name in ("steps", "shards", "mixtures", "train", "logs")}
    usage = shutil.disk_usage(root)
    return {
        "folders": {name: size for name, size in sizes.items() if size},
        "free": usage.free,
        "total": usage.total,
    }


def _list_file_sizes(folder: Path) -> Iterator[int]:
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                yield (Path(path) / name).stat().st_size


def describe_training(root: Path) -> list[dict[str, Any]]:
    """The curves of every stage that was trained: steps, losses, losses by source, tokens a second."""
    return [_describe_stage(path) for path in sorted((root / "train").glob("*/log.jsonl"))]


def _describe_stage(path: Path) -> dict[str, Any]:
    lines = [line for line in read_tail(path) if isinstance(line.get("step"), int)]
    lines.sort(key=lambda line: line["step"])
    width = max(1, -(-len(lines) // POINTS))
    groups = [lines[first : first + width] for first in range(0, len(lines), width)]
    sources = sorted({source for line in lines for source in line.get("sources", {})})
    return {
        "stage": path.parent.name,
        "steps": [group[-1]["step"] + 1 for group in groups],
        "loss": [_average([line.get("loss") for line in group]) for group in groups],
        "sources": {
            source: [
                _average([line.get("sources", {}).get(source, {}).get("loss") for line in group]) for group in groups
            ]
            for source in sources
        },
        "last": {key: lines[-1].get(key) for key in ("step", "loss", "tokens_per_second", "waited", "memory", "mfu")}
        if lines
        else {},
    }


def _average(values: list[Any]) -> float | None:
    known = [value for value in values if isinstance(value, int | float)]
    return sum(known) / len(known) if known else None
