"""What the steps of this process have worked off so far, for whoever shows progress. It is never written to a file.

Steps note work here and know nobody who listens. A worker sends its notes to the driver now and then
(engine/executor.py), where progress.py listens.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

Work = Mapping[str, int]
"""Kind of work -> how much: `rows` and `images` that a step has worked off, `pairs` that it has compared, the `bytes`
that it took or made for it, what `failed`, and what was `dropped`."""


class Meter:
    """Adds up notes, from any thread, and hands them over when `EVERY` seconds have passed."""

    EVERY = 0.5

    def __init__(self) -> None:
        self._lock, self._noted, self._told = threading.Lock(), Counter[str](), 0.0
        self._listener: Callable[[Work], None] | None = None
        self._waiter: Callable[[str], AbstractContextManager[None]] | None = None

    def note(self, work: Work) -> None:
        """Add work that is done."""
        listener = self._listener
        if listener is None:
            return
        with self._lock:
            self._noted.update(work)
            now = time.monotonic()
            if now - self._told < self.EVERY:
                return
            noted, self._noted, self._told = self._noted, Counter(), now
        listener(noted)

    def flush(self) -> None:
        """Hand over at once what is noted, if anything is."""
        with self._lock:
            noted, self._noted = self._noted, Counter()
        if noted and self._listener is not None:
            self._listener(noted)

    def wait(self, reason: str) -> AbstractContextManager[None]:
        """While it is open, this process waits for what is no work, such as "starting Ray"."""
        return nullcontext() if self._waiter is None else self._waiter(reason)

    @contextmanager
    def told_to(
        self, listener: Callable[[Work], None], waiter: Callable[[str], AbstractContextManager[None]] | None = None
    ) -> Iterator[None]:
        """Hand notes to `listener`, which may be called from any thread that notes, and waits to `waiter`."""
        before = self._listener, self._waiter
        self._listener, self._waiter = listener, waiter
        try:
            yield
        finally:
            self.flush()
            self._listener, self._waiter = before


METER = Meter()
"""Of this process."""


def note_work(
    *, rows: int = 0, images: int = 0, pairs: int = 0, size: int = 0, failed: int = 0, dropped: int = 0
) -> None:
    """Note work of a step as it goes, a row or an image at a time; `size` is in bytes. It takes about a microsecond."""
    METER.note({"rows": rows, "images": images, "pairs": pairs, "bytes": size, "failed": failed, "dropped": dropped})
