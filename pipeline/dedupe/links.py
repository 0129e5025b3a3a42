"""Connected components of more links than one task holds in memory: the rounds of stars.py, over files of numbers.

For a step that is one task. A table is cut into ranges of its first number, and a range is read a few rows at a time,
so memory grows neither with the links nor with those of one node, such as a logo that every page shows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

HELD = 1 << 17
"""Rows of a table that are held at a time, 16 bytes each; with all that is done to them, about 50 MB."""


class NumberTable:
    """Rows of two 64-bit numbers in files, one for each range of the first, or in memory while they are few."""

    def __init__(self, folder: Path, ranges: int = 1, held: int = HELD) -> None:
        self.folder, self.ranges, self.held = folder, ranges, held
        self.rows = 0
        self._waiting: list[np.ndarray] = []
        self._waiting_rows = 0
        self._written: set[int] = set()  # ranges of which there is a file

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Add rows, in any order."""
        self._waiting.append(np.stack([first.astype(np.uint64), second.astype(np.uint64)]))
        self._waiting_rows += first.size
        self.rows += first.size
        if self._waiting_rows > self.held:
            self._write_waiting()

    def add_turned(self, first: np.ndarray, second: np.ndarray) -> None:
        """Add rows in both directions."""
        self.add(np.concatenate([first, second]), np.concatenate([second, first]))

    def make_like(self) -> NumberTable:
        """A table without rows, of the same ranges."""
        return NumberTable(self.folder, self.ranges, self.held)

    def cut(self, ranges: int, *, turned: bool = False) -> NumberTable:
        """The same rows in so many ranges, or in both directions. Those of this table are used up."""
        after = NumberTable(self.folder, ranges, self.held)
        for number in range(self.ranges):
            for first, second in self.read(number):
                (after.add_turned if turned else after.add)(first, second)
            self.remove(number)
        return after

    def read(self, number: int) -> Iterator[np.ndarray]:
        """The rows of a range in parts, each as (2, n). No rows may be added after the first is read."""
        if self.ranges > 1:
            self._write_waiting()
        if number in self._written:
            with (self._place / str(number)).open("rb") as file:
                while (part := np.fromfile(file, np.uint64, 2 * self.held)).size:
                    yield part.reshape(-1, 2).T
        if self._waiting:
            yield np.concatenate(self._waiting, axis=1)

    def remove(self, number: int) -> None:
        """Forget the rows of a range."""
        if number in self._written:
            (self._place / str(number)).unlink()
            self._written.remove(number)
        if self.ranges == 1:
            self._waiting, self._waiting_rows = [], 0

    @cached_property
    def _place(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))

    def _write_waiting(self) -> None:
        if not self._waiting_rows:
            return
        rows = np.concatenate(self._waiting, axis=1)
        range_of = ((rows[0] >> np.uint64(32)) * np.uint64(self.ranges)) >> np.uint64(32)
        order = np.argsort(rows[0])
        ends = np.searchsorted(range_of[order], np.arange(self.ranges + 1, dtype=np.uint64))
        for number in np.flatnonzero(np.diff(ends)).tolist():
            with (self._place / str(number)).open("ab") as file:
                file.write(rows[:, order[ends[number] : ends[number + 1]]].T.tobytes())
            self._written.add(number)
        self._waiting, self._waiting_rows = [], 0


def combine_rows(parts: Iterable[np.ndarray], how: np.ufunc) -> tuple[np.ndarray, np.ndarray]:
    """The first numbers of rows, sorted and each once, and what `how` makes of the second ones of each."""
    keys = values = np.empty(0, np.uint64)
    for first, second in parts:
        keys, values = np.concatenate([keys, first]), np.concatenate([values, second])
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], values[order]
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: keys.size])
        keys, values = keys[starts], how.reduceat(values, starts)
    return keys, values


def connect_links(links: NumberTable) -> NumberTable:
    """Stars: each node that is linked at all, linked to the smallest node of its component and to no other.

    The same for any order of links.

    Args:
        links: In both directions. They are used up.

    Returns:
        Stars in both directions; some rows may be there more than once.
    """
    while True:
        links, moved = _move_links(links, large=True)
        links, moved_too = _move_links(links, large=False)
        if not moved + moved_too:
            return links


def _move_links(links: NumberTable, *, large: bool) -> tuple[NumberTable, int]:
    """One round, large-star or small-star: see `move_large` and `move_small` of stars.py. Links are not made unique.

    Args:
        links: For large-star in both directions; for small-star from their larger end, which is what the other leaves.
        large: Which of the two.

    Returns:
        The links, and how many were not there before.
    """
    moved, after = 0, links.make_like()
    for number in range(links.ranges):
        nodes, least = combine_rows(links.read(number), np.minimum)
        if not large:
            after.add_turned(nodes, least)
        for node, near in links.read(number):
            smallest = least[np.searchsorted(nodes, node)]
            if large:
                larger = near > node
                smallest = np.minimum(smallest, node)[larger]
                moved += int((smallest != node[larger]).sum())
                after.add(near[larger], smallest)
            else:
                further = near != smallest
                moved += int(further.sum())
                after.add_turned(near[further], smallest[further])
        links.remove(number)
    return after, moved


def find_labels(keys: np.ndarray, nodes: np.ndarray, least: np.ndarray) -> np.ndarray:
    """The smallest key that each of some keys is connected to, itself included.

    Args:
        keys: In any order.
        nodes: Those of them that are linked, sorted, and perhaps others.
        least: The smallest key that each node is linked to.
    """
    if not nodes.size:
        return keys.copy()
    places = np.searchsorted(nodes, keys).clip(max=nodes.size - 1)
    found: np.ndarray = np.where(nodes[places] == keys, np.minimum(keys, least[places]), keys)
    return found


def keep_known(stars: NumberTable, pairs: Iterable[np.ndarray]) -> NumberTable:
    """The pairs of which both ends are nodes of stars.

    Args:
        stars: What `connect_links` found.
        pairs: (n, 2) each.
    """
    waiting = stars.make_like()
    for part in pairs:
        waiting.add(part[:, 0], part[:, 1])
    for _ in range(2):
        kept = stars.make_like()
        for number in range(stars.ranges) if waiting.rows else ():
            nodes, _ = combine_rows(stars.read(number), np.minimum)
            for first, second in waiting.read(number):
                known = np.isin(first, nodes)
                kept.add(second[known], first[known])
            waiting.remove(number)
        waiting = kept
    return waiting


def join_links(stars: NumberTable, pairs: NumberTable) -> NumberTable:
    """The links of stars and of pairs, whose ranges are alike, in both directions."""
    joined = stars.make_like()
    for number in range(stars.ranges):
        for first, second in stars.read(number):
            joined.add(first, second)
        for first, second in pairs.read(number):
            joined.add_turned(first, second)
    return joined
