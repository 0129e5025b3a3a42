"""Where the builds of `python -m benchmarks.kills` run, and what of them can be killed there.

A place is this machine, whose builds start two workers, or a cluster of machines in namespaces of their own
(tests/helpers/machines.py). Its storage is a folder or an S3 server (moto) behind a proxy that makes faults. Whatever a
place starts ends with it.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from tests.helpers.machines import QUICK, RAY, Machine, Network, find_processes, open_network, start_ray
from tests.helpers.object_storage import (
    SERVER,
    Proxy,
    cut,
    cut_short,
    make_bucket,
    name_environment,
    refuse,
    serve_objects,
)

OBSERVER = """
import hashlib, os, sys
from pathlib import Path
from vlmill.pipeline.core.run_path import RunPath

def list_names(root):
    if isinstance(root, RunPath):
        return [path.name for path in root.glob("**/*")]
    return [name for _, _, names in os.walk(root) for name in names]  # folders may go meanwhile

for line in sys.stdin:
    what, place = line.split()
    root = RunPath(place) if "://" in place else Path(place)
    if what == "receipts":
        print(sum(name.endswith(".receipt.json") for name in list_names(root)), flush=True)
        continue
    sha256 = hashlib.sha256()
    for part in ("shards", "mixtures"):
        for path in sorted(path for path in (root / part).rglob("*") if path.is_file()):
            sha256.update(f"{path.relative_to(root)}\\0{hashlib.sha256(path.read_bytes()).hexdigest()}\\n".encode())
    print(sha256.hexdigest(), flush=True)
"""
"""Answers `receipts ROOT` with their number, and `product ROOT` with a sha256 over shards/ and mixtures/."""

PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}

SET_CHILD_SUBREAPER = 36  # of prctl(2)


class Place(Protocol):
    """What a campaign needs of where its builds run."""

    name: str
    options: tuple[str, ...]  # of the build

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command there."""
        ...

    def start_observer(self) -> subprocess.Popen[str]:
        """Start OBSERVER there, on a way to the storage that has no faults."""
        ...

    def find_driver(self, process: subprocess.Popen[str]) -> int | None:
        """The process of a started command itself, as this machine numbers it; None where it has ended."""
        ...

    def find_workers(self, process: subprocess.Popen[str]) -> list[int]:
        """Processes that do the tasks of a build."""
        ...

    def kill_node(self, chance: random.Random) -> None:
        """Kill a machine that works, and have another one join."""
        ...

    def stop_storage(self, chance: random.Random) -> str:
        """Have the storage server fail for some seconds or requests; says how."""
        ...


class Here:
    """This machine: a build starts Ray with two workers. `storage` is the server's process and port, and the proxy."""

    name, options = "2 workers", ("--workers", "2")

    def __init__(self, variables: dict[str, str], storage: tuple[int, int, Proxy] | None) -> None:
        self._variables, self._storage = {**os.environ, **variables}, storage

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """See Place."""
        return subprocess.Popen(command, text=True, env=self._variables, start_new_session=True, **options)

    def start_observer(self) -> subprocess.Popen[str]:
        """See Place."""
        direct = name_environment(self._storage[1]) if self._storage else {}
        command = sys.executable, "-c", OBSERVER
        return subprocess.Popen(command, text=True, env={**self._variables, **direct}, **PIPES)

    def find_driver(self, process: subprocess.Popen[str]) -> int | None:
        """See Place."""
        return process.pid if process.poll() is None else None

    def find_workers(self, process: subprocess.Popen[str]) -> list[int]:
        """See Place."""
        return [number for number in list_descendants(process.pid) if is_worker(number)]

    def kill_node(self, chance: random.Random) -> None:
        """See Place. There is none."""
        raise NotImplementedError

    def stop_storage(self, chance: random.Random) -> str:
        """See Place."""
        assert self._storage
        server, _, proxy = self._storage
        faults = {
            "cut after the work": cut,
            "cut in the body": cut_short,
            "503 SlowDown": refuse(503, "SlowDown"),
            "500 InternalError": refuse(500, "InternalError"),
        }
        if chance.random() < 0.4:
            return stop_process(server, chance)
        name, times = chance.choice(list(faults)), chance.randint(1, 8)
        proxy.make_faults(faults[name], times)
        return f"{times} requests {name}"


