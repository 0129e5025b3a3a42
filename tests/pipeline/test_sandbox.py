"""A function in a child process: what it says comes back, and nothing that it does reaches the caller."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.helpers.upstream import obey
from vlmill.pipeline.core.sandbox import ChildCrashed, ChildTimedOut, Sandbox


@pytest.fixture
def worker():
    before = set(psutil.Process().children())
    with Sandbox(obey, seconds=20) as worker:
        yield worker
    assert set(psutil.Process().children()) <= before


def test_items_come_back_in_order_from_one_child_that_is_reused(worker):
    assert list(worker.run("hello", times=2)) == ["HELLO", "HELLO"]
    pids = {*worker.run("pid"), *worker.run("pid")}
    assert len(pids) == 1
    assert os.getpid() not in pids


@pytest.mark.parametrize(
    ("command", "said"), [("crash", "SIGSEGV"), ("leave", "exit status 3"), ("eat", "exit status")]
)
def test_a_child_that_dies_is_named_its_items_stay_and_the_next_call_works(worker, command, said):
    items = worker.run(command)
    assert next(items) == command.upper()
    with pytest.raises(ChildCrashed, match=said):
        next(items)
    assert list(worker.run("again")) == ["AGAIN"]


def test_a_child_that_hangs_is_ended_and_the_next_call_works():
    with Sandbox(obey, seconds=0.3) as worker:
        with pytest.raises(ChildTimedOut, match=r"no answer in 0\.3 s"):
            list(worker.run("hang"))
        assert list(worker.run("again")) == ["AGAIN"]


def test_an_error_in_the_function_is_the_callers_error_with_the_childs_stack(worker):
    with pytest.raises(RuntimeError, match=r"(?s)tests\.helpers\.upstream:obey failed.*KeyError: 'spam'"):
        list(worker.run("raise"))
    assert list(worker.run("again")) == ["AGAIN"]


def test_a_call_that_is_not_heard_out_does_not_mix_with_the_next(worker):
    assert next(worker.run("first", times=5)) == "FIRST"
    assert list(worker.run("second")) == ["SECOND"]


def test_a_child_killed_between_calls_is_replaced(worker):
    (pid,) = worker.run("pid")
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    assert list(worker.run("again")) == ["AGAIN"]


def test_the_child_ends_when_its_caller_is_killed():
    script = (
        "from vlmill.pipeline.core.sandbox import Sandbox; from tests.helpers.upstream import obey; import time\n"
        "items = Sandbox(obey, seconds=20).run('pid', times=2); print(next(items), flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as caller:
        child = psutil.Process(int(caller.stdout.readline()))
        caller.kill()
    assert psutil.wait_procs([child], timeout=20)[1] == []


def test_the_kernel_ends_a_hanging_child_that_nobody_waits_for():
    with Sandbox(obey, seconds=0.2) as worker:
        items = worker.run("hang")
        assert next(items) == "HANG"
        child = psutil.Process(worker._child.pid)
        while child.status() != psutil.STATUS_ZOMBIE:  # until the timeout of the test
            time.sleep(0.05)
        with pytest.raises(ChildCrashed, match="SIGALRM"):
            next(items)


def test_a_function_that_cannot_be_imported_is_an_error_not_a_crash():
    def local():
        yield 1

    with Sandbox(local, seconds=20) as worker, pytest.raises(RuntimeError, match="did not start"):
        list(worker.run())
