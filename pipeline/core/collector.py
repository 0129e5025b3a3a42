"""How often Python's garbage collector looks for reference cycles: rarely, while a run is built.

A driver holds some ten objects for each partition and step for as long as the build takes, and the collector goes
through all of them again whenever a quarter more has come: 40 % of the CPU time of a build with nothing to do over
15,000 partitions. What is in no cycle, as images and tables are, is freed at once as ever.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

RARELY = 100_000
"""Containers that come, beyond those that go, before new ones are looked through; Python's own is 700."""


@contextmanager
def collect_rarely() -> Iterator[None]:
    """Raise the threshold in this block; a program's own counts where it is higher, or 0 for never."""
    before = gc.get_threshold()
    gc.set_threshold(before[0] and max(before[0], RARELY), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
