"""Looks at a node of a cluster, in a process there, before work is given to it.

`nodes.py` sends this module by value and reads what it found: so it imports nothing but Python's own library, and says
what is missing in place of failing as soon as it is loaded. Workers look once more when they begin (`check_marker`),
since nodes may join later.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any


@dataclass(frozen=True)
class NodeTask:
    """What to look for."""

    modules: Sequence[str]  # that a worker imports
    packages: Sequence[str]  # of which the versions are wanted
    code: str  # `module:function` that gives the digest of vlmill's code
    root: str  # the run's folder; empty where there is none
    marker: str  # a file in it, below it
    nonce: str  # what the marker holds


@dataclass
class NodeFacts:
    """What was found; errors are empty where there is none."""

    python: str = ""
    executable: str = ""
    versions: dict[str, str | None] = field(default_factory=dict)
    imports: str = ""  # why a module cannot be imported
    code: str = ""
    marker: str = ""  # why the run's folder is not seen
    scratch: str = ""
    free: int = 0  # bytes of the scratch
    unwritable: str = ""  # why the scratch cannot be written
    free_in_run: int | None = None  # bytes; None on object storage


def look_around(task: NodeTask) -> dict[str, Any]:
    """What is found on this node, as plain values, since the caller's classes may not be there. Raises nothing."""
    found = NodeFacts(platform.python_version(), sys.executable)
    found.versions = {name: _find_version(name) for name in task.packages}
    try:
        for name in task.modules:
            importlib.import_module(name)
        module, _, function = task.code.partition(":")
        found.code = getattr(importlib.import_module(module), function)()
    except Exception as error:  # noqa: BLE001 - a damaged package raises anything
        found.imports = f"{type(error).__name__}: {error}"
    try:
        if task.root:
            importlib.import_module("vlmill.pipeline.engine.nodes").check_marker(task.root, task.marker, task.nonce)
    except ImportError:
        pass  # it was said
    except Exception as error:  # noqa: BLE001 - it is told to a person, whatever it is
        found.marker = str(error).strip() or type(error).__name__
    _look_at_disks(found, task.root)
    return dict(vars(found))


def _look_at_disks(found: NodeFacts, root: str) -> None:
    try:
        found.scratch = tempfile.gettempdir()
        found.free = shutil.disk_usage(found.scratch).free
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"1")
    except OSError as error:
        found.unwritable = error.strerror or str(error)
    if "://" not in root and root and os.path.isdir(root):  # noqa: PTH112 - a name of the driver's
        found.free_in_run = shutil.disk_usage(root).free


def _find_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
