"""A flow on Ray: feeders are streaming tasks, workers are actors, and only references pass through the driver.

At most two items of a feeder wait for the driver, and at most two a worker for their answer, so what is in flight does
not grow with the run. Workers load while the first items are made. Where items of a stage wait for `PATIENCE` seconds
without a break, as many workers as it has are added, up to what there is room for. A feeder that dies has its job fed
again; a worker that dies is replaced and the item answered again: neither says anything against what it worked on,
since models die in a child of their worker.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from vlmill.pipeline.core.errors import RecipeError, StoreError, VlmillError
from vlmill.pipeline.engine.executor import explain_end
from vlmill.pipeline.engine.flow import SHARE, Crew, FlowEvent, WorkerFlow, WorkerStage, plan_crew
from vlmill.pipeline.engine.ray_cluster import Cluster

AHEAD = 2
"""Items that wait at a feeder or at a worker."""

TICK = 1.0
"""Seconds between two looks at whether the cluster is there."""

PATIENCE = 10.0
"""Seconds that items wait for a stage's workers before more begin: about what one needs to load a model."""


class _Actor:
    """A worker in a process of its own."""

    def __init__(self, check: Callable[[], None], stage: WorkerStage) -> None:
        check()
        self.worker = stage.open_worker()

    def load(self) -> None:
        """See StageWorker."""
        self.worker.load()

    def answer(self, item: Any) -> tuple[Any, int]:
        """See StageWorker."""
        return self.worker.answer(item)


def _feed_job(check: Callable[[], None], flow: WorkerFlow, job: Any) -> Iterator[Any]:
    check()
    yield from flow.feed(job)


def _finish_job(check: Callable[[], None], flow: WorkerFlow, job: Any, stages: Sequence[str], *answers: Any) -> Any:
    """`answers` are those of the first stage in order, then those of the next."""
    check()
    each = len(answers) // max(1, len(stages))
    return flow.finish(job, {name: answers[n * each : (n + 1) * each] for n, name in enumerate(stages)})


@dataclass(eq=False)
class _Call:
    """An item that a stage is to answer."""

    job: _Job
    round: int  # of the job
    stage: str
    number: int
    item: Any  # reference
    attempts: int = 0

    @property
    def is_stale(self) -> bool:
        """Whether the job was begun anew since."""
        return self.round != self.job.round


@dataclass(eq=False)
class _Job:
    """A job on its way."""

    number: int
    stages: Sequence[str]
    round: int = 0
    items: int = 0  # that were fed
    is_fed: bool = False
    answers: dict[tuple[str, int], Any] = field(default_factory=dict)  # references
    finishing: int = 0

    @property
    def is_answered(self) -> bool:
        """Whether every item has all answers."""
        return self.is_fed and len(self.answers) == self.items * len(self.stages)

    def begin_anew(self) -> None:
        """Forget what was fed."""
        self.round, self.items, self.is_fed, self.answers = self.round + 1, 0, False, {}


@dataclass(eq=False)
class _Worker:
    """An actor, and what it is at."""

    stage: str
    handle: Any
    calls: int = 0
    is_loaded: bool = False


def run_flow_on_ray(
    flow: WorkerFlow, jobs: Sequence[Any], check: Callable[[], None], attempts: int, cluster: Cluster
) -> Iterator[FlowEvent]:
    """Run a flow on the cluster that Ray is connected to; see Executor.stream.

    Args:
        flow: What is run.
        jobs: What it is run over.
        check: Called first in every process; raises where it has other code than the driver.
        attempts: How often a job or an item may lose its process.
        cluster: Which Ray it is.
    """
    import ray  # noqa: PLC0415 - a build with --workers 0 does without

    if not jobs:
        return
    there = ray.cluster_resources()
    needed = {name for job in jobs for name in flow.choose_stages(job)}
    stages = {name: stage for name, stage in flow.stages.items() if name in needed}
    try:
        crew = plan_crew(stages, there.get("CPU", 1), there.get("GPU", 0), there.get("memory", 0))
    except ValueError as error:
        raise RecipeError(f"signals.{error} on this machine or cluster") from None
    run = _FlowRun(ray, flow, jobs, check, attempts, crew, cluster)
    try:
        for name, number in crew.first.items():
            run.add_workers(name, number)
        yield from run.list_events()
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, (VlmillError, OSError)) else error) from None
    except ray.exceptions.RayError as error:
        raise StoreError(explain_end(error)) from error
    finally:
        for worker in run.workers:
            ray.kill(worker.handle)


