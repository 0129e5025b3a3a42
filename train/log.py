"""What a training run says: one JSON line per step in `log.jsonl`, and a bar or plain lines for a person."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.store import write_atomically

LINE_EVERY = 15.0
"""Seconds between two plain lines where there is no terminal."""


class Log:
    """Writes the lines of steps from `done` on; those that an interrupted run wrote beyond its last checkpoint are taken back."""

    def __init__(self, path: Path, stage: str, done: int, steps: int, console: Console) -> None:
        self.stage, self.steps, self.console, self.said = stage, steps, console, time.monotonic()
        self.path, self.done = path, done
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.bars = Progress(*columns, console=console) if console.is_terminal else None
        self.bar = self.bars.add_task(stage, total=steps, completed=done, loss=float("nan")) if self.bars else None

    def __enter__(self) -> Self:
        kept = self.path.read_text().splitlines(keepends=True)[: self.done] if self.path.exists() else []
        write_atomically(self.path, "".join(kept))
        self.file = self.path.open("a")
        if self.bars:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars:
            self.bars.stop()
        self.file.close()

    def write(self, line: Mapping[str, Any], spent: float, waited: float) -> None:
        """Add the line of the next step, which took `spent` seconds and stood `waited` of them still for data; and show it."""
        times = {"tokens_per_second": round(line["tokens"] / spent, 1), "waited": round(waited / spent, 4)}
        self.file.write(json.dumps({**line, **times}, sort_keys=True) + "\n")
        self.file.flush()
        done = line["step"] + 1
        if self.bars and self.bar is not None:
            self.bars.update(self.bar, completed=done, loss=line["loss"])
        elif done == self.steps or time.monotonic() - self.said >= LINE_EVERY:
            self.said = time.monotonic()
            self.console.print(
                f"{self.stage}: step {done} of {self.steps}, loss {line['loss']:.3f}, "
                f"{times['tokens_per_second']:.0f} tokens/s, waited for data {times['waited']:.0%} of the time"
            )
