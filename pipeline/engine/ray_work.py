"""What a worker on Ray runs, and how what it notes comes to the driver: an actor holds it in between."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, TypeVar

from vlmill.pipeline.core.at_work import AT_WORK
from vlmill.pipeline.core.meter import METER, Work
from vlmill.pipeline.engine.nodes import WorkerCheck

Item = TypeVar("Item")
Result = TypeVar("Result")

TICK = 1.0
"""Seconds between two looks at what workers have noted."""


class WorkNotes:
    """What workers have noted and the driver has not taken yet: an actor on Ray."""

    def __init__(self) -> None:
        self.work, self.place, self.nodes = Counter[str](), "", dict[str, str]()

    def add(self, work: Work) -> None:
        """Work was done."""
        self.work.update(work)

    def take(self) -> Work:
        """What was added since the last time."""
        work, self.work = self.work, Counter()
        return work

    def begin(self, name: str, node: str) -> None:
        """An item has begun on a node."""
        self.nodes[name] = node

    def find_node(self, name: str) -> str:
        """Where an item was begun last; empty where it was not yet."""
        return self.nodes.get(name, "")

    def note_place(self, place: str) -> None:
        """A place will be worked on next."""
        self.place = place

    def find_place(self) -> str:
        """The last such place."""
        return self.place


def take_notes(notes: Any, looked: float) -> float:
    """Note in this process what workers noted, unless the last look is less than a tick ago; returns when that was.

    Progress is worth no error: where the actor is gone or slow, nothing is noted.
    """
    import ray  # noqa: PLC0415

    now = time.monotonic()
    if now - looked < TICK:
        return looked
    with suppress(ray.exceptions.RayError):
        METER.note(ray.get(notes.take.remote(), timeout=TICK))
    return now


def run_item(
    check: WorkerCheck, function: Callable[[Item], Result], item: Item, name: str, notes: Any, *, closely: bool
) -> Result:
    """Run `function` in a worker, whose notes go to the driver by way of `notes`: all are there when this returns.

    `name` tells the item from all others of a build. `closely` tells each place before it is worked on, which takes a
    millisecond.
    """
    import ray  # noqa: PLC0415

    notes.begin.remote(name, ray.get_runtime_context().get_node_id())

    with METER.told_to(notes.add.remote), ExitStack() as stack:
        if closely:
            stack.enter_context(AT_WORK.told_to(partial(tell_place, notes)))
        check()
        result = function(item)
    with suppress(ray.exceptions.RayError):
        ray.get(notes.add.remote({}), timeout=TICK)
    return result


def tell_place(notes: Any, place: str) -> None:
    """Have `notes` hold the place that is worked on next before it is: it may be the last."""
    import ray  # noqa: PLC0415

    with suppress(ray.exceptions.RayError):
        ray.get(notes.note_place.remote(place), timeout=TICK)
