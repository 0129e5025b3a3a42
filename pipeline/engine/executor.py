"""Where tasks run: in this process or on Ray, which this file and ray_flow.py alone import.

`Executor.each` runs a function over items, `Executor.stream` a flow whose workers hold state (flow.py). Neither
promises anything about order: names and bytes come from the recipe, never from arrival.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import vlmill
from vlmill.pipeline.core.at_work import AT_WORK
from vlmill.pipeline.core.errors import LackOfMemoryError, RecipeError, StoreError, VlmillError
from vlmill.pipeline.core.meter import METER, Work
from vlmill.pipeline.engine.flow import FlowEvent, WorkerFlow, run_flow_here
from vlmill.pipeline.engine.once_it_pays import OnceItPays
from vlmill.pipeline.engine.set_aside import TRIES, ItemLost, ItemQueue, raise_heavy

Item = TypeVar("Item")
Result = TypeVar("Result")

CODE = ("pipeline", "mixtures", "train")
"""The packages below `vlmill` whose code decides bytes; a worker has to have the driver's."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
"""There is a worker per core."""


class Executor(Protocol):
    """Runs one function over many items."""

    def expect(self, rows: int) -> None:
        """The run has so many rows to read: whether processes for them are worth their start."""
        ...

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item], memory: int = 0
    ) -> Iterator[tuple[int, Result]]:
        """Yield (index of the item, its result) as results come.

        An item whose process died or lacked memory is tried again, elsewhere, and at last when nothing else runs. Where
        that fails as well, all others are done before an error names it, and the sample at which it was. Any other
        error of a function is raised at once. No more items run at once than have room for the bytes of `memory` that
        each takes; one alone always runs.
        """
        ...

    def stream(self, flow: WorkerFlow, jobs: Sequence[Any]) -> Iterator[FlowEvent]:
        """Yield what a flow does as it is done; each job is finished once.

        A job whose process died is fed again, and an item whose worker died is answered by another. What is in flight
        is bounded. The first error is raised.
        """
        ...


class Inline:
    """Runs everything in this process, one item after the other; what steps note is noted in its meter."""

    def expect(self, rows: int) -> None:
        """See Executor. This process it is."""

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item], memory: int = 0
    ) -> Iterator[tuple[int, Result]]:
        """See Executor. A process that dies of an item is this one."""
        del memory  # they run one after the other
        heavy = list[str]()
        for index, item in enumerate(items):
            try:
                yield index, function(item)
            except LackOfMemoryError as error:
                heavy.append(str(error))
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

    def __init__(self, width: int) -> None:
        self.width = width

    def expect(self, rows: int) -> None:
        """See Executor. Ray has begun."""

    @cached_property
    def _notes(self) -> Any:
        """The actor that workers send their notes to."""
        import ray  # noqa: PLC0415

        return ray.remote(num_cpus=0, max_restarts=-1)(_Notes).remote()

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item], memory: int = 0
    ) -> Iterator[tuple[int, Result]]:
        """See Executor."""
        import ray  # noqa: PLC0415 - a build with --workers 0 does without

        remote = ray.remote(num_cpus=1, max_retries=0, memory=_bound_memory(memory))(_run_noting)
        queue, flying, code, looked = ItemQueue(range(len(items))), dict[Any, int](), _hash_package(), 0.0
        while queue.waiting or flying:
            while queue.waiting and len(flying) < 2 * self.width:
                index = queue.waiting.pop()
                flying[remote.remote(code, function, items[index], self._notes)] = index
            landed, _ = ray.wait(list(flying), num_returns=1, timeout=self.TICK)
            looked = _take_notes(self._notes, looked)
            for reference in landed:
                index = flying.pop(reference)
                try:
                    yield index, _take_result(reference)
                except ItemLost:
                    queue.lose(index)
        _take_notes(self._notes, 0.0)
        lost = list[str]()
        for index in sorted(queue.aside):  # nothing else runs any more, and each place is told before it is worked on
            self._notes.stand.remote("")
            try:
                yield index, _take_result(remote.remote(code, function, items[index], self._notes, closely=True))
            except ItemLost as error:
                lost.append(str(error) if error.is_placed else f"{self._find_place() or items[index]}: {error}")
        raise_heavy(lost)

    def _find_place(self) -> str:
        """Where the last item was that was run closely; empty where nobody knows."""
        import ray  # noqa: PLC0415

        with suppress(ray.exceptions.RayError):
            return str(ray.get(self._notes.where.remote(), timeout=OnRay.TICK))
        return ""

    def stream(self, flow: WorkerFlow, jobs: Sequence[Any]) -> Iterator[FlowEvent]:
        """See Executor."""
        from vlmill.pipeline.engine.ray_flow import run_flow_on_ray  # noqa: PLC0415 - imports Ray

        return run_flow_on_ray(flow, jobs, partial(_check_code, _hash_package()), TRIES)


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
    expected: str, function: Callable[[Item], Result], item: Item, notes: Any, *, closely: bool = False
) -> Result:
    """Run `function` in a worker, whose notes go to the driver by way of `notes`: all are there when this returns.

    `closely` tells each place before it is worked on, which takes a millisecond.
    """
    import ray  # noqa: PLC0415

    with METER.told_to(notes.add.remote), ExitStack() as stack:
        if closely:
            stack.enter_context(AT_WORK.told_to(partial(_tell_place, notes)))
        result = _run_checked(expected, function, item)
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