class Cluster:
    """Machines with a CPU each and a head without, all seeing one folder; the server is a process of the head."""

    name, options = "cluster", ("--ray", "auto")

    def __init__(self, network: Network, *, serves: bool) -> None:
        self._network, self._server = network, None
        self.head = network.add_machine("head", **RAY, **QUICK)
        if serves:
            command = sys.executable, "-c", SERVER, self.head.address
            server = self.head.start(*command, **PIPES)
            assert server.stdout
            self.head.environment |= name_environment(int(server.stdout.readline()), self.head.address)
            self._server = find_inner(server)
        start_ray(self.head, self.head, 0)
        self._nodes = [self._add_node(), self._add_node()]

    def _add_node(self) -> Machine:
        number = len(self._network.machines)
        machine = self._network.add_machine(f"node{number}", **self.head.environment)
        start_ray(machine, self.head, 1)
        return machine

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """See Place."""
        return self.head.start(*command, start_new_session=True, **options)

    def start_observer(self) -> subprocess.Popen[str]:
        """See Place."""
        return self.head.start(sys.executable, "-c", OBSERVER, **PIPES)

    def find_driver(self, process: subprocess.Popen[str]) -> int | None:
        """See Place."""
        return find_inner(process) if process.poll() is None else None

    def find_workers(self, process: subprocess.Popen[str]) -> list[int]:
        """See Place."""
        del process  # the cluster has one build at a time
        return [number for node in self._nodes for number in find_processes(node, "ray::") if is_worker(number)]

    def kill_node(self, chance: random.Random) -> None:
        """See Place."""
        machine = self._nodes.pop(chance.randrange(len(self._nodes)))
        machine.kill()
        self._nodes.append(self._add_node())

    def stop_storage(self, chance: random.Random) -> str:
        """See Place."""
        assert self._server
        return stop_process(self._server, chance)


def stop_process(number: int, chance: random.Random) -> str:
    """Stop a process for some seconds, up to 20, and let it go on."""
    seconds = chance.choice((1, 3, 6, 12, 20))
    os.kill(number, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(number, signal.SIGCONT)
    return f"stopped for {seconds} s"


def is_worker(number: int) -> bool:
    """Whether a process is Ray's for tasks, at work or idle, or the actor that takes notes: no service of a node."""
    with suppress(OSError):
        name = Path(f"/proc/{number}/cmdline").read_bytes().partition(b"\0")[0]
        return name.startswith(b"ray::") and not name.endswith(b"Agent")
    return False


def find_inner(process: subprocess.Popen[str]) -> int | None:
    """The process that a command which enters a machine has there, as this machine numbers it."""
    with suppress(OSError):
        numbers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return int(numbers[0]) if numbers else None
    return None


def list_descendants(number: int) -> list[int]:
    """The processes below one, those nearest first."""
    children = dict[int, list[int]]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = list(children.get(number, []))
    for one in found:
        found += children.get(one, [])
    return found


@contextmanager
def open_place(storage: str, on: str, folder: Path) -> Iterator[tuple[Place, str]]:
    """A place, and where its runs lie: a folder that is there, or an address. Everything ends with the context."""
    folder.mkdir()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(end_descendants)
        if on == Cluster.name:
            network = stack.enter_context(open_network(folder))
            cluster = Cluster(network, serves=storage == "s3")
            if storage == "s3":
                bucket = f"{cluster.head.environment['AWS_ENDPOINT_URL']}/bucket"
                script = (
                    "import sys, urllib.request as web; web.urlopen(web.Request(sys.argv[1], method='PUT')).close()"
                )
                assert cluster.head.run(sys.executable, "-c", script, bucket).returncode == 0
            yield cluster, "s3://bucket" if storage == "s3" else str(folder)
            return
        scratch = folder / "t"
        scratch.mkdir()
        served: tuple[int, int, Proxy] | None = None
        variables, address = {"TMPDIR": str(scratch), **RAY}, str(folder)
        if storage == "s3":
            port = stack.enter_context(serve_objects())
            (server,) = (number for number in list_descendants(os.getpid()) if _listens_for_objects(number))
            proxy = Proxy(port)
            variables |= name_environment(stack.enter_context(proxy.serve()))
            served, address = (server, port, proxy), f"s3://{make_bucket(port)}"
        yield Here(variables, served), address


def _listens_for_objects(number: int) -> bool:
    with suppress(OSError):
        return SERVER.encode() in Path(f"/proc/{number}/cmdline").read_bytes()
    return False


def adopt_orphans() -> None:
    """Have what a killed driver leaves become children of this process, so that it can be found and ended."""
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants() -> None:
    """End everything that was started and is left."""
    end = time.monotonic() + 20
    while (left := list_descendants(os.getpid())) and time.monotonic() < end:
        for number in left:
            with suppress(OSError):
                os.kill(number, signal.SIGKILL)
        reap_orphans()
        time.sleep(0.1)


def reap_orphans() -> None:
    """Take leave of children that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
