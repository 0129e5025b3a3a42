"""Where tasks run: in this process or on Ray (ray_cluster.py).

`Executor.each` runs a function over items, `Executor.stream` a flow whose workers hold state (flow.py). Neither
promises anything about order: names and bytes come from the recipe, never from arrival.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rich.console import Console
from threadpoolctl import ThreadpoolController

from vlmill.pipeline.core.errors import LackOfMemoryError, StoreError, VlmillError
from vlmill.pipeline.engine import running_items
from vlmill.pipeline.engine.flow import FlowEvent, WorkerFlow, run_flow_here
from vlmill.pipeline.engine.nodes import WorkerCheck
from vlmill.pipeline.engine.once_it_pays import OnceItPays
from vlmill.pipeline.engine.ray_cluster import LOOPBACK, Cluster, open_cluster
from vlmill.pipeline.engine.ray_work import TICK, WorkNotes, run_item, take_notes
from vlmill.pipeline.engine.running_items import RunningItems
from vlmill.pipeline.engine.set_aside import TRIES, ItemLost, ItemQueue, ItemRefused, raise_heavy

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

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.width, self._calls = cluster, cluster.width, 0

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

        return ray.remote(num_cpus=0, max_restarts=-1)(WorkNotes).remote()

    def each(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        memory: int = 0,
        io_bound: IoBound | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """See Executor."""
        import ray  # noqa: PLC0415 - a build with --workers 0 does without

        cpus, check = io_bound.cpus if io_bound else 1, WorkerCheck.of_cluster(self.cluster.marker)
        remote = ray.remote(num_cpus=cpus, max_retries=0, memory=_bound_memory(memory))(run_item)

        self._calls += 1
        call = self._calls

        def send(number: int, *, closely: bool = False, elsewhere_than: str = "") -> Any:
            placed = remote.options(**self.cluster.choose_options(elsewhere_than))
            return placed.remote(check, function, items[number], f"{call}.{number}", self._notes, closely=closely)

        queue = ItemQueue(range(len(items)))
        yield from self._run_items(send, queue, io_bound)
        take_notes(self._notes, 0.0)
        lost = list[str]()
        for index in sorted(queue.aside):  # nothing else runs any more, and each place is told before it is worked on
            self._notes.note_place.remote("")
            try:
                yield index, self._run_alone(send, index)
            except ItemLost as error:
                lost.append(
                    str(error) if error.is_placed else f"{self._ask_notes('find_place') or items[index]}: {error}"
                )
        raise_heavy(lost)

    def _run_items(
        self, send: Callable[..., Any], queue: ItemQueue, io_bound: IoBound | None
    ) -> Iterator[tuple[int, Any]]:
        """Send items, a bounded number at a time, and yield their results until none is left but those set aside."""
        import ray  # noqa: PLC0415

        running, looked = RunningItems(), 0.0
        while queue.waiting or running:
            self.cluster.look_at_nodes()
            width = self.cluster.count_cpus()
            while queue.waiting and len(running) < _count_sent(io_bound, width, running, len(queue.waiting)):
                index = queue.waiting.pop()
                running.add(send(index), index)
            if not (io_bound or queue.waiting):
                self._send_slow_again(send, running, width)
            arrived, _ = ray.wait(list(running), num_returns=1, timeout=TICK)
            looked = take_notes(self._notes, looked)
            for reference in arrived:
                yield from self._take_item(reference, running, queue)

    def _run_alone(self, send: Callable[..., Any], number: int) -> Any:
        """The result of an item beside which nothing runs.

        Raises:
            ItemLost: its process died, or lacked memory.
        """
        while True:
            with suppress(ItemRefused):
                return self._take_result(send(number, closely=True))

    def _send_slow_again(self, send: Callable[..., Any], running: RunningItems, width: int) -> None:
        """Have an item done a second time that takes far longer than others: in a cluster on another node."""
        cluster = self.cluster.nodes is not None
        number = running.find_straggler(width, running_items.ALONE_S if cluster else math.inf)
        if number is not None:
            node = self._ask_notes("find_node", f"{self._calls}.{number}") if cluster else ""
            running.add(send(number, elsewhere_than=node), number)

    def _take_item(self, reference: Any, running: RunningItems, queue: ItemQueue) -> Iterator[tuple[int, Any]]:
        """What has come: an item with its result; nothing where another of it came first, or its process died."""
        import ray  # noqa: PLC0415

        index = running.take(reference)
        if index is None:
            return
        try:
            result = self._take_result(reference)
        except (ItemLost, ItemRefused) as error:
            if not running.is_running(index):
                running.lose(index)
                queue.lose(index) if isinstance(error, ItemLost) else queue.waiting.append(index)
            return
        for rest in running.finish(index):
            ray.cancel(rest, force=True)
        yield index, result

    def _take_result(self, reference: Any) -> Any:
        """What an item came to.

        Raises:
            ItemLost: its process died, or lacked memory.
            ItemRefused: its node cannot work.
            StoreError: Ray ended.
        """
        import ray  # noqa: PLC0415

        try:
            return _take_result(reference)
        except ray.exceptions.RayTaskError as error:
            if self.cluster.is_unfit(error):
                raise ItemRefused(str(error)) from error
            raise (error.cause if isinstance(error.cause, (VlmillError, OSError)) else error) from None

    def _ask_notes(self, question: str, *arguments: Any) -> str:
        """What the notes say; empty where they are gone or slow."""
        import ray  # noqa: PLC0415

        with suppress(ray.exceptions.RayError):
            return str(ray.get(getattr(self._notes, question).remote(*arguments), timeout=TICK))
        return ""

    def stream(self, flow: WorkerFlow, jobs: Sequence[Any]) -> Iterator[FlowEvent]:
        """See Executor."""
        from vlmill.pipeline.engine.ray_flow import run_flow_on_ray  # noqa: PLC0415 - imports Ray

        return run_flow_on_ray(flow, jobs, WorkerCheck.of_cluster(self.cluster.marker), TRIES, self.cluster)


def _count_sent(io_bound: IoBound | None, width: int, running: RunningItems, waiting: int) -> int:
    """How many items may be on their way at once: of those that wait for others one for each core, until more pay."""
    if io_bound is None:
        return 2 * width
    return io_bound.at_once if running.is_worth_more(waiting) else min(io_bound.at_once, width)


def _bound_memory(memory: int) -> int | None:
    """The bytes to ask of Ray: what the largest node has at most, which a task then has to itself."""
    import ray  # noqa: PLC0415

    largest = max((int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    return min(memory, largest) or None


def _take_result(reference: Any) -> Any:
    """What an item came to.

    Raises:
        ItemLost: its process died, or lacked memory.
        RayTaskError: its function raised another error.
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
        raise
    except ray.exceptions.RayError as error:
        raise StoreError(explain_end(error)) from error


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
    tell: Callable[[str], None] | None = None,
    console: Console | None = None,
) -> Iterator[Executor]:
    """The executor that the command line names.

    `workers` 0 runs tasks in this process, None is one worker per core once that pays; an `address` joins a cluster.
    Ray starts with the first task that it is for. `models` is for recipes with models, whose pictures need room on
    their way. `gpus` lets Ray see those of this machine. Each node of a cluster has to see `root`, the run's folder;
    `tell` gets a line on each that joins later and cannot work. Where Ray starts now, the console says so.
    """
    if workers == 0 and address is None:
        yield Inline()
        return
    start = partial(_open_ray, workers, address, root, tell, models=models, gpus=gpus)
    if address is not None or models:
        if console:
            console.print("starting Ray" if address is None else f"joining Ray at {address}", markup=False)
        with start() as pool:
            yield pool
        return
    with closing(OnceItPays(start, workers or os.cpu_count() or 1, at_once=workers is not None)) as pool:
        yield pool


@contextmanager
def _open_ray(
    workers: int | None,
    address: str | None,
    root: Path | None,
    tell: Callable[[str], None] | None,
    *,
    models: bool,
    gpus: bool,
) -> Iterator[Executor]:
    objects = max(512, 64 * (workers or os.cpu_count() or 1)) if models else 128
    with open_cluster(workers, address, ONE_THREAD, gpus=gpus, objects=objects << 20, root=root, tell=tell) as cluster:
        yield OnRay(cluster)
