"""What this process is working on, so that a death or a lack of memory can be laid to a sample. It is never written.

The store says which task begins, and who reads rows one by one says which one comes next. Nothing is made of it unless
something goes wrong. The executor listens where a process died of the same items before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class AtWork:
    """A task and a place in it, such as the id of a sample. One task at a time is at work in a process."""

    def __init__(self) -> None:
        self._task, self._place = "", object()
        self._nowhere = self._place
        self._listener: Callable[[str], object] | None = None

    def __str__(self) -> str:
        return self._task if self._place is self._nowhere else f"{self._task}, at {self._place}"

    def begin(self, task: str) -> None:
        """A task begins, at no place yet."""
        self._task, self._place = task, self._nowhere
        self._tell()

    def note(self, place: object) -> None:
        """The task comes to a place, which is made a text of where somebody asks. Takes a tenth of a microsecond."""
        self._place = place
        self._tell()

    @contextmanager
    def told_to(self, listener: Callable[[str], object] | None) -> Iterator[None]:
        """Hand every place to `listener`, if there is one, before it is worked on."""
        before, self._listener = self._listener, listener
        try:
            yield
        finally:
            self._listener = before

    def _tell(self) -> None:
        if self._listener is not None:
            self._listener(str(self))


AT_WORK = AtWork()
"""Of this process."""
