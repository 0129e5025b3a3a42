"""The nodes of a cluster: each is looked at before work begins, and is as this machine, or the build says what to do.

`node_probe.py` looks, in a process of each node. Here is what is asked for and what follows from the answers, without
Ray, which `ray_cluster.py` asks.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import vlmill
from vlmill.pipeline.core.arrow import keep_pandas_out
from vlmill.pipeline.core.errors import StoreError, VlmillError
from vlmill.pipeline.core.files import TEMPORARY
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.engine.node_probe import NodeFacts, NodeTask

CODE = ("pipeline", "mixtures", "train")
"""The packages below `vlmill` whose code decides bytes; a worker has to have the driver's."""

MODULES = ("vlmill.pipeline.engine.build", "vlmill.mixtures.build")
"""What workers import."""

EXTRAS = ("fetch", "signals", "s3", "words")
"""The optional packages that tasks of a build use. One that this machine has is wanted on every node."""

LEAST_FREE = 256 << 20
"""Bytes of a disk below which nothing is begun."""

GIB = 1 << 30


class RunMarker:
    """A file in the run's folder, by which a node knows that it sees the same one."""

    def __init__(self, root: Path | None, name: str = "", nonce: str = "") -> None:
        self.root, self.name, self.nonce = str(root) if root else "", name, nonce

    def check(self) -> None:
        """Make sure that this process sees it; once for each process, since it lies on shared storage.

        Raises:
            VlmillError: it does not.
        """
        if self.root:
            _check_marker_once(self.root, self.name, self.nonce)


@contextmanager
def write_marker(root: Path | None) -> Iterator[RunMarker]:
    """A marker that lies in the run's folder as long as the context lives; none where that cannot be written."""
    marker = RunMarker(root, f"{TEMPORARY}nodes-{uuid.uuid4().hex}", uuid.uuid4().hex)
    try:
        if root is not None:
            (root / marker.name).write_text(marker.nonce, encoding="utf-8")
    except (OSError, StoreError):  # a command that only reads may not write, or there is no such run
        root, marker = None, RunMarker(None)
    try:
        yield marker
    finally:
        if root is not None:
            (root / marker.name).unlink(missing_ok=True)


def check_marker(root: str, name: str, nonce: str) -> None:
    """Make sure that this process sees what the driver wrote into the run's folder.

    Raises:
        VlmillError: it does not.
    """
    path = RunPath(root) / name if "://" in root else Path(root) / name
    try:
        seen = path.read_text(encoding="utf-8")
    except StoreError as error:
        raise VlmillError(
            f"the storage of {root} cannot be asked ({error}); start Ray there with the AWS_* variables that this "
            "process has, or give the node a role"
        ) from None
    except OSError as error:
        raise VlmillError(
            f"the run's folder {root} is not there as this machine has it ({error.strerror or 'not found'}); mount it "
            "under the same path on every node, or build on object storage: --out s3://BUCKET/RUN"
        ) from None
    if seen != nonce:
        raise VlmillError(
            f"the run's folder {root} is another one there than on this machine; mount the same one on every node"
        )


_check_marker_once = cache(check_marker)


def plan_probe(marker: RunMarker) -> NodeTask:
    """What every node is asked."""
    return NodeTask(MODULES, list_packages(), f"{__name__}:hash_package", marker.root, marker.name, marker.nonce)


