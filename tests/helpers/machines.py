"""Machines of a cluster on this one: each with an address, processes, a scratch and shared memory of its own.

A machine is a set of Linux namespaces, held by its first process: when that is killed, all of its processes are, as if
the power had gone. Machines reach each other over a bridge in a namespace of its own, and nothing else. What lies in
/tmp is not theirs, except the folder that they share.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

NETWORK = "10.77.0"

PACKAGES = sysconfig.get_path("purelib")

MOUNTS = """
set -eu
hostname "$NAME"
mount --bind "$SHARED" /mnt
mount -t tmpfs -o size=2g tmpfs /tmp
mount -t tmpfs -o size=1g tmpfs /dev/shm
if [ "$SEES" = 1 ]; then mkdir -p "$SHARED"; mount --move /mnt "$SHARED"; else umount /mnt; fi
mkdir /tmp/scratch
"""
"""What a machine mounts in a new mount namespace. It is Linux's own /mnt that is mounted over, in there alone."""

OVERLAY = f"""
mkdir -p /tmp/layers/upper /tmp/layers/work
mount -t overlay -o lowerdir={PACKAGES},upperdir=/tmp/layers/upper,workdir=/tmp/layers/work overlay {PACKAGES}
"""
"""A shell's lines after which a machine may change what is installed, for itself alone."""

HOLD = "echo ready; sleep infinity & wait"
"""The first process of a machine, which reaps what others leave."""

UNSHARE = ("unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child")


@cache
def explain_lack() -> str:
    """Why machines cannot be made here; empty where they can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    trial = "ip link add v0 type veth peer name v1 && mount -t tmpfs tmpfs /tmp"
    try:
        done = subprocess.run(
            [*UNSHARE, "sh", "-ec", f"{trial}\n{OVERLAY}"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        return f"{error.filename} is not installed (Debian's packages util-linux and iproute2)"
    return f"namespaces are not allowed here: {done.stderr.strip()}" if done.returncode else ""


@dataclass
class Machine:
    """A machine that runs until it is killed."""

    name: str
    address: str
    process: subprocess.Popen[str]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """Its first process, as this machine numbers it."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(path.read_text().split()[0])

    def start(self, *command: object, **options: object) -> subprocess.Popen[str]:
        """Start a command on it."""
        entered = ["nsenter", f"--target={self.first}", "--net", "--mount", "--uts", "--pid", "--wd=/tmp"]
        environment = {**os.environ, "TMPDIR": "/tmp/scratch", **self.environment}
        return subprocess.Popen([*entered, "--", *map(str, command)], text=True, env=environment, **options)

    def run(self, *command: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command on it to its end."""
        process = self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def kill(self) -> None:
        """End all of its processes at once."""
        self.process.kill()
        self.process.wait()


class Network:
    """Machines, and the bridge between them."""

    def __init__(self, shared: Path) -> None:
        self.shared, self.machines = shared, list[Machine]()
        self._switch = self._hold("switch", "", {})
        _enter(self._switch, "ip link add bridge type bridge && ip link set bridge up")

    def add_machine(self, name: str, more: str = "", *, sees_shared: bool = True, **environment: str) -> Machine:
        """Another machine; `more` is a shell's lines that are run in it first, such as mounts."""
        number = len(self.machines) + 2
        known = {"NAME": name, "SHARED": str(self.shared), "SEES": str(int(sees_shared))}
        machine = self._hold(name, MOUNTS + more, known)
        machine.address = f"{NETWORK}.{number}"
        machine.environment = environment
        link = ["ip", "link", "add", f"m{number}", "netns", str(self._switch.first), "type", "veth"]
        subprocess.run([*link, "peer", "name", "eth0", "netns", str(machine.first)], check=True)
        _enter(self._switch, f"ip link set m{number} master bridge up")
        _enter(machine, f"ip addr add {machine.address}/24 dev eth0 && ip link set eth0 up && ip link set lo up")
        self.machines.append(machine)
        return machine

    def close(self) -> None:
        """End all machines."""
        for machine in (*self.machines, self._switch):
            machine.kill()

    def _hold(self, name: str, script: str, variables: dict[str, str]) -> Machine:
        process = subprocess.Popen(
            [*UNSHARE, "bash", "-c", f"{script}\n{HOLD}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables},
        )
        said = process.stdout.readline()
        assert said == "ready\n", f"{name} did not start: {said}"
        return Machine(name, "", process)


def _enter(machine: Machine, script: str) -> None:
    subprocess.run(["nsenter", f"--target={machine.first}", "--net", "sh", "-ec", script], check=True)


@contextmanager
def open_network(shared: Path) -> Iterator[Network]:
    """A network without machines yet, which ends with the context."""
    network = Network(shared)
    try:
        yield network
    finally:
        network.close()


RAY = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}

QUICK = {
    "RAY_health_check_initial_delay_ms": "3000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}
"""Ray's head misses a machine after about ten seconds, in place of half a minute."""


def start_ray(machine: Machine, head: Machine, cpus: int) -> None:
    """Start Ray on a machine, as part of the cluster of `head`, and wait until it is there."""
    place = ["--head", "--port=6379", "--include-dashboard=false"] if machine is head else []
    place += [] if machine is head else [f"--address={head.address}:6379"]
    sizes = [
        f"--num-cpus={cpus}",
        "--object-store-memory=100000000",
        "--memory=4000000000",
        "--include-log-monitor=false",
    ]
    command = [Path(sys.executable).with_name("ray"), "start", f"--node-ip-address={machine.address}"]
    done = machine.run(*command, *place, *sizes)
    assert done.returncode == 0, done.stdout + done.stderr


def find_processes(machine: Machine, name: str) -> list[int]:
    """The processes of a machine whose command lines have a word, by their numbers on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            inside = (path / "ns/pid").readlink() == Path(f"/proc/{machine.first}/ns/pid").readlink()
            if inside and name in (path / "cmdline").read_text().split("\0")[0]:
                found.append(int(path.name))
        except OSError:
            continue
    return found
