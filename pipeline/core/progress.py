"""The progress that a command shows: bars with rates and an ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vlmill.pipeline.core.event_log import EventLog
from vlmill.pipeline.core.meter import METER, Work

SHOWN = ("rows", "images", "texts", "pairs", "bytes", "failed", "dropped")
"""Kinds of work in the order in which their rates are shown."""


class Rates:
    """How much of each kind of work is done in a second, over the last few seconds and since a phase began."""

    WINDOW = 10.0
    """Seconds that a recent rate is taken over."""

    def __init__(self, now: float) -> None:
        self.began, self.total = now, Counter[str]()
        self._lock, self._points = threading.Lock(), deque([(now, Counter[str]())])

    def add(self, work: Work, now: float) -> None:
        """Add work that was done until `now`."""
        with self._lock:
            self.total.update(work)
            self._points.append((now, self.total.copy()))
            while len(self._points) > 2 and self._points[1][0] <= now - self.WINDOW:
                self._points.popleft()

    def skip(self, seconds: float) -> None:
        """Leave out so many seconds that have just passed."""
        with self._lock:
            self.began += seconds
            self._points = deque((then + seconds, total) for then, total in self._points)

    def measure_recent(self, now: float) -> dict[str, float]:
        """By kind, over the last `WINDOW` seconds; 0 of a kind that has paused."""
        with self._lock:
            while len(self._points) > 1 and self._points[1][0] <= now - self.WINDOW:
                self._points.popleft()
            begun, before = self._points[0]
            return self._divide(self.total, before, now - max(begun, now - self.WINDOW))

    def measure_whole(self, now: float) -> dict[str, float]:
        """By kind, since the phase began."""
        with self._lock:
            return self._divide(self.total, Counter(), now - self.began)

    def _divide(self, total: Mapping[str, int], before: Mapping[str, int], seconds: float) -> dict[str, float]:
        some = {kind: number for kind, number in total.items() if number}
        return {kind: (number - before.get(kind, 0)) / max(seconds, 1e-3) for kind, number in some.items()}


def format_rates(rates: Mapping[str, float]) -> str:
    """`1,203 rows/s, 310 images/s, 12.4 MB/s, 3.1 failed/s, 0.4 dropped/s`, without kinds that are not there.

    At most 80 columns wide up to a million a second.
    """
    return ", ".join(_format_rate(kind, rates[kind]) for kind in SHOWN if kind in rates)


def _format_rate(kind: str, rate: float) -> str:
    if kind == "bytes":
        large = rate >= 1e6
        return f"{_format_number(rate / (1e6 if large else 1e3))} {'MB' if large else 'kB'}/s"
    return f"{_format_number(rate)} {kind}/s"


def _format_number(number: float) -> str:
    return f"{number:,.0f}" if number >= 99.95 else f"{number:.1f}"


class _Bars(Progress):
    """Bars of phases, and below them a line with the rates of the one that runs, or what it waits for."""

    rates: Rates | None = None
    waits = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """See Progress."""
        yield from super().get_renderables()
        rates = self.rates.measure_recent(time.monotonic()) if self.rates else {}
        if line := self.waits or format_rates(rates):
            yield Text(line, no_wrap=True, overflow="ellipsis")


class ProgressBars:
    """A Watcher that shows every phase of a run, and what the meter notes meanwhile. Phases go into `log`, too."""

    EVERY = 5.0
    """Seconds between two plain lines of one phase."""

    def __init__(self, console: Console, log: EventLog | None = None) -> None:
        self.console, self.log = console, log
        self.bars = (
            _Bars(
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
        self.name, self.total, self.count, self.said = "", 0, 0, 0.0
        self.rates = Rates(time.monotonic())
        self.ended = 0.0  # when the last task did
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(METER.told_to(self.work, self.wait))
        if self.bars:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        self._close()
        if self.bars:
            self.bars.stop()

    def phase(self, name: str, total: int) -> None:
        """A phase of `total` tasks begins."""
        METER.flush()
        self._close()
        self.name, self.total, self.count = name, total, 0
        if self.log:
            self.log.write("phase", phase=name, tasks=total)
        self.said = time.monotonic()
        self.rates = Rates(self.said)
        if self.bars:
            self.bars.rates = self.rates
            self.bar = self.bars.add_task(name, total=total)

    def done(self, number: int = 1) -> None:
        """So many tasks of the phase are done."""
        self.count += number
        self.ended = time.monotonic()
        if self.bars and self.bar is not None:
            self.bars.advance(self.bar, number)
        self._say_sometimes()

    def work(self, work: Work) -> None:
        """Work was done within tasks."""
        self.rates.add(work, time.monotonic())
        self._say_sometimes()

    @contextmanager
    def wait(self, reason: str) -> Iterator[None]:
        """Say what the phase waits for; the seconds until it ends do not count in its rates."""
        began = time.monotonic()
        if self.bars:
            self.bars.waits = reason
        else:
            self.console.print(": ".join(filter(None, (self.name, reason))), highlight=False, soft_wrap=True)
        try:
            yield
        finally:
            if self.bars:
                self.bars.waits = ""
            self.said = time.monotonic()
            self.ended += self.said - began
            self.rates.skip(self.said - began)

    def _say_sometimes(self) -> None:
        """A plain line if the last one is `EVERY` seconds old, and not the last one of the phase."""
        now = time.monotonic()
        if self.name and not self.bars and self.count < self.total and now - self.said >= self.EVERY:
            self.said = now
            self._line(self.rates.measure_recent(now))

    def _close(self) -> None:
        if self.log and self.name:
            spent = round(time.monotonic() - self.rates.began, 3)
            work = {kind: number for kind, number in sorted(self.rates.total.items()) if number}
            self.log.write("phase_end", phase=self.name, tasks=self.count, seconds=spent, work=work)
        if self.bars:
            self.bars.rates = None
        elif self.name:
            self._line(self.rates.measure_whole(time.monotonic()))
        self.name = ""

    def _line(self, rates: Mapping[str, float]) -> None:
        """One plain line: how far, how fast, how much longer."""
        now = time.monotonic()
        spent = now - self.rates.began
        rate = self.count / spent if spent else 0.0
        each = (self.ended - self.rates.began) / self.count if self.count else 0.0
        remaining = self.ended + (self.total - self.count) * each - now  # below 0: it takes longer
        left = f", {remaining:.0f} s left" if remaining > 0 and self.count < self.total else ""
        done = f"{self.name}: {self.count} of {self.total} tasks in {spent:.1f} s ({rate:.1f}/s{left})"
        self.console.print(
            "; ".join(part for part in (done, format_rates(rates)) if part), highlight=False, soft_wrap=True
        )


class Watcher(Protocol):
    """Receives the progress of a run."""

    def phase(self, name: str, total: int) -> None:
        """A phase of `total` tasks begins."""
        ...

    def done(self, number: int = 1) -> None:
        """So many tasks of the phase are done."""
        ...
