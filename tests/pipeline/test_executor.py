"""The executors: every item once, in any order; errors as they were raised; our own code in workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from ray import cloudpickle
from threadpoolctl import threadpool_info, threadpool_limits

from vlmill.pipeline.core import at_work  # by its module: workers get this one by value
from vlmill.pipeline.core.errors import LackOfMemoryError, RecipeError, StoreError, VlmillError
from vlmill.pipeline.core.meter import METER, note_work
from vlmill.pipeline.engine import ray_nodes, running_items
from vlmill.pipeline.engine.executor import Inline, IoBound, OnRay, open_executor
from vlmill.pipeline.engine.nodes import RunMarker
from vlmill.pipeline.engine.ray_nodes import NodeWatch
from vlmill.pipeline.engine.ray_train import find_interface, run_distributed


@dataclass(frozen=True)
class Item:
    number: int
    died: Path | None = None  # is there once its worker has died


def doubled(item: Item) -> int:
    return 2 * item.number


def refusing(item: Item) -> int:
    if item.number == 2:
        raise VlmillError("number 2 is not to be had")
    return item.number


def counting(item: Item) -> int:
    for _ in range(item.number):
        note_work(rows=1, size=10)
    return item.number


def deadly(item: Item) -> int:
    if item.died and not item.died.exists():
        item.died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item.number


@pytest.fixture(scope="module")
def ray_pool():
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers import our packages, not the tests
    with open_executor(2, None, models=True) as pool:
        assert isinstance(pool, OnRay)
        yield pool


@pytest.fixture(params=["inline", "ray"])
def pool(request):
    return Inline() if request.param == "inline" else request.getfixturevalue("ray_pool")


def test_every_item_comes_back_once_with_its_index(pool):
    items = [Item(number) for number in range(20)]
    assert sorted(pool.each(doubled, items)) == [(number, 2 * number) for number in range(20)]
    assert list(pool.each(doubled, [])) == []


def test_what_is_noted_within_items_arrives_in_the_meter_of_this_process(pool):
    found = Counter()
    with METER.told_to(found.update):
        list(pool.each(counting, [Item(number) for number in range(10)]))
    assert +found == {"rows": 45, "bytes": 450}


def test_items_are_worked_off_where_nobody_takes_what_is_noted(ray_pool):
    import ray

    ray.kill(ray_pool._notes)
    assert len(list(ray_pool.each(counting, [Item(number) for number in range(4)]))) == 4
    del ray_pool._notes


def test_an_error_for_people_arrives_as_it_was_raised(pool):
    with pytest.raises(VlmillError, match="number 2 is not to be had"):
        list(pool.each(refusing, [Item(number) for number in range(4)]))


def refusing_at_first(item: Item) -> int:
    if item.died and not item.died.exists():
        item.died.touch()
        raise VlmillError(f"number {item.number} lacks a package")
    return item.number


def test_what_fails_on_a_node_that_cannot_work_is_done_elsewhere_and_else_it_is_an_error(
    ray_pool, tmp_path, monkeypatch
):
    """Ray keeps the address of the node in the error's text alone."""
    import ray

    told, here = [], ray.util.get_node_ip_address()
    watch = NodeWatch(RunMarker(None), told.append)
    monkeypatch.setattr(ray_pool.cluster, "nodes", watch)
    items = [Item(0), Item(1, tmp_path / "one"), Item(2, tmp_path / "two")]
    with monkeypatch.context() as patch:
        patch.setattr(ray_nodes, "explain_node", lambda *_: ["its scratch is full"])
        patch.setattr(watch, "choose_options", lambda _: {})  # there is no other node
        assert dict(ray_pool.each(refusing_at_first, items)) == {0: 0, 1: 1, 2: 2}
    assert told == ["a node joined the cluster and is given no work: its scratch is full"]
    assert list(watch.choose_options()["label_selector"].values()) == [f"!in({ray.nodes()[0]['NodeID']})"]
    for path in tmp_path.iterdir():
        path.unlink()
    fit = NodeWatch(RunMarker(None), told.append)
    monkeypatch.setattr(ray_pool.cluster, "nodes", fit)
    with pytest.raises(VlmillError, match="lacks a package"):
        list(ray_pool.each(refusing_at_first, items))
    assert fit.choose_options() == {}
    assert not fit.is_unfit(VlmillError(f"a server with ip=192.0.2.1 and ip={here}"))
    assert len(told) == 1


@pytest.mark.parametrize("name", ["LocalRayletDiedError", "RaySystemError", "RuntimeEnvSetupError"])
def test_the_end_of_ray_itself_is_an_error_that_says_what_to_do(ray_pool, monkeypatch, name):
    import ray

    def end(*_, **__):
        raise getattr(ray.exceptions, name)("the raylet is gone")

    monkeypatch.setattr(ray, "get", end)
    with pytest.raises(StoreError, match=rf"Ray ended.*{name}.*run the same command again.*--workers 0"):
        list(ray_pool.each(doubled, [Item(0)]))


