"""Flows: jobs whose items are prepared by tasks and answered by workers that hold state, such as models.

    feed a job  ->  items, in order  ->  a worker of every stage answers each  ->  finish the job

An executor runs a flow (executor.py): in this process, or on Ray with the workers as actors. Items and answers keep
the order of the feed, whatever arrives first, so what a job is finished with does not depend on where it ran.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from vlmill.pipeline.core.resources import Resources


class StageWorker(Protocol):
    """Holds what takes long to load, and answers items."""

    def load(self) -> None:
        """Load what answers need, while the first items are made. The first answer does it where this is not called."""
        ...

    def answer(self, item: Any) -> tuple[Any, int]:
        """The answer to an item, and how much of the work that progress counts it was."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class WorkerStage(Protocol):
    """What makes the workers of a stage; travels to where they work."""

    @property
    def resources(self) -> Resources:
        """Of one worker."""
        ...

    @property
    def unit(self) -> str:
        """What its workers' amounts count, such as images."""
        ...

    @property
    def overlaps(self) -> bool:
        """Whether a worker may answer several items at once, from several threads."""
        ...

    def open_worker(self) -> StageWorker:
        """A worker, which has loaded nothing yet."""
        ...


class WorkerFlow(Protocol):
    """A flow; travels to workers."""

    @property
    def stages(self) -> Mapping[str, WorkerStage]:
        """By name."""
        ...

    def choose_stages(self, job: Any) -> Sequence[str]:
        """The stages that answer a job's items."""
        ...

    def feed(self, job: Any) -> Iterator[Any]:
        """The items of a job, one at a time. The same each time that it is asked."""
        ...

    def finish(self, job: Any, answers: Mapping[str, Sequence[Any]]) -> Any:
        """What a job comes to: stage -> the answers to its items, in order."""
        ...


@dataclass(frozen=True, slots=True)
class FlowEvent:
    """Some work was done; where `job` is a number, that job is finished and came to `result`."""

    amount: int = 0
    unit: str = ""
    job: int | None = None
    result: Any = None


def run_flow_here(flow: WorkerFlow, jobs: Sequence[Any]) -> Iterator[FlowEvent]:
    """Run a flow in this process, one job after the other. A stage's worker is opened when it is first needed."""
    with ExitStack() as stack:
        workers = dict[str, StageWorker]()
        for number, job in enumerate(jobs):
            answers: dict[str, list[Any]] = {name: [] for name in flow.choose_stages(job)}
            for item in flow.feed(job):
                for name, found in answers.items():
                    if name not in workers:
                        workers[name] = flow.stages[name].open_worker()
                        stack.callback(workers[name].close)
                    answer, amount = workers[name].answer(item)
                    found.append(answer)
                    yield FlowEvent(amount, flow.stages[name].unit)
            yield FlowEvent(job=number, result=flow.finish(job, answers))


SHARE = 0.5
"""What a feeder asks of a CPU, and a worker of each CPU that it computes on: one waits where the other is behind."""


@dataclass(frozen=True)
class Crew:
    """How many workers of each stage there are, and what each asks the machine for."""

    first: Mapping[str, int]  # workers that begin
    most: Mapping[str, int]  # workers that there may be where items wait for them
    options: Mapping[str, Mapping[str, Any]]  # of Ray's actors
    feeders: int  # jobs that are fed at once


def plan_crew(stages: Mapping[str, WorkerStage], cpus: float, gpus: float, memory: float) -> Crew:
    """Deal a cluster out to feeders and to the workers of stages. Pure.

    There is a feeder for each CPU, and up to as many workers: feeders wait while models are behind, and models while
    they have no items, so both use a CPU in turn. On CPUs a stage begins with one worker, since each loads the model
    anew; on GPUs, or where a number is asked for, with all. Workers that are too many for the CPUs ask Ray for none.

    Raises:
        ValueError: a stage asks for more GPUs or memory than there are; the message begins with its name.
    """
    most = dict[str, int]()
    for name, stage in stages.items():
        asked = stage.resources
        room = [max(1.0, cpus / len(stages) / asked.cpus)] if asked.cpus else [cpus]
        for kind, wanted, there in (("gpus", asked.gpus, gpus), ("memory", asked.memory or 0, memory)):
            sharing = sum(bool(getattr(other.resources, kind)) for other in stages.values())
            if wanted > there:
                raise ValueError(f"{name}.resources.{kind}: {wanted:g} of {there:g} that are there")
            if wanted:
                room.append(max(1.0, there / sharing / wanted))
        if asked.gpus:
            room[0] = max(room[0], room[1])  # GPUs are what is scarce; cores are shared
        most[name] = asked.workers or max(1, int(min(room)))
    first = {
        name: most[name] if stage.resources.workers or stage.resources.gpus else 1 for name, stage in stages.items()
    }
    feeders = max(1, int(cpus))
    fits = sum(most[name] * stage.resources.cpus for name, stage in stages.items()) <= feeders
    options = {
        name: {
            "num_cpus": SHARE * stage.resources.cpus if fits else 0,
            "num_gpus": stage.resources.gpus,
            **({"memory": stage.resources.memory} if stage.resources.memory else {}),
        }
        for name, stage in stages.items()
    }
    return Crew(first, most, options, feeders)
