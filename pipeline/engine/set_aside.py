"""Items that take their process along: tried again, set aside, and named at the end. For executors with processes."""

from __future__ import annotations

from collections.abc import Sequence

from vlmill.pipeline.core.errors import LackOfMemoryError

TRIES = 3
"""How often an item may lose its process; the last time it runs when nothing else does."""

ADVICE = (
    "All other partitions are done and kept. Give it more memory, or bound the texts (sources.NAME.max_characters) or "
    "images (image_stats.max_pixels); or leave the sample out: name it under `ids:` in takedowns.yaml of the run's "
    "folder. Then run the same command again"
)
"""What to do about partitions of which a process dies even alone."""


class ItemRefused(Exception):  # noqa: N818 - not yet an error: it is done elsewhere
    """An item that came to a node which cannot work."""


class ItemLost(Exception):  # noqa: N818 - not yet an error: it is tried again
    """An item whose process died, or lacked memory; then the message has the place."""

    def __init__(self, message: str, *, is_placed: bool = False) -> None:
        super().__init__(message)
        self.is_placed = is_placed


class ItemQueue:
    """The numbers of items that wait, and of those that are set aside until no others are left."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.waiting = list(numbers)[::-1]
        self.aside = list[int]()
        self._losses = dict[int, int]()

    def lose(self, number: int) -> bool:
        """Put back an item whose process died or lacked memory; says whether that was the last time."""
        losses = self._losses[number] = self._losses.get(number, 0) + 1
        if losses < TRIES:
            (self.waiting if losses < TRIES - 1 else self.aside).append(number)
        return losses == TRIES


def raise_heavy(lost: Sequence[str]) -> None:
    """Raise one error for all items that could not be done for lack of memory, if there are any."""
    if lost:
        raise LackOfMemoryError(*lost, ADVICE)
