"""The child process that downloads, as the process sees it that starts it: it is given one folder after another.

Part of fetch. To start one takes half a second of CPU, so this process keeps it for the next partition. It ends by
itself when it was given nothing for `IDLE_S` seconds, and with the process that started it.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IDLE_S = 10.0
"""Seconds without a folder after which the process ends by itself."""

CAME_TO_ITS_END = "came to its end"
"""What is said of a folder that the process is done with."""

STAYS, LEAVES = b"s", b"l"
"""What the process says of itself when it is done with a folder."""

MODULE = "vlmill.pipeline.fetch.child"

ENVIRONMENT = {
    "NO_ALBUMENTATIONS_UPDATE": "1",  # should a release of img2dataset import it where 1.47 does not
    "MALLOC_MMAP_THRESHOLD_": str(
        1 << 20
    ),  # bodies go back to the system when they are let go; see `process.compute_memory_limit`
    "RES_OPTIONS": "timeout:3 attempts:2",  # of the C library's name lookups, which no thread can interrupt
}


class DownloadProcess:
    """A process that downloads what folders ask for, one after the other (child.py says what they hold)."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def begin(self, folder: Path) -> None:
        """Give a folder to the process, which is started if there is none; what it prints goes to `log` in there."""
        if not self.is_alive():
            self.close()
            self._child = self._start(folder)
        assert self._child is not None
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # `wait` says that it has ended
            self._child.stdin.write(json.dumps(str(folder.absolute())).encode() + b"\n")
            self._child.stdin.flush()

    def wait(self, seconds: float) -> str | None:
        """How the folder came to its end, or the process; None where neither has within so many seconds."""
        assert self._child is not None
        assert self._child.stdout is not None
        if not wait([self._child.stdout.fileno()], seconds):
            return None
        if said := os.read(self._child.stdout.fileno(), 1):
            if said == LEAVES:
                self._child.wait()
            return CAME_TO_ITS_END
        return f"ended with status {self._child.wait()}"

    def is_alive(self) -> bool:
        """Whether there is a process."""
        return self._child is not None and self._child.poll() is None

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _start(self, folder: Path) -> subprocess.Popen[bytes]:
        # The packages of this process, in its order, and not what lies in the working directory (-P)
        command = [sys.executable, "-P", "-m", MODULE]
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own module
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=_make_environment()
            )


IDLE: dict[tuple[int, str, frozenset[tuple[str, str]]], list[DownloadProcess]] = {}
"""Processes that wait for their next borrower, by whose children they are, interpreter and environment."""


@contextmanager
def borrow_process() -> Iterator[DownloadProcess]:
    """A process that this one keeps from one partition to the next; nobody else has it meanwhile, in whatever thread.

    It has to be closed by a borrower who does not see a folder come to its end.
    """
    close_idle(only_ended=True)
    idle = IDLE.setdefault((os.getpid(), sys.executable, frozenset(_make_environment().items())), [])
    process = idle.pop() if idle else DownloadProcess()
    try:
        yield process
    finally:
        idle.append(process)


@atexit.register
def close_idle(*, only_ended: bool = False) -> None:
    """End the processes of this one that nobody has borrowed, or those alone that have ended by themselves."""
    for (owner, *_), idle in list(IDLE.items()):
        for process in [process for process in idle if owner == os.getpid()]:
            if not (only_ended and process.is_alive()):
                idle.remove(process)
                process.close()


def _make_environment() -> dict[str, str]:
    return {**ENVIRONMENT, **os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
