"""Runs a function in a process that dies at its n-th commit point, as if the power had gone.

Such processes, and ranks of trainings (ranks.py), are forked from one that has imported what they need.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

from vlmill.pipeline.core.object_store import ObjectStore

KILLED = 9
POINTS = ("fsync", "replace", "link", "rename")
"""Every way in which the store changes what a later reader can see in a folder, or makes it last."""

REQUESTS = ("write", "create", "delete")
"""The same on object storage."""

SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(
    [
        *(
            "vlmill.pipeline.cli",
            "vlmill.api.builds",
            "vlmill.mixtures.report.card",
            "vlmill.pipeline.engine.build",
            "vlmill.pipeline.core.progress",
            "vlmill.mixtures.build",
            "vlmill.train.settings",
            "pytest",
            "webdataset",
            "tests.helpers.small",
            "tests.helpers.object_storage",
        ),
        *("polars", "pandas", "fasttext", "numpy.random", "PIL.features"),  # slow to import, for each victim anew
        *(
            "vlmill.train.run",
            "torch.distributed.fsdp",
            "tests.helpers.stages",
            "tests.helpers.processors",
        ),  # for ranks
    ]
)


def _victim(point: int, environment: dict[str, str], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    left = [point]

    def deadly(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if left[0] == 0:
                os._exit(KILLED)  # no finally, no atexit: what a kill leaves
            left[0] -= 1
            return original(*args, **kwargs)

        return call

    for name in POINTS:
        setattr(os, name, deadly(getattr(os, name)))
    for name in REQUESTS:
        setattr(ObjectStore, name, deadly(getattr(ObjectStore, name)))
    function(*args)


def killed_at(point: int, function: Callable[..., Any], *args: Any) -> bool:
    """Run `function(*args)`; it is killed before its commit point number `point`. Says whether it came that far."""
    reached = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    process = SPAWN.Process(target=_victim, args=(point, reached, function, args))
    process.start()
    process.join()
    assert process.exitcode in (0, KILLED), f"the victim ended with {process.exitcode}"
    return process.exitcode == KILLED