def list_packages() -> tuple[str, ...]:
    """The packages that vlmill's data side depends on and that are installed here; none where vlmill is not."""
    try:
        lines = metadata.requires("vlmill") or []
    except metadata.PackageNotFoundError:
        return ()
    wanted = [line for line in lines if "extra ==" not in line or any(f'"{name}"' in line for name in EXTRAS)]
    named = sorted({found.group() for line in wanted if (found := re.match(r"[A-Za-z0-9._-]+", line))} - {"vlmill"})
    return tuple(name for name in named if _is_installed(name))


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def explain_node(node: str, told: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a node, a line for each cause; none where nothing is.

    Args:
        node: Its address and name.
        told: What the probe found there.
        here: What it found on this machine.
    """
    found, own = NodeFacts(**told), NodeFacts(**here)
    if found.imports:
        yield f"{node}: {found.executable} cannot import vlmill ({found.imports}); install there what this machine has"
    elif found.code != own.code and found.code:
        yield f"{node}: its vlmill is not the driver's code; start Ray with the same version on every node"
    if differing := _list_differences(found, own):
        yield f"{node}: other packages than here: {differing}; install the same versions, and start Ray there again"
    if found.marker:
        yield f"{node}: {found.marker}"
    if found.unwritable:
        named = found.scratch or "for temporary files"
        yield f"{node}: its scratch {named} cannot be written ({found.unwritable}); {_MOVE}"
    elif found.free < LEAST_FREE:
        yield f"{node}: its scratch {found.scratch} has {found.free / GIB:.2f} GiB free, too little to begin; {_MOVE}"
    if found.free_in_run is not None and found.free_in_run < LEAST_FREE:
        yield f"{node}: the disk of the run's folder has {found.free_in_run / GIB:.2f} GiB free; make room there"


_MOVE = "make room, or start Ray there with TMPDIR on another disk"


def _list_differences(found: NodeFacts, own: NodeFacts) -> str:
    """Names with the versions there and here; empty where all are the same."""
    lines = [f"Python {found.python} (here {own.python})"] if found.python != own.python else []
    for name, version in own.versions.items():
        there = found.versions.get(name)
        if there != version:
            lines.append(f"{name} {there or 'missing'} (here {version})")
    return ", ".join(lines)


def raise_bad_nodes(faults: Sequence[str]) -> None:
    """Raise one error for all nodes that cannot work, before any work.

    Raises:
        StoreError: there are some.
    """
    if faults:
        raise StoreError(
            "the cluster cannot work on this run yet, and nothing was begun:",
            *(f"  node {line}" for line in faults),
        )


@dataclass(frozen=True)
class WorkerCheck:
    """What a process does before it works for a build: called there, since nodes may join later."""

    code: str  # hash_package of the driver
    versions: tuple[tuple[str, str], ...] = ()  # of its packages, where other machines may have others
    marker: RunMarker | None = None

    @classmethod
    def of_cluster(cls, marker: RunMarker) -> WorkerCheck:
        """What nodes of a cluster have to have: what this machine has."""
        versions = tuple((name, metadata.version(name)) for name in list_packages()) if marker.root else ()
        return cls(hash_package(), versions, marker)

    def __call__(self) -> None:
        """Keep pandas out; refuse to work without the driver's code and packages, or where the run is not seen.

        Raises:
            VlmillError: it has not.
        """
        keep_pandas_out()
        if hash_package() != self.code:
            raise VlmillError(
                f"a worker imports vlmill from {find_package()}, which is not the driver's code: start Ray with the "
                "same version on every node"
            )
        if other := find_other_versions(self.versions):
            raise VlmillError(f"node {os.uname().nodename}: other packages than the driver has: {other}")
        if self.marker is not None:
            try:
                self.marker.check()
            except VlmillError as error:
                raise VlmillError(f"node {os.uname().nodename}: {error}") from None


@cache
def find_other_versions(expected: tuple[tuple[str, str], ...]) -> str:
    """The packages that are here in other versions, with these; empty where there is none. Once for each process."""
    found = ((name, metadata.version(name) if _is_installed(name) else "missing") for name, _ in expected)
    wanted = dict(expected)
    return ", ".join(f"{name} {version} (there {wanted[name]})" for name, version in found if version != wanted[name])


def find_package() -> Path:
    """The folder of the package `vlmill`."""
    return Path(vlmill.__file__).parent


@cache
def hash_package() -> str:
    """sha256 over the names and contents of the Python files in CODE."""
    sha256 = hashlib.sha256()
    for name in CODE:
        folder = find_package() / name
        for path in sorted(folder.rglob("*.py")):
            sha256.update(f"{name}/{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return sha256.hexdigest()