def _run_checked(expected: str, function: Callable[[Item], Result], item: Item) -> Result:
    """Run `function` in a worker, after a look at whether it has the driver's code."""
    _check_code(expected)
    return function(item)


def _check_code(expected: str) -> None:
    """Refuse to work in a process that has not the driver's code."""
    if _hash_package() != expected:
        raise VlmillError(
            f"a worker imports vlmill from {_find_package()}, which is not the driver's code: start Ray with the same "
            "version on every node"
        )


def _find_package() -> Path:
    """The folder of the package `vlmill`."""
    return Path(vlmill.__file__).parent


@cache
def _hash_package() -> str:
    """sha256 over the names and contents of the Python files in CODE."""
    sha256 = hashlib.sha256()
    for name in CODE:
        folder = _find_package() / name
        for path in sorted(folder.rglob("*.py")):
            sha256.update(f"{name}/{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return sha256.hexdigest()


@contextmanager
def open_executor(
    workers: int | None, address: str | None, *, models: bool = False, gpus: bool = False
) -> Iterator[Executor]:
    """The executor that the command line names.

    `workers` 0 runs tasks in this process, None is one worker per core once that pays; an `address` joins a cluster.
    Ray starts with the first task that it is for. `models` is for recipes with models, whose pictures need room on
    their way. `gpus` lets Ray see those of this machine.
    """
    if workers == 0 and address is None:
        yield Inline()
        return
    start = partial(_open_ray, workers, address, models=models, gpus=gpus)
    if address is not None or models:
        with start() as pool:
            yield pool
        return
    with closing(OnceItPays(start, at_once=workers is not None)) as pool:
        yield pool


@contextmanager
def _open_ray(workers: int | None, address: str | None, *, models: bool, gpus: bool) -> Iterator[Executor]:
    objects = max(512, 64 * (workers or os.cpu_count() or 1)) if models else 128
    with _open_cluster(workers, address, ONE_THREAD, gpus=gpus, objects=objects << 20) as width:
        yield OnRay(width)


def run_distributed(
    function: Callable[[], object], ranks: int, address: str | None, *, gpus: bool, patience: timedelta
) -> None:
    """Run a function in `ranks` processes that are one group of torch.distributed, through Ray Train.

    Each has a GPU, or a CPU, and waits up to `patience` for the others (Ray's own default is half an hour). What they
    print is not shown: Ray Train's own lines would bury it. Raises the first error of a rank, or RecipeError where this
    machine has fewer GPUs.
    """
    import ray  # noqa: PLC0415
    from ray.train import RunConfig, ScalingConfig  # noqa: PLC0415
    from ray.train.torch import TorchConfig, TorchTrainer  # noqa: PLC0415

    code = _hash_package()
    with (
        _open_cluster(ranks, address, {}, gpus=gpus),
        tempfile.TemporaryDirectory(prefix="vlmill-ray-") as scratch,
    ):
        here = int(ray.cluster_resources().get("GPU", 0))
        if gpus and address is None and here < ranks:  # Ray would wait for more
            way = f"--ranks {here}" if here else "--device cpu"
            raise RecipeError(f"--ranks {ranks}: each takes a GPU, and this machine has {here}; take {way}")
        trainer = TorchTrainer(
            lambda: (_run_checked(code, lambda _: function(), None), None)[1],
            scaling_config=ScalingConfig(num_workers=ranks, use_gpu=gpus),
            torch_config=TorchConfig("nccl" if gpus else "gloo", timeout_s=int(patience.total_seconds())),
            run_config=RunConfig(storage_path=scratch),
        )
        try:
            trainer.fit()
        except ray.train.WorkerGroupError as error:
            raise next(iter(error.worker_failures.values()), error) from error


@contextmanager
def _open_cluster(
    workers: int | None,
    address: str | None,
    variables: Mapping[str, str],
    *,
    gpus: bool = False,
    objects: int = 128 << 20,
) -> Iterator[int]:
    """Ray on this machine with `workers` CPUs, or the cluster at an `address`; yields its CPUs.

    With our packages and no others. `objects` is the bytes that results on their way take on this machine.
    """
    import ray  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="vlmill-empty-") as empty:
        # Workers put the driver's working directory ahead of site-packages: an empty one, and our package by name
        environment = {
            "working_dir": empty,
            "py_modules": [str(_find_package())],
            "excludes": ["recipes/quickstart"],  # data that no worker reads
            "env_vars": dict(variables),
        }
        options: dict[str, Any] = {"runtime_env": environment, "log_to_driver": False, "logging_level": "ERROR"}
        if address is None:
            options |= {
                "num_cpus": workers or os.cpu_count() or 1,
                "include_dashboard": False,
                "object_store_memory": objects,
                **({} if gpus else {"num_gpus": 0}),
            }
        else:
            options |= {"address": address}
        ray.init(**options)
        try:
            yield int(ray.cluster_resources().get("CPU", 1))
        finally:
            ray.shutdown()
