"""The progress that a command shows: bars with rates and an ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class ProgressBars:
    """A Watcher that shows every phase of a run."""

    EVERY = 5.0
    """Seconds between two plain lines of one phase."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = (
            Progress(
                TextColumn("{task.description:<18}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
            )
            if console.is_terminal
            else None
        )
        self.bar: TaskID | None = None
        self.name, self.total, self.count, self.began, self.said = "", 0, 0, 0.0, 0.0
        self.amounts = Counter[str]()

    def __enter__(self) -> Self:
        if self.bars:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if self.bars:
            self.bars.stop()

    def phase(self, name: str, total: int) -> None:
        """A phase of `total` tasks begins."""
        self._close()
        self.name, self.total, self.count, self.began = name, total, 0, time.monotonic()
        self.said, self.amounts = self.began, Counter[str]()
        if self.bars:
            self.bar = self.bars.add_task(name, total=total)

    def done(self, number: int = 1) -> None:
        """So many tasks of the phase are done."""
        self.count += number
        if self.bars and self.bar is not None:
            self.bars.advance(self.bar, number)
        elif self.count < self.total and time.monotonic() - self.said >= self.EVERY:
            self.said = time.monotonic()
            self._line()

    def measure(self, amount: int, unit: str) -> None:
        """So much of something was done within the tasks of the phase, such as images."""
        self.amounts[unit] += amount
        if self.bars and self.bar is not None:
            self.bars.update(self.bar, description=f"{self.name}{self._list_rates()}")
        elif time.monotonic() - self.said >= self.EVERY:
            self.said = time.monotonic()
            self._line()

    def _list_rates(self) -> str:
        spent = time.monotonic() - self.began
        return "".join(f", {amount / spent:,.1f} {unit}/s" for unit, amount in self.amounts.items() if amount and spent)

    def _close(self) -> None:
        if self.name and not self.bars:
            self._line()
        self.name = ""

    def _line(self) -> None:
        """One plain line: how far, how fast, how much longer."""
        spent = time.monotonic() - self.began
        rate = self.count / spent if spent else 0.0
        left = f", {(self.total - self.count) / rate:.0f} s left" if rate and self.count < self.total else ""
        done = f"{self.count} of {self.total} tasks in {spent:.1f} s ({rate:.1f}/s{left})"
        self.console.print(f"{self.name}: {done}{self._list_rates()}", highlight=False)


class Watcher(Protocol):
    """Receives the progress of a run."""

    def phase(self, name: str, total: int) -> None:
        """A phase of `total` tasks begins."""
        ...

    def done(self, number: int = 1) -> None:
        """So many tasks of the phase are done."""
        ...

    def measure(self, amount: int, unit: str) -> None:
        """So much of something was done within the tasks of the phase, such as images."""
        ...
