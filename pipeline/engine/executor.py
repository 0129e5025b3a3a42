"""Where tasks run: in this process or on Ray (ray_cluster.py).

`Executor.each` runs a function over items, `Executor.stream` a flow whose workers hold state (flow.py). Neither
promises anything about order: names and bytes come from the recipe, never from arrival.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from threadpoolctl import ThreadpoolController

from vlmill.pipeline.core.at_work import AT_WORK
from vlmill.pipeline.core.errors import LackOfMemoryError, StoreError, VlmillError
from vlmill.pipeline.core.meter import METER, Work
from vlmill.pipeline.engine.flow import FlowEvent, WorkerFlow, run_flow_here
from vlmill.pipeline.engine.nodes import RunMarker, check_code, hash_package
from vlmill.pipeline.engine.once_it_pays import OnceItPays
from vlmill.pipeline.engine.ray_cluster import LOOPBACK, Cluster, open_cluster
from vlmill.pipeline.engine.running_items import RunningItems
from vlmill.pipeline.engine.set_aside import TRIES, ItemLost, ItemQueue, raise_heavy

Item = TypeVar("Item")
Result = TypeVar("Result")

ONE_THREAD = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
"""There is a worker per core."""


@dataclass(frozen=True)
class IoBound:
    """How items run that wait for others, such as servers, most of the time."""

    cpus: float  # that each takes of the machine
    at_once: int  # the most of them that run at once, on all nodes


class Executor(Protocol):
    """Runs one function over many items."""

    @property
    def width(self) -> int:
        """How many items that compute run at once."""
        ...

    @property
    def own_address(self) -> str:
        """Where workers reach this process: loopback, or this machine's address in a cluster."""
        ...

    def expect(self, rows: int) -> None:
        """The run has so many rows to read: whether processes for them are worth their start."""
        ...

    def each(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        memory: int = 0,
        io_bound: IoBound | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Yield (index of the item, its result) as results come.

        An item whose process died or lacked memory is tried again, elsewhere, and at last when nothing else runs. Where
        that fails as well, all others are done before an error names it, and the sample at which it was. Any other
        error of a function is raised at once. No more items run at once than have room for the bytes of `memory` that
        each takes; one alone always runs. `io_bound` is for items that wait for others most of the time.
        """
        ...

    def stream(self, flow: WorkerFlow, jobs: Sequence[Any]) -> Iterator[FlowEvent]:
        """Yield what a flow does as it is done; each job is finished once.

        A job whose process died is fed again, and an item whose worker died is answered by another. What is in flight
        is bounded. The first error is raised.
        """
        ...


class Inline:
    """Runs everything in this process, one item after the other; what steps note is noted in its meter.

    While an item runs, numpy's BLAS has one thread, as in workers: it multiplies small matrices, for which its threads
    wait for each other longer than they work.
    """

    own_address, width = LOOPBACK, 1

    def expect(self, rows: int) -> None:
        """See Executor. This process it is."""

    def each(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        memory: int = 0,
        io_bound: IoBound | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """See Executor. A process that dies of an item is this one."""
        del memory, io_bound  # they run one after the other
        heavy, threads = list[str](), ThreadpoolController()
        for index, item in enumerate(items):
            try:
                with threads.limit(limits=1, user_api="blas"):
                    result = function(item)
            except LackOfMemoryError as error:
                heavy.append(str(error))
            else:
                yield index, result
        raise_heavy(heavy)

    def stream(self, flow: WorkerFlow, jobs: Sequence[Any]) -> Iterator[FlowEvent]:
        """See Executor. Workers are opened here."""
        return run_flow_here(flow, jobs)


class OnRay:
    """Runs items as Ray tasks of one CPU each, with a bounded number submitted ahead.

    What steps note in workers comes to this process's meter about once a second.
    """

    TICK = 1.0
    """Seconds between two looks at what workers have noted."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.width = cluster, cluster.width

    @property
    def own_address(self) -> str:
        """See Executor."""
        return self.cluster.own_address

    def expect(self, rows: int) -> None:
        """See Executor. Ray has begun."""

    @cached_property
    def _notes(self) -> Any:
        """The actor that workers send their notes to."""
        import ray  # noqa: PLC0415

        return ray.remote(num_cpus=0, max_restarts=-1)(_Notes).remote()

    def each(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        memory: int = 0,
        io_bound: IoBound | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """See Executor."""
        import ray  # noqa: PLC0415 - a build with --workers 0 does without

        cpus, ahead = (io_bound.cpus, io_bound.at_once) if io_bound else (1, 2 * self.width)
        remote = ray.remote(num_cpus=cpus, max_retries=0, memory=_bound_memory(memory))(_run_noting)
        send = partial(remote.remote, (hash_package(), self.cluster.marker), function)
        queue = ItemQueue(range(len(items)))
        yield from self._run_items(send, items, queue, ahead, twice=io_bound is None)
        _take_notes(self._notes, 0.0)
        lost = list[str]()
        for index in sorted(queue.aside):  # nothing else runs any more, and each place is told before it is worked on
            self._notes.stand.remote("")
            try:
                yield index, _take_result(send(items[index], self._notes, closely=True))
            except ItemLost as error:
                lost.append(str(error) if error.is_placed else f"{self._find_place() or items[index]}: {error}")
        raise_heavy(lost)

    def _run_items(
        self, send: Callable[..., Any], items: Sequence[Item], queue: ItemQueue, ahead: int, *, twice: bool
    ) -> Iterator[tuple[int, Any]]:
        """Send items, at most `ahead` at a time, and yield their results until none is left but those set aside."""
        import ray  # noqa: PLC0415

        running, looked = RunningItems(self.width), 0.0
        while queue.waiting or running:
            self.cluster.check_head()
            while queue.waiting and len(running) < ahead:
                index = queue.waiting.pop()
                running.add(send(items[index], self._notes), index)
            if twice and not queue.waiting and (slow := running.find_straggler()) is not None:
                running.add(send(items[slow], self._notes), slow)
            arrived, _ = ray.wait(list(running), num_returns=1, timeout=self.TICK)
            looked = _take_notes(self._notes, looked)
            for reference in arrived:
                yield from _take_item(reference, running, queue)

    def _find_place(self) -> str:
        """Where the last item was that was run closely; empty where nobody knows."""
        import ray  # noqa: PLC0415

        with suppress(ray.exceptions.RayError):
            return str(ray.get(self._notes.where.remote(), timeout=OnRay.TICK))
        return ""

    def stream(self, flow: WorkerFlow, jobs: Sequence[Any]) -> Iterator[FlowEvent]:
        """See Executor."""
        from vlmill.pipeline.engine.ray_flow import run_flow_on_ray  # noqa: PLC0415 - imports Ray

        return run_flow_on_ray(
            flow, jobs, partial(check_code, hash_package(), self.cluster.marker), TRIES, self.cluster
        )


def _take_item(reference: Any, running: RunningItems, queue: ItemQueue) -> Iterator[tuple[int, Any]]:
    """What has come: an item with its result; nothing where another of it came first, or its process died."""
    import ray  # noqa: PLC0415

    index = running.take(reference)
    if index is None:
        return
    try:
        result = _take_result(reference)
    except ItemLost:
        if not running.is_running(index):
            running.lose(index)
            queue.lose(index)
        return
    for rest in running.finish(index):
        ray.cancel(rest, force=True)
    yield index, result


def _bound_memory(memory: int) -> int | None:
    """The bytes to ask of Ray: what the largest node has at most, which a task then has to itself."""
    import ray  # noqa: PLC0415

    largest = max((int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    return min(memory, largest) or None


def _take_result(reference: Any) -> Any:
    """What an item came to.

    Raises:
        ItemLost: its process died, or lacked memory.
        StoreError: Ray ended.
    """
    import ray  # noqa: PLC0415

    try:
        return ray.get(reference)
    except (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
    ) as error:
        raise ItemLost(f"its process died ({type(error).__name__})") from error
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, LackOfMemoryError):
            raise ItemLost(str(error.cause), is_placed=True) from None
        raise (error.cause if isinstance(error.cause, (VlmillError, OSError)) else error) from None
    except ray.exceptions.RayError as error:
        raise StoreError(explain_end(error)) from error


class _Notes:
    """What workers have noted and the driver has not taken yet: an actor on Ray."""

    def __init__(self) -> None:
        self.work, self.place = Counter[str](), ""

    def add(self, work: Work) -> None:
        self.work.update(work)

    def take(self) -> Work:
        work, self.work = self.work, Counter()
        return work

    def stand(self, place: str) -> None:
        self.place = place

    def where(self) -> str:
        return self.place


def _take_notes(notes: Any, looked: float) -> float:
    """Note in this process what workers noted, unless the last look is less than a tick ago; returns when that was.

    Progress is worth no error: where the actor is gone or slow, nothing is noted.
    """
    import ray  # noqa: PLC0415

    now = time.monotonic()
    if now - looked < OnRay.TICK:
        return looked
    with suppress(ray.exceptions.RayError):
        METER.note(ray.get(notes.take.remote(), timeout=OnRay.TICK))
    return now


def _run_noting(
    code: tuple[str, RunMarker], function: Callable[[Item], Result], item: Item, notes: Any, *, closely: bool = False
) -> Result:
    """Run `function` in a worker, whose notes go to the driver by way of `notes`: all are there when this returns.

    `closely` tells each place before it is worked on, which takes a millisecond.
    """
    import ray  # noqa: PLC0415

    with METER.told_to(notes.add.remote), ExitStack() as stack:
        if closely:
            stack.enter_context(AT_WORK.told_to(partial(_tell_place, notes)))
        check_code(*code)
        result = function(item)
    with suppress(ray.exceptions.RayError):
        ray.get(notes.add.remote({}), timeout=OnRay.TICK)
    return result


def _tell_place(notes: Any, place: str) -> None:
    """Have `notes` hold the place that is worked on next before it is: it may be the last."""
    import ray  # noqa: PLC0415

    with suppress(ray.exceptions.RayError):
        ray.get(notes.stand.remote(place), timeout=OnRay.TICK)


def explain_end(error: Exception) -> str:
    """What to do where Ray itself ended, or a process that it cannot do without."""
    said = str(error).strip().partition("\n")[0]
    return (
        f"Ray ended while the build ran ({type(error).__name__}: {said}); run the same command again: what is "
        "committed is kept. If the machine lacks memory, take fewer --workers; --workers 0 does without Ray"
    )


@contextmanager
def open_executor(
    workers: int | None,
    address: str | None,
    *,
    models: bool = False,
    gpus: bool = False,
    root: Path | None = None,
) -> Iterator[Executor]:
    """The executor that the command line names.

    `workers` 0 runs tasks in this process, None is one worker per core once that pays; an `address` joins a cluster.
    Ray starts with the first task that it is for. `models` is for recipes with models, whose pictures need room on
    their way. `gpus` lets Ray see those of this machine. Each node of a cluster has to see `root`, the run's folder.
    """
    if workers == 0 and address is None:
        yield Inline()
        return
    start = partial(_open_ray, workers, address, root, models=models, gpus=gpus)
    if address is not None or models:
        with start() as pool:
            yield pool
        return
    with closing(OnceItPays(start, workers or os.cpu_count() or 1, at_once=workers is not None)) as pool:
        yield pool


@contextmanager
def _open_ray(
    workers: int | None, address: str | None, root: Path | None, *, models: bool, gpus: bool
) -> Iterator[Executor]:
    objects = max(512, 64 * (workers or os.cpu_count() or 1)) if models else 128
    with open_cluster(workers, address, ONE_THREAD, gpus=gpus, objects=objects << 20, root=root) as cluster:
        yield OnRay(cluster)
