"""The Ray that a build works on: one of this machine, or a cluster of several nodes.

It is joined, each node is looked at before it gets work (ray_nodes.py), and the head is watched while the work goes on.
No module but executor.py and those whose names begin with `ray_` imports Ray.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import NO_SPACE, find_full_disk
from vlmill.pipeline.core.termination import keep_sigterm
from vlmill.pipeline.engine.nodes import RunMarker, find_package, write_marker
from vlmill.pipeline.engine.ray_nodes import NodeWatch

LOOPBACK = "127.0.0.1"

OF_ONE_MACHINE = {
    "prestart_worker_first_driver": False,
    "enable_worker_prestart": False,
    "idle_worker_killing_time_threshold_ms": 20_000,
}
"""Of Ray's own settings (ray_config_def.h), for the Ray that a build starts. It starts processes ahead of tasks, one
per core and one for each that waits, without our packages, so that none of our tasks can have them; and ends processes
that had nothing to do for a second, which the next phase starts again."""


@dataclass
class Cluster:
    """What a build knows of the Ray that it works on."""

    width: int  # CPUs when it was joined
    own_address: str = LOOPBACK  # of this machine, as nodes reach it
    marker: RunMarker = field(default_factory=lambda: RunMarker(None))
    watch: HeadWatch | None = None
    nodes: NodeWatch | None = None  # of several machines

    def choose_options(self, elsewhere_than: str = "") -> dict[str, Any]:
        """Options of Ray for whatever is started: on which nodes it may not run, one more among them."""
        return self.nodes.choose_options(elsewhere_than) if self.nodes else {}

    def count_cpus(self) -> int:
        """CPUs that there are for work now: nodes join and go. While none is left, as many as there were."""
        return (self.nodes and self.nodes.count_cpus()) or self.width

    def look_at_nodes(self) -> None:
        """Take note of nodes that have joined or gone, every few seconds, and of the head.

        Raises:
            StoreError: the head has gone.
        """
        self.check_head()
        if self.nodes:
            self.nodes.look()

    def wait_for_probes(self) -> None:
        """Wait until it is known of every node whether it can work."""
        if self.nodes:
            self.nodes.wait_for_probes()

    def is_unfit(self, error: Exception) -> bool:
        """Whether a task failed since its node joined and cannot work, and is to be done elsewhere."""
        return self.nodes is not None and self.nodes.is_unfit(error)

    def check_head(self) -> None:
        """Make sure that the cluster still has its head.

        Raises:
            StoreError: it has not.
        """
        if self.watch is not None:
            self.watch.check()


class HeadWatch:
    """Asks the head of a cluster every few seconds whether it is there.

    Ray itself waits a minute, then ends this process with a line of its own. So where the process has not looked long
    after the head has gone, since it waits in a call of Ray, it is ended here.
    """

    EVERY = 2.0
    """Seconds between two connections, and for each."""

    PATIENCE = 12.0
    """Seconds without one after which the head counts as gone."""

    LAST = 24.0
    """Seconds after which the process is ended."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._place, self._stop = (host, int(port)), threading.Event()
        self._address, self._since, self._is_lost = address, time.monotonic(), False
        self._thread = threading.Thread(target=self._watch_head, name="vlmill head", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """See Cluster.check_head."""
        if self._is_lost:
            self._stop.set()
            raise StoreError(self._explain())

    def close(self) -> None:
        """Watch no more."""
        self._stop.set()

    def _explain(self) -> str:
        return (
            f"the head of the Ray cluster at {self._address} has gone: nothing has answered there for "
            f"{self.PATIENCE:.0f} s. Start the cluster anew, and run the same command again: what is committed is "
            "kept. The run goes on without a cluster, too: leave out --ray"
        )

    def _watch_head(self) -> None:
        while not self._stop.wait(self.EVERY):
            try:
                socket.create_connection(self._place, self.EVERY).close()
                self._since = time.monotonic()
            except OSError:
                silent = time.monotonic() - self._since
                self._is_lost |= silent >= self.PATIENCE
                if silent >= self.LAST:
                    os.write(2, f"error: {self._explain()}\n".encode())
                    os._exit(1)


@contextmanager
def open_cluster(
    workers: int | None,
    address: str | None,
    variables: Mapping[str, str],
    *,
    gpus: bool = False,
    objects: int = 128 << 20,
    root: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Cluster]:
    """Ray on this machine with `workers` CPUs, or the cluster at an `address`.

    With our packages and no others. `objects` is the bytes that results on their way take on this machine. Each node
    of a cluster has to see `root`, the run's folder; `tell` gets a line on each that joins later and cannot work.

    Raises:
        StoreError: there is no such cluster, or nodes of it are not as this machine.
    """
    import ray  # noqa: PLC0415 - a build with --workers 0 does without

    with tempfile.TemporaryDirectory(prefix="vlmill-empty-") as empty, ExitStack() as stack:
        # Workers put the driver's working directory ahead of site-packages: an empty one, and our package by name
        environment = {
            "working_dir": empty,
            "py_modules": [str(find_package())],
            "excludes": ["recipes/quickstart"],  # data that no worker reads
            "env_vars": dict(variables),
        }
        options: dict[str, Any] = {"runtime_env": environment, "log_to_driver": False, "logging_level": "ERROR"}
        if address is None:
            options |= {
                "address": "local",  # whatever other Ray there is on this machine
                "num_cpus": workers or os.cpu_count() or 1,
                "include_dashboard": False,
                "_system_config": OF_ONE_MACHINE,
                "object_store_memory": objects,
                **({} if gpus else {"num_gpus": 0}),
            }
        else:
            options |= {"address": address}
        _join_ray(address, options)
        stack.callback(ray.shutdown)
        cluster = Cluster(int(ray.cluster_resources().get("CPU", 1)))
        if address is not None:
            cluster.own_address = ray.util.get_node_ip_address()
            if not ray.util.client.ray.is_connected():
                cluster.watch = HeadWatch(ray.get_runtime_context().gcs_address)
                stack.callback(cluster.watch.close)
            cluster.marker = stack.enter_context(write_marker(root))
            cluster.nodes = NodeWatch(cluster.marker, tell or (lambda _: None))
            cluster.nodes.probe_all(cluster.check_head)
        yield cluster


def _list_own_places() -> list[Path]:
    """Where the Ray of this machine writes: its logs and sockets, and what results take that do not fit in memory."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    return [Path(folder) / "ray", Path("/dev/shm")]  # noqa: S108 - Ray's own places, to be looked at


def _join_ray(address: str | None, options: Mapping[str, Any]) -> None:
    """Connect this process to Ray.

    Raises:
        StoreError: there is no cluster at `address`, or it is another Ray; or a disk that it needs is full.
    """
    import ray  # noqa: PLC0415

    try:
        with keep_sigterm():
            ray.init(**options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        if address is None:
            if full := find_full_disk(_list_own_places()):
                raise StoreError(
                    f"{full}: Ray, which starts the workers, cannot write there: {NO_SPACE}; make room, name another "
                    "folder with TMPDIR, or build in one process with --workers 0"
                ) from error
            raise
        said = str(error).strip().partition("\n")[0]
        raise StoreError(
            f"--ray {address}: there is no cluster that this process can join ({said}). Start one with `ray start "
            "--head`, and join it from each other machine with `ray start --address HEAD:6379`; docs/cluster.md says "
            "more"
        ) from error
