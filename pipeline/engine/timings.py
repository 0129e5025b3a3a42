"""How long tasks took: `logs/timings.jsonl`, a log of the driver that no receipt, lock or check knows of.

Times differ from run to run, so they stand in no file that a build commits. A task that was done again has a line for
each time; the last one counts. A task whose chain did not come to its end has none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vlmill.pipeline.core.files import append_text
from vlmill.pipeline.engine.chain import TaskTiming

TIMINGS = "logs/timings.jsonl"


@dataclass(frozen=True)
class TimingLog:
    """The log of a run's folder."""

    root: Path

    def append(self, timings: Sequence[TaskTiming]) -> None:
        """Add a line for each task."""
        if not timings:
            return
        append_text(self.root / TIMINGS, "".join(json.dumps(asdict(timing)) + "\n" for timing in timings))

    def read(self) -> dict[tuple[str, str], float]:
        """Seconds by folder and key; a line that was cut short by a kill is passed over."""
        path, found = self.root / TIMINGS, dict[tuple[str, str], float]()
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                data = json.loads(line)
                found[data["folder"], data["key"]] = float(data["seconds"])
            except (ValueError, KeyError, TypeError):
                continue
        return found
