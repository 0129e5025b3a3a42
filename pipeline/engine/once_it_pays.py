"""Small runs in this process, larger ones on Ray, which starts with the first item that it is for.

Starting Ray takes seconds and about ten seconds of CPU, more than a small run itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from vlmill.pipeline.core.errors import LackOfMemoryError
from vlmill.pipeline.core.meter import METER
from vlmill.pipeline.engine.flow import FlowEvent, WorkerFlow
from vlmill.pipeline.engine.ray_cluster import LOOPBACK
from vlmill.pipeline.engine.set_aside import raise_heavy

if TYPE_CHECKING:
    from vlmill.pipeline.engine.executor import Executor, IoBound

Item = TypeVar("Item")
Result = TypeVar("Result")

SMALL = 200
"""Rows of all sources up to which a run begins in its process."""

WORTH = 10.0
"""Seconds that the items that are left would take in this process, by those that are done: then Ray pays."""


class OnceItPays:
    """Works in this process, and on the executor that `start` opens as soon as that pays.

    That is with the first item where it is asked for (`at_once`), when the run is known to have more than `SMALL` rows,
    or when the items that are left of a step would take longer than `WORTH`.
    """

    def __init__(self, start: Callable[[], AbstractContextManager[Executor]], width: int, *, at_once: bool) -> None:
        self._start, self._at_once, self.width = start, at_once, width
        self._larger: Executor | None = None
        self._open = ExitStack()

    own_address = LOOPBACK

    def expect(self, rows: int) -> None:
        """See Executor."""
        self._at_once |= rows > SMALL

    def each(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        memory: int = 0,
        io_bound: IoBound | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """See Executor."""
        heavy, done, spent = list[str](), 0, 0.0
        while done < len(items) and not self._is_worth(spent * (len(items) - done) / max(1, done)):
            begun = time.monotonic()
            try:
                result = function(items[done])
            except LackOfMemoryError as error:
                heavy.append(str(error))
            else:
                yield done, result
            spent += time.monotonic() - begun
            done += 1
        if done < len(items):
            try:
                for place, result in self._find_larger().each(function, items[done:], memory, io_bound):
                    yield done + place, result
            except LackOfMemoryError as error:
                raise LackOfMemoryError(*heavy, *error.args) from None
        raise_heavy(heavy)

    def stream(self, flow: WorkerFlow, jobs: Sequence[Any]) -> Iterator[FlowEvent]:
        """See Executor."""
        return self._find_larger().stream(flow, jobs)

    def close(self) -> None:
        """End what was started."""
        self._larger = None
        self._open.close()

    def _is_worth(self, seconds: float) -> bool:
        return self._at_once or self._larger is not None or seconds > WORTH

    def _find_larger(self) -> Executor:
        if self._larger is None:
            with METER.wait("starting Ray"):
                self._larger = self._open.enter_context(self._start())
        return self._larger
