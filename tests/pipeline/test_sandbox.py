"""A function in a child process: what it says comes back, and nothing that it does reaches the caller."""

import os
import pickle
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.helpers.upstream import obey
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sandbox import ITEM, LARGEST, ChildCrashed, ChildTimedOut, Sandbox, borrow_sandbox


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


@pytest.mark.parametrize(("command", "said"), [("crash", "SIGSEGV"), ("leave", "exit status 3")])
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


def test_a_child_that_takes_more_memory_than_it_may_says_so_and_the_next_call_works():
    with Sandbox(obey, seconds=20, memory=200 << 20) as worker:
        assert list(worker.run("eat", times=100)) == ["EAT"] * 100
        with pytest.raises(ChildCrashed, match=r"more than 209,715,200 bytes of memory") as caught:
            list(worker.run("eat", times=300))
        assert caught.value.reason is Reason.OUT_OF_MEMORY
        assert list(worker.run("again")) == ["AGAIN"]


class Spy:
    """What a decoder that was taken over would send: it makes a folder where it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def frame(kind, body, size=None):
    return (bytes([kind]) + (len(body) if size is None else size).to_bytes(8, "big") + body).hex()


def test_what_a_child_says_runs_nothing_in_its_caller(worker, tmp_path):
    spied = tmp_path / "spied"
    with pytest.raises(ChildCrashed, match="its answer cannot be read"):
        list(worker.run("forge", forged=frame(ITEM, pickle.dumps(Spy(str(spied))))))
    assert not spied.exists()
    assert list(worker.run("again")) == ["AGAIN"]


@pytest.mark.parametrize(
    ("forged", "said"),
    [
        (frame(ITEM, b"[" * 200_000), "its answer cannot be read: RecursionError"),
        (frame(ITEM, b"", LARGEST + 1), "its answer has 536,870,913 bytes, allowed 536,870,912"),
        (frame(0, b""), "its answer cannot be read"),
    ],
)
def test_an_answer_that_is_none_is_a_crash(worker, forged, said):
    with pytest.raises(ChildCrashed, match=said):
        list(worker.run("forge", forged=forged))


def test_half_an_answer_is_waited_for_no_longer_than_a_whole_one():
    with Sandbox(obey, seconds=0.5) as worker, pytest.raises(ChildTimedOut):
        list(worker.run("forge", forged=frame(ITEM, b"", 1000)))


def test_what_a_child_prints_is_not_shown(capfd):
    with Sandbox(obey, seconds=20) as worker:
        list(worker.run("pid"))
        with pytest.raises(RuntimeError):
            list(worker.run("raise"))
        list(worker.run("noise"))
    assert capfd.readouterr() == ("", "")


def test_a_borrowed_child_is_kept_for_the_next_and_is_nobody_elses_meanwhile():
    with borrow_sandbox(obey, seconds=19) as one, borrow_sandbox(obey, seconds=19) as other:
        assert one is not other
        (pid,) = one.run("pid")
    with borrow_sandbox(obey, seconds=19) as again, borrow_sandbox(obey, seconds=19) as more:
        assert pid in {*again.run("pid"), *more.run("pid")}
    for sandbox in (one, other):
        sandbox.close()
