"""Items that are being worked on elsewhere, and those among them that take far longer than others.

Where nothing else is left to begin, such an item is done a second time beside the first: its node may be slow. What
comes first counts, and the store takes either (store-contract.md, 5 and 6). How fast items come says also whether more
processes are worth their start.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

SLOW = 4
"""Times the median of items that are done, which one may take."""

LEAST_S = 60.0
"""Seconds that one may take in any case."""

ALONE_S = 600.0
"""Seconds that one may take which has a machine of its own, where none is done yet to measure it by."""

SHORT_S = 30.0
"""Seconds of work that is left for which no process more is started: each takes seconds of a core until it works."""

SETTLED = 4
"""Items that are done before there is a pace: the first ones wait for their processes to start."""


class RunningItems:
    """References to items that are on their way, each to the number of its item."""

    def __init__(self) -> None:
        self._numbers, self._took = dict[Any, int](), list[float]()
        self._begun, self._twice = dict[int, float](), set[int]()
        self._room: float | None = None
        self._since = time.monotonic()  # the first was sent, then: the first was done

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._numbers)

    def add(self, reference: Any, number: int) -> None:
        """An item has been sent."""
        self._numbers[reference] = number
        self._begun.setdefault(number, time.monotonic())

    def take(self, reference: Any) -> int | None:
        """The item of a reference that has come; None where another one of it came before."""
        return self._numbers.pop(reference, None)

    def is_running(self, number: int) -> bool:
        """Whether an item is on its way still."""
        return number in self._numbers.values()

    def finish(self, number: int) -> list[Any]:
        """An item is done; returns the references to it that are not needed any more."""
        now = time.monotonic()
        if not self._took:
            self._since = now
        self._took.append(now - self._begun.pop(number))
        rest = [reference for reference, other in self._numbers.items() if other == number]
        for reference in rest:
            del self._numbers[reference]
        return rest

    def is_worth_more(self, waiting: int) -> bool:
        """Whether so many items that wait to be sent would take longer than `SHORT_S` at the pace so far.

        What passed until the first was done is no pace, since processes started meanwhile.
        """
        passed, done = time.monotonic() - self._since, len(self._took)
        return passed * (waiting / (done - 1) if done > SETTLED else 1) > SHORT_S

    def lose(self, number: int) -> None:
        """An item will be sent anew."""
        self._begun.pop(number, None)
        self._twice.discard(number)

    def find_straggler(self, width: int, alone_s: float = math.inf) -> int | None:
        """An item to be done a second time; None where there is none, or no room for it among `width` at once.

        Call it where no others wait to be sent. An item that none can be compared with may take `alone_s` seconds.
        """
        now = time.monotonic()
        if len(self._numbers) >= width:
            self._room = None
            return None
        if self._room is None:
            self._room = now
        longest = max(LEAST_S, SLOW * median(self._took)) if self._took else alone_s
        for number in self._numbers.values():
            # what waited for room until now has not been worked on for all of its time
            if number not in self._twice and now - max(self._begun[number], self._room) > longest:
                self._twice.add(number)
                return number
        return None
