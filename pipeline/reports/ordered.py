"""A function over items in workers, and its results in the order of the items: for commands that read a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from vlmill.pipeline.core.progress import Watcher
from vlmill.pipeline.engine.executor import Executor

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    executor: Executor, function: Callable[[Item], Result], items: Sequence[Item], watcher: Watcher | None = None
) -> Iterator[Result]:
    """Results in the order of the items; those that come early wait.

    Args:
        executor: Where the function runs.
        function: Travels to workers.
        items: What it is given.
        watcher: Is told of each that is done.
    """
    early, wanted = dict[int, Result](), 0
    for index, result in executor.each(function, items):
        early[index] = result
        if watcher:
            watcher.done()
        while wanted in early:
            yield early.pop(wanted)
            wanted += 1
