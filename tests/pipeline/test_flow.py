"""Flows: answers in the order of the feed, lost processes, and who works on what."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count, repeat
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import cloudpickle

from vlmill.pipeline.core.errors import RecipeError, StoreError, VlmillError
from vlmill.pipeline.core.resources import Resources
from vlmill.pipeline.engine import ray_flow
from vlmill.pipeline.engine.executor import Inline, open_executor
from vlmill.pipeline.engine.flow import plan_crew


@dataclass(frozen=True)
class Job:
    name: str
    items: int
    stages: tuple[str, ...] = ("double", "name")
    dies: Path | None = None  # is there once the feeder has died of it
    refuses: bool = False


class Worker:
    """Answers with what it makes of an item, and counts how many it was asked."""

    def __init__(self, stage):
        self.stage, self.asked = stage, 0

    def load(self):
        if self.stage.lacks_model:
            raise VlmillError("there is no model")

    def answer(self, item):
        job, number = item
        self.asked += 1
        if self.stage.present is not None:
            (self.stage.present / str(os.getpid())).touch()
            wait_until(lambda: len(list(self.stage.present.iterdir())) >= self.stage.needs)
            return os.getpid(), 1
        if self.stage.always or (self.stage.dies and number == 1 and not self.stage.dies.exists()):
            (self.stage.dies or Path(os.devnull)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return (f"{self.stage.name} {job.name} {number}", 1)

    def close(self):
        pass


@dataclass(frozen=True)
class Stage:
    name: str
    dies: Path | None = None  # is there once a worker has died
    always: bool = False
    lacks_model: bool = False
    present: Path | None = None  # folder where workers leave their process; it is then the answer
    needs: int = 1  # workers that have to be present before one answers
    unit: str = "things"
    overlaps: bool = False
    resources: Resources = field(default_factory=Resources)

    def open_worker(self):
        return Worker(self)


@dataclass(frozen=True)
class Flow:
    stages: dict[str, Stage]

    def choose_stages(self, job):
        return job.stages

    def feed(self, job):
        for number in range(job.items):
            if job.refuses and number == 2:
                raise VlmillError("item 2 is not to be had")
            if job.dies and number == 2 and not job.dies.exists():
                job.dies.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield job, number

    def finish(self, job, answers):
        return {name: list(found) for name, found in answers.items()}


def wait_until(condition):
    latest = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < latest
        time.sleep(0.02)


FLOW = Flow({name: Stage(name) for name in ("double", "name")})


@pytest.fixture(scope="module")
def ray_pool():
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers import our packages, not the tests
    with open_executor(2, None, models=True) as pool:
        yield pool


@pytest.fixture(params=["inline", "ray"])
def pool(request):
    return Inline() if request.param == "inline" else request.getfixturevalue("ray_pool")


def run(pool, flow, jobs):
    """What each job came to, and how much of what was counted."""
    found, amounts = {}, Counter()
    for event in pool.stream(flow, jobs):
        amounts[event.unit] += event.amount
        if event.job is not None:
            assert event.job not in found
            found[event.job] = event.result
    return found, amounts


def expect(jobs):
    return {
        number: {stage: [f"{stage} {job.name} {item}" for item in range(job.items)] for stage in job.stages}
        for number, job in enumerate(jobs)
    }


def test_every_job_is_finished_once_with_all_answers_in_the_order_of_its_items(pool):
    jobs = [Job(f"job{number}", number % 4 * 3) for number in range(6)] + [
        Job("other", 5, ("name",)),
        Job("none", 3, ()),
    ]
    found, amounts = run(pool, FLOW, jobs)
    assert found == expect(jobs)
    assert amounts["things"] == sum(job.items * len(job.stages) for job in jobs)
    assert run(pool, FLOW, []) == ({}, {})


def test_an_error_for_people_in_a_feed_arrives_as_it_was_raised(pool):
    with pytest.raises(VlmillError, match="item 2 is not to be had"):
        run(pool, FLOW, [Job("fine", 2), Job("bad", 5, refuses=True)])


def test_a_job_whose_feeder_died_is_fed_again(ray_pool, tmp_path):
    jobs = [Job("a", 5), Job("b", 6, dies=tmp_path / "died"), Job("c", 3)]
    assert run(ray_pool, FLOW, jobs)[0] == expect(jobs)
    assert (tmp_path / "died").exists()


def test_an_item_whose_worker_died_is_answered_by_another(ray_pool, tmp_path):
    flow = Flow({"double": Stage("double", dies=tmp_path / "died"), "name": Stage("name")})
    jobs = [Job("a", 5), Job("b", 6)]
    assert run(ray_pool, flow, jobs)[0] == expect(jobs)
    assert (tmp_path / "died").exists()


def test_a_worker_that_dies_again_and_again_ends_the_flow(ray_pool):
    flow = Flow({"double": Stage("double", always=True), "name": Stage("name")})
    with pytest.raises(StoreError, match="a worker of double died 3 times over an item of Job"):
        run(ray_pool, flow, [Job("a", 3)])


def test_workers_load_before_they_answer_and_an_error_of_it_ends_the_flow(ray_pool):
    flow = Flow({"double": Stage("double", lacks_model=True), "name": Stage("name")})
    with pytest.raises(VlmillError, match="there is no model"):
        run(ray_pool, flow, [Job("a", 5)])


@pytest.mark.parametrize(("clock", "workers"), [(count(0, ray_flow.PATIENCE), 2), (repeat(0), 1)])
def test_a_stage_whose_items_have_waited_long_enough_gets_another_worker(
    ray_pool, monkeypatch, tmp_path, clock, workers
):
    monkeypatch.setattr(ray_flow, "time", SimpleNamespace(monotonic=clock.__next__))
    stage = Stage("name", present=tmp_path, needs=workers)
    found, _ = run(ray_pool, Flow({"name": stage}), [Job("a", 20, ("name",))])
    assert len(list(tmp_path.iterdir())) == workers
    assert {str(process) for process in found[0]["name"]} == {path.name for path in tmp_path.iterdir()}


def test_a_wait_that_was_broken_begins_anew(monkeypatch):
    now, added = count(0, ray_flow.PATIENCE * 0.6), []
    monkeypatch.setattr(ray_flow, "time", SimpleNamespace(monotonic=now.__next__))
    run = SimpleNamespace(
        calls=[],
        behind={},
        crew=SimpleNamespace(most={"name": 2}),
        workers=[ray_flow._Worker("name", None, is_loaded=True)],
        add_workers=lambda stage, number: added.append((stage, number)),
    )
    for waits, expected in [(1, []), (1, []), (0, []), (1, []), (1, []), (1, [("name", 1)])]:
        run.calls = [SimpleNamespace(stage="name")] * waits
        ray_flow._FlowRun._help_stages(run)
        assert added == expected


# -- who works on what -------------------------------------------------------------------------------------------------


def crew(cpus, gpus=0, memory=64, **resources):
    stages = {name: Stage(name, resources=Resources(**asked)) for name, asked in resources.items()}
    found = plan_crew(stages, cpus, gpus, memory)
    return dict(found.first), dict(found.most), {name: options["num_cpus"] for name, options in found.options.items()}


def test_a_stage_begins_with_one_worker_and_may_have_as_many_as_there_are_cpus_beside_as_many_feeders():
    assert crew(2, a={}) == ({"a": 1}, {"a": 2}, {"a": 0.5})
    assert crew(9, a={"cpus": 2}, b={}) == ({"a": 1, "b": 1}, {"a": 2, "b": 4}, {"a": 1, "b": 0.5})
    assert crew(1, a={}) == ({"a": 1}, {"a": 1}, {"a": 0.5})
    assert crew(8, a={"workers": 2}) == ({"a": 2}, {"a": 2}, {"a": 0.5})
    for cpus in (1, 2, 8):
        assert plan_crew({"a": Stage("a")}, cpus, 0, 64).feeders == cpus


def test_workers_that_are_too_many_for_the_cpus_take_none_of_them():
    assert crew(2, a={}, b={}, c={}) == ({"a": 1, "b": 1, "c": 1},) * 2 + ({"a": 0, "b": 0, "c": 0},)
    assert crew(1, a={"workers": 2})[2] == {"a": 0}


def test_gpus_and_memory_bound_how_many_workers_there_are():
    assert crew(16, gpus=1, a={"gpus": 1}) == ({"a": 1}, {"a": 1}, {"a": 0.5})
    assert crew(16, gpus=2, a={"gpus": 0.25}, b={"gpus": 0.5})[:2] == ({"a": 4, "b": 2},) * 2  # all at once
    assert crew(16, memory=10, a={"memory": 4})[1] == {"a": 2}
    with pytest.raises(ValueError, match=r"a.resources.gpus: 1 of 0 that are there"):
        crew(16, a={"gpus": 1})
    with pytest.raises(ValueError, match=r"a.resources.memory: 99 of 64"):
        crew(16, a={"memory": 99})


def test_a_gpu_that_a_cluster_does_not_have_is_refused_in_place_of_waiting(ray_pool):
    flow = Flow({"double": Stage("double", resources=Resources(gpus=1)), "name": Stage("name")})
    with pytest.raises(RecipeError, match=r"signals.double.resources.gpus: 1 of 0 that are there on this machine"):
        run(ray_pool, flow, [Job("a", 1)])
