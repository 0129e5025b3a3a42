"""Which rows of a source a scaled run reads: those whose hash is below a bound.

The hash is of the row's id (source, file and row number) and of nothing else: not of partitions, workers or the
recipe's seed. So the rows of a scale are among those of every larger one. The survey phase finds the bound of each
source; the read step and everybody who counts rows asks with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmill.pipeline.dedupe.hashing import GOLDEN, mix_bits

LEAST_ROWS = 32
"""Rows that every scale keeps of a source: those of the lowest hashes, or all where it has fewer."""

BLOCK = 1 << 20
"""Rows that are hashed at a time: 8 MB."""


class RowRange(NamedTuple):
    """Rows [start, stop) of an input file."""

    file: str  # relative to the source's root, with "/"
    start: int
    stop: int


def hash_rows(source: str, file: str, start: int, stop: int) -> NDArray[np.uint64]:
    """One hash per row of [start, stop): the outputs `start` to `stop` of splitmix64, seeded by source and file."""
    seed = int.from_bytes(hashlib.sha256(f"{source}/{file}".encode()).digest()[:8], "big")
    return mix_bits(np.arange(start, stop, dtype=np.uint64) * np.uint64(GOLDEN) + np.uint64(seed))


def choose_rows(source: str, file: str, start: int, stop: int, bound: int) -> list[int]:
    """The rows of [start, stop) whose hash is below `bound`, in order."""
    return list(chain.from_iterable(_iterate_chosen(source, file, start, stop, bound)))


def has_chosen_rows(source: str, file: str, start: int, stop: int, bound: int) -> bool:
    """Whether `choose_rows` gives any; it looks no further than to the first."""
    return any(_iterate_chosen(source, file, start, stop, bound))


def find_bound(source: str, ranges: Iterable[RowRange], scale: float) -> int:
    """The bound of a source's hashes at a scale; it never falls while the scale rises.

    It is `scale` of all hashes, or more where fewer than LEAST_ROWS rows were below that. Memory is bounded, and rows
    are hashed only until it is known that enough are there.
    """
    wanted = int(scale * 2.0**64)
    lowest = np.empty(0, np.uint64)
    for file, start, stop in ranges:
        for first in range(start, stop, BLOCK):
            hashes = hash_rows(source, file, first, min(first + BLOCK, stop))
            lowest = np.sort(np.concatenate([lowest, hashes]))[:LEAST_ROWS]
            if lowest.size == LEAST_ROWS and int(lowest[-1]) < wanted:
                return wanted
    return max(wanted, int(lowest[-1]) + 1 if lowest.size else 0)


def _iterate_chosen(source: str, file: str, start: int, stop: int, bound: int) -> Iterator[list[int]]:
    """The chosen rows, block by block."""
    for first in range(start, stop, BLOCK):
        hashes = hash_rows(source, file, first, min(first + BLOCK, stop))
        yield (np.flatnonzero(hashes <= np.uint64(bound - 1)) + first).tolist() if bound else []
