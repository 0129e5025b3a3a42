"""Runs a function of a test module in several processes, as torchrun starts the ranks of a training."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from typing import NoReturn

from tests.helpers.killing import SPAWN

DEAD = 9
"""Exit status of a rank that was told to drop dead."""

_meeting: list[Barrier] = []
"""In the process of a rank: where all ranks meet before they drop dead."""


def run_ranks(ranks: int, function: Callable[..., None], *arguments: object, status: int = 0) -> None:
    """Call `function` with the texts of `arguments` in each process; all have to end with `status`.

    The processes are forked from one that has imported torch and transformers, which takes most of a short training.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {**os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with tempfile.NamedTemporaryFile("w+") as said:
        meeting = SPAWN.Barrier(ranks)
        processes = [
            SPAWN.Process(
                target=_run_rank,
                args=(said.name, meeting, {**group, "RANK": str(rank)}, function, [*map(str, arguments)]),
            )
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        try:
            ended = wait_for_all(processes, status)
        finally:
            for process in processes:
                process.kill()
                process.join()
        said.seek(0)
        assert ended == [status] * ranks, said.read()


def die_together() -> NoReturn:
    """Drop dead when every rank has come here: the first one holds the store, which another may still read from."""
    _meeting[0].wait()
    os._exit(DEAD)


def _run_rank(
    said: str, meeting: Barrier, environment: dict[str, str], function: Callable[..., None], arguments: list[str]
) -> None:
    """One rank, with the environment of who asks, on one thread; what it prints as an error goes to a file."""
    import torch

    os.dup2(os.open(said, os.O_WRONLY | os.O_APPEND), 2)
    _meeting[:] = [meeting]
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    function(*arguments)


def wait_for_all(processes: list[BaseProcess], status: int) -> list[int | None]:
    """How they ended; those that still run when one ended otherwise than with `status` would wait for it in vain."""
    deadline = time.monotonic() + 600  # on a machine that does much else
    while time.monotonic() < deadline:
        ended = [process.exitcode for process in processes]
        if None not in ended or {*ended} - {None, status}:
            break
        time.sleep(0.05)
    return [process.exitcode for process in processes]