def test_an_item_whose_worker_died_is_tried_again(ray_pool, tmp_path):
    items = [Item(0), Item(1, tmp_path / "died"), Item(2)]
    assert dict(ray_pool.each(deadly, items)) == {0: 0, 1: 1, 2: 2}
    assert (tmp_path / "died").exists()


def slow_at_first(item: Item) -> int:
    if item.died and not item.died.exists():
        item.died.touch()
        time.sleep(600)
    return item.number


def test_an_item_that_takes_far_longer_than_others_is_done_a_second_time(ray_pool, tmp_path, monkeypatch):
    monkeypatch.setattr(running_items, "LEAST_S", 0.5)
    items = [Item(0), Item(1, tmp_path / "slow"), Item(2)]
    assert dict(ray_pool.each(slow_at_first, items)) == {0: 0, 1: 1, 2: 2}


def meeting(item: Item) -> int:
    """Waits until four are at work."""
    (item.died / str(item.number)).touch()
    end = time.monotonic() + 120
    while len(list(item.died.iterdir())) < 4 and time.monotonic() < end:
        time.sleep(0.05)
    return len(list(item.died.iterdir()))


def test_items_that_wait_run_more_at_once_than_there_are_cores(ray_pool, tmp_path, monkeypatch):
    monkeypatch.setattr(running_items, "SHORT_S", 0.0)
    items = [Item(number, tmp_path) for number in range(4)]
    assert dict(ray_pool.each(meeting, items, io_bound=IoBound(0.25, 4))) == dict.fromkeys(range(4), 4)


def test_the_interface_of_an_address_is_found():
    assert find_interface("127.0.0.1") == "lo"
    assert find_interface("192.0.2.254") == ""


def test_a_users_own_train_and_pipeline_are_not_imported_by_workers(tmp_path):
    """Run from a folder with a hostile `train.py` and `pipeline/`: the command starts, and workers import ours.

    The address of another Ray, as the environment has it, is none of its business.
    """
    (tmp_path / "train.py").write_text("raise SystemExit('the wrong train')")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("raise SystemExit('the wrong pipeline')")
    script = (
        "import builtins\nfrom vlmill.pipeline.engine.executor import open_executor\nwith open_executor(1, None) as "
        "pool:\n    print(sorted(pool.each(builtins.abs, [-1, 2])))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[(0, 1), (1, 2)]"


def test_more_ranks_than_this_machine_has_gpus_are_refused_in_place_of_waiting(monkeypatch):
    import ray

    for name in ("init", "shutdown"):
        monkeypatch.setattr(ray, name, lambda **_: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    with pytest.raises(RecipeError, match="--ranks 2: each takes a GPU, and this machine has 1; take --ranks 1"):
        run_distributed(lambda: None, 2, None, gpus=True, patience=timedelta(hours=2))


def test_ranks_of_ray_wait_for_each_other_as_long_as_they_are_told(monkeypatch):
    import ray
    from ray.train import torch

    class Trainer:
        def __init__(self, *_, torch_config, **__):
            asked.append((torch_config.backend, torch_config.timeout_s))

        def fit(self):
            pass

    asked = []
    for name in ("init", "shutdown"):
        monkeypatch.setattr(ray, name, lambda **_: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(torch, "TorchTrainer", Trainer)
    run_distributed(lambda: None, 2, None, gpus=False, patience=timedelta(hours=2))
    assert asked == [("gloo", 7200)]


def working(item: Item) -> int:
    """Comes to three places; at the second its process always dies for number 1, and lacks memory for number 2."""
    at_work.AT_WORK.begin(f"part {item.number}")
    for place in range(3):
        at_work.AT_WORK.note(f"row {place}")
        if (item.number, place) == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if (item.number, place) == (2, 1):
            raise LackOfMemoryError(f"{at_work.AT_WORK}: out of memory")
    return item.number


def test_an_item_that_takes_its_process_along_is_set_aside_and_named_with_the_place(ray_pool):
    done, items = [], [Item(number) for number in range(8)]
    with pytest.raises(LackOfMemoryError) as error:
        done.extend(result for _, result in ray_pool.each(working, items))
    assert sorted(done) == [0, 3, 4, 5, 6, 7]
    dead, lacking, advice = str(error.value).splitlines()
    assert dead == "part 1, at row 1: its process died (WorkerCrashedError)"
    assert lacking == "part 2, at row 1: out of memory"
    assert "All other partitions are done" in advice


def test_an_item_that_lacks_memory_in_this_process_is_named_when_the_others_are_done():
    done, items = [], [Item(number) for number in (2, 3, 4)]
    with pytest.raises(LackOfMemoryError, match="^part 2, at row 1: out of memory\nAll other partitions are done"):
        done.extend(result for _, result in Inline().each(working, items))
    assert done == [3, 4]


def tell_process(item: Item) -> int:
    assert item
    return os.getpid()


def count_blas_threads(_item=None):
    np.zeros((2, 2)) @ np.zeros((2, 2))
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


def test_in_this_process_an_item_has_one_thread_of_blas_and_the_caller_has_its_own():
    with threadpool_limits(2, user_api="blas"):
        for _, found in Inline().each(count_blas_threads, [1, 2]):
            assert found == {1}
            assert count_blas_threads() == {2}