class _FlowRun:
    """The driver's side of a flow. It waits for one thing at a time, and does what follows from it."""

    def __init__(
        self,
        ray: Any,
        flow: WorkerFlow,
        jobs: Sequence[Any],
        check: Callable[[], None],
        attempts: int,
        crew: Crew,
        cluster: Cluster,
    ) -> None:
        self.ray, self.cluster = ray, cluster
        lost = ray.exceptions
        self.worker_lost = (lost.ActorDiedError, lost.ActorUnavailableError)
        self.item_lost = (
            lost.WorkerCrashedError,
            lost.OutOfMemoryError,
            lost.NodeDiedError,
            lost.ObjectLostError,
        )
        self.flow, self.jobs, self.check, self.attempts, self.crew = flow, jobs, check, attempts, crew
        self.workers = list[_Worker]()
        self.loading = dict[Any, _Worker]()
        self.behind = dict[str, float]()  # stage -> since when items wait for all its workers
        self.waiting = deque(_Job(number, flow.choose_stages(job)) for number, job in enumerate(jobs))
        self.feeding = dict[Any, tuple[_Job, int]]()  # generator -> job, its round
        self.calls = deque[_Call]()
        self.answering = dict[Any, tuple[_Worker, _Call, Any]]()  # reference to an amount -> ..., to the answer
        self.finishing = dict[Any, _Job]()
        self.flow_ref = self.ray.put(flow)

    def add_workers(self, stage: str, number: int) -> None:
        """Workers of a stage, that Ray starts where there is room. They begin to load."""
        at_once = AHEAD if self.flow.stages[stage].overlaps else 1
        options = {**self.crew.options[stage], **self.cluster.choose_options()}
        actor = self.ray.remote(max_restarts=0, max_concurrency=at_once, **options)(_Actor)
        for _ in range(number):
            worker = _Worker(stage, actor.remote(self.check, self.flow.stages[stage]))
            self.workers.append(worker)
            self.loading[worker.handle.load.remote()] = worker

    def list_events(self) -> Iterator[FlowEvent]:
        """Until all jobs are finished."""
        left = len(self.jobs)
        while left:
            self.cluster.look_at_nodes()
            self._start_feeders()
            self._send_calls()
            self._help_stages()
            wanted = [*self.finishing, *self.answering, *self.loading]
            if len(self.calls) < AHEAD * len(self.workers):
                wanted += self.feeding
            found, _ = self.ray.wait(wanted, num_returns=1, timeout=TICK, fetch_local=False)
            if not found:
                continue
            ready = found[0]
            if ready in self.finishing:
                event = self._take_finished(ready)
                left -= event is not None
            elif ready in self.answering:
                event = self._take_answer(ready)
            elif ready in self.loading:
                event = self._take_loaded(ready)
            else:
                event = self._take_item(ready)
            if event is not None:
                yield event

    def _start_feeders(self) -> None:
        while self.waiting and len(self.feeding) < self.crew.feeders:
            job = self.waiting.popleft()
            feed = self.ray.remote(
                num_cpus=SHARE,
                max_retries=0,
                num_returns="streaming",
                _generator_backpressure_num_objects=AHEAD,
                **self.cluster.choose_options(),
            )(_feed_job)
            self.feeding[feed.remote(self.check, self.flow_ref, self.jobs[job.number])] = job, job.round

    def _send_calls(self) -> None:
        """Give items to workers that have room, in the order in which they were fed."""
        for call in list(self.calls):
            free = [worker for worker in self.workers if worker.stage == call.stage and worker.calls < AHEAD]
            if call.is_stale:
                self.calls.remove(call)
            elif free:
                worker = min(free, key=lambda worker: worker.calls)
                self.calls.remove(call)
                answer, amount = worker.handle.answer.options(num_returns=2).remote(call.item)
                worker.calls += 1
                self.answering[amount] = worker, call, answer

    def _help_stages(self) -> None:
        """Add workers to stages that are behind."""
        now, waiting = time.monotonic(), {call.stage for call in self.calls}
        for stage, most in self.crew.most.items():
            own = [worker for worker in self.workers if worker.stage == stage]
            if stage not in waiting or len(own) >= most or not all(worker.is_loaded for worker in own):
                self.behind.pop(stage, None)
            elif now - self.behind.setdefault(stage, now) >= PATIENCE:
                self.add_workers(stage, min(len(own), most - len(own)))

    def _take_loaded(self, reference: Any) -> FlowEvent | None:
        """A worker that has loaded; of one that died while it did the calls say so."""
        self.loading.pop(reference).is_loaded = True
        with suppress(*self.worker_lost):
            self.ray.get(reference)
        return None

    def _take_item(self, generator: Any) -> FlowEvent | None:
        """An item of a feeder, or its end."""
        job, round_ = self.feeding[generator]
        try:
            item = next(generator)
        except StopIteration:
            del self.feeding[generator]
            if round_ == job.round:
                job.is_fed = True
                self._finish_answered(job)
            return None
        if round_ == job.round:
            self.calls += [_Call(job, round_, stage, job.items, item) for stage in job.stages]
            job.items += 1
        return None

    def _take_answer(self, reference: Any) -> FlowEvent | None:
        worker, call, answer = self.answering.pop(reference)
        worker.calls -= 1
        try:
            amount = self.ray.get(reference)
        except self.worker_lost as error:
            self.cluster.wait_for_probes()  # it may have died of a node that joined and cannot work
            self._replace_worker(worker)
            call.attempts += 1
            if call.attempts == self.attempts:
                job = self.jobs[call.job.number]
                raise StoreError(
                    f"a worker of {call.stage} died {self.attempts} times over an item of {job}: {error}"
                ) from error
            self.calls.appendleft(call)
            return None
        except self.item_lost as error:
            if not call.is_stale:
                self._feed_anew(call.job, error)
            return None
        except self.ray.exceptions.RayTaskError as error:
            if not self.cluster.is_unfit(error):
                raise
            if not call.is_stale:
                self._feed_anew(call.job, error)
            return None
        if call.is_stale:
            return None
        call.job.answers[call.stage, call.number] = answer
        self._finish_answered(call.job)
        return FlowEvent(amount, self.flow.stages[call.stage].unit)

    def _replace_worker(self, worker: _Worker) -> None:
        """Start another in the place of one that died; calls to the dead one fail by themselves."""
        if worker in self.workers:
            self.workers.remove(worker)
            self.add_workers(worker.stage, 1)

    def _feed_anew(self, job: _Job, error: Exception) -> None:
        job.begin_anew()
        if job.round == self.attempts:
            raise StoreError(f"a process died {self.attempts} times over {self.jobs[job.number]}: {error}") from error
        self.waiting.appendleft(job)

    def _finish_answered(self, job: _Job) -> None:
        if job.is_answered:
            answers = [job.answers[stage, number] for stage in job.stages for number in range(job.items)]
            finish = self.ray.remote(num_cpus=0, max_retries=0, **self.cluster.choose_options())(_finish_job)
            reference = finish.remote(self.check, self.flow_ref, self.jobs[job.number], job.stages, *answers)
            self.finishing[reference] = job

    def _take_finished(self, reference: Any) -> FlowEvent | None:
        job = self.finishing.pop(reference)
        try:
            result = self.ray.get(reference)
        except self.item_lost as error:
            self._feed_anew(job, error)
            return None
        except self.ray.exceptions.RayTaskError as error:
            if not self.cluster.is_unfit(error):
                raise
            self._finish_answered(job)
            return None
        job.answers = {}
        return FlowEvent(job=job.number, result=result)
