"""SIGTERM, with which schedulers end a command, does what Ctrl-C does: what is open is closed, and a status says it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STATUS = 128 + signal.SIGTERM
"""The exit status of a command that SIGTERM ended."""

_CAME = threading.Event()
"""Whether SIGTERM came: Ray raises an exception of its own in the place of ours."""


@contextmanager
def heed_sigterm() -> Iterator[None]:
    """Within, SIGTERM raises `KeyboardInterrupt` in the main thread. Processes that are forked within end at once."""
    own = os.getpid()

    def end(*_: Any) -> None:
        if os.getpid() != own:
            os._exit(STATUS)
        _CAME.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _CAME.clear()
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def keep_sigterm() -> Iterator[None]:
    """What handles SIGTERM before handles it behind again, where that is a function: libraries put their own there."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and callable(before):
            signal.signal(signal.SIGTERM, before)


def explain_interrupt() -> tuple[str, int]:
    """What ended a command that was interrupted, and its exit status."""
    return ("ended by SIGTERM", STATUS) if _CAME.is_set() else ("interrupted", 130)
