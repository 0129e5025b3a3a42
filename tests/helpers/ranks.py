"""Runs a function of a test module in several processes, as torchrun starts the ranks of a training."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

DEAD = 9
"""Exit status of a rank that was told to drop dead."""


def run_ranks(ranks: int, function: Callable[..., None], *arguments: object, status: int = 0) -> None:
    """Call `function` with the texts of `arguments` in each process; all have to end with `status`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {**os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    name = function.__name__
    code = f"import sys; from {function.__module__} import {name}; {name}(*sys.argv[1:])"
    with tempfile.TemporaryFile("w+") as said:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, *map(str, arguments)],
                env={**group, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
                cwd=Path(__file__).parents[2],
                stderr=said,
            )
            for rank in range(ranks)
        ]
        try:
            ended = wait_for_all(processes, status)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        said.seek(0)
        assert ended == [status] * ranks, said.read()


def wait_for_all(processes: list[subprocess.Popen[bytes]], status: int) -> list[int | None]:
    """How they ended; those that still run when one ended otherwise than with `status` would wait for it in vain."""
    deadline = time.monotonic() + 600  # on a machine that does much else
    while time.monotonic() < deadline:
        ended = [process.poll() for process in processes]
        if None not in ended or {*ended} - {None, status}:
            break
        time.sleep(0.05)
    return [process.poll() for process in processes]
