"""The nodes of a cluster that a build gives work to: each is looked at, also one that joins while it works.

Before any work all are looked at, and one that cannot work ends the build (nodes.py says why). One that joins later may
be given work at once. If it cannot work, that fails there (`WorkerCheck`), is done elsewhere, and the node is left out
from then on, with a line.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vlmill.pipeline.core.shown import describe_more
from vlmill.pipeline.engine import node_probe
from vlmill.pipeline.engine.nodes import RunMarker, explain_node, plan_probe, raise_bad_nodes

PROBE_S = 120.0
"""Seconds that a node may take to answer the probe; a first process on it takes about five."""

EVERY = 5.0
"""Seconds between two looks at which nodes there are."""

PLACE = re.compile(r"\bip=([0-9a-fA-F.:]+)")
"""In Ray's text of an error that a task raised: the address of its node."""

LABEL = "ray.io/node-id"
"""Ray's own label of each node."""


@dataclass(frozen=True)
class _Node:
    """A node, as Ray knows it."""

    address: str
    host: str
    cpus: float

    def __str__(self) -> str:
        return f"{self.address} ({self.host})"


@dataclass(frozen=True)
class _Probe:
    """A node that is being looked at."""

    node: _Node
    reference: Any
    until: float  # when it has to have answered


class NodeWatch:
    """Which nodes of the cluster that Ray is connected to are fit for work, and which are there.

    Args:
        marker: By which they know that they see the run's folder.
        tell: Receives a line for each node that is left out.
    """

    def __init__(self, marker: RunMarker, tell: Callable[[str], None]) -> None:
        self._tell, self._task = tell, plan_probe(marker)
        self._here = node_probe.look_around(self._task)
        self._fit, self._unfit, self._alive = dict[str, _Node](), dict[str, _Node](), frozenset[str]()
        self._asked, self._looked = dict[str, _Probe](), 0.0

    def probe_all(self, check_head: Callable[[], None]) -> None:
        """Look at all nodes at once, before work is given to any.

        Raises:
            StoreError: some cannot work; a line for each cause names the node and what to do. Or the head has gone.
        """
        faults = list[str]()
        self._ask_new_nodes()
        while self._asked:
            check_head()
            faults += [line for lines in self._take_answers(1.0) for line in lines]
        raise_bad_nodes(sorted(faults))

    def look(self) -> None:
        """Take note of nodes that have joined or gone, unless the last look is less than `EVERY` seconds ago.

        A node that joined and cannot work is told in a line.
        """
        if time.monotonic() - self._looked >= EVERY:
            self._look_now(0.0)

    def wait_for_probes(self) -> None:
        """Wait until all nodes that are there have been looked at."""
        self._look_now(0.0)
        while self._asked:
            self._look_now(1.0)

    def is_unfit(self, error: Exception) -> bool:
        """Whether a task failed since its node joined and cannot work. Waits for what that node's own look comes to."""
        addresses = {*PLACE.findall(str(error))}  # Ray keeps the place of an error as text alone
        if addresses <= {node.address for node in self._fit.values()}:
            return False
        self.wait_for_probes()
        return bool(addresses & {node.address for node in self._unfit.values()})

    def count_cpus(self) -> int:
        """The CPUs of all nodes that are fit and there."""
        return int(sum(node.cpus for number, node in self._fit.items() if number in self._alive))

    def choose_options(self, elsewhere_than: str = "") -> dict[str, Any]:
        """Options of Ray that place a task or an actor on no node that is known to be unfit, nor on another one."""
        left_out = sorted({*(self._unfit.keys() & self._alive), elsewhere_than} - {""})
        return {"label_selector": {LABEL: f"!in({','.join(left_out)})"}} if left_out else {}  # no space: part of a name

    def _look_now(self, patience: float) -> None:
        self._ask_new_nodes()
        for lines in self._take_answers(patience):
            if lines:
                more = describe_more(len(lines) - 1, "reason")
                self._tell(f"a node joined the cluster and is given no work: {lines[0]}{more}")

    def _ask_new_nodes(self) -> None:
        """Start a process of each node that was not seen before, which looks around there."""
        import ray  # noqa: PLC0415 - a build with --workers 0 does without

        self._looked = time.monotonic()
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        self._alive = frozenset(alive)
        new = alive.keys() - self._fit.keys() - self._unfit.keys() - self._asked.keys()
        if not new:
            return
        there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        ray.cloudpickle.register_pickle_by_value(node_probe)  # a node may lack vlmill
        try:
            look = ray.remote(num_cpus=0, max_retries=1)(node_probe.look_around)
            for number in sorted(new):
                told = alive[number]
                cpus = told["Resources"].get("CPU", 0.0)
                node = _Node(told["NodeManagerAddress"], told["NodeManagerHostname"], cpus)
                reference = look.options(scheduling_strategy=there(number, soft=False)).remote(self._task)
                self._asked[number] = _Probe(node, reference, self._looked + PROBE_S)
        finally:
            ray.cloudpickle.unregister_pickle_by_value(node_probe)

    def _take_answers(self, patience: float) -> Iterator[list[str]]:
        """What is wrong with each node that has answered by now, or has not for too long; it is fit where nothing is.

        Args:
            patience: Seconds to wait for a first answer.
        """
        import ray  # noqa: PLC0415

        if not self._asked:
            return
        references = [probe.reference for probe in self._asked.values()]
        ready, _ = ray.wait(references, num_returns=len(references), timeout=patience)
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        for number, probe in list(self._asked.items()):
            if number not in alive:  # it has left meanwhile, and nobody knows
                self._unfit[number] = self._asked.pop(number).node
            elif probe.reference in ready or time.monotonic() >= probe.until:
                del self._asked[number]
                lines = list(self._explain(probe, is_ready=probe.reference in ready))
                (self._unfit if lines else self._fit)[number] = probe.node
                yield lines

    def _explain(self, probe: _Probe, *, is_ready: bool) -> Iterator[str]:
        import ray  # noqa: PLC0415

        if not is_ready:
            yield f"{probe.node}: no process of it has answered within {PROBE_S:.0f} s; look at Ray's logs there"
            return
        try:
            yield from explain_node(str(probe.node), ray.get(probe.reference), self._here)
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()
            yield f"{probe.node}: no process of it works ({type(error).__name__}: {said[-1] if said else ''})"
