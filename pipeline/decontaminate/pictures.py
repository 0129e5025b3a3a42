"""Pictures of benchmarks, and which of them a training picture shows.

Candidates share leading bits of a place, as in dedupe, but there is no cap: all pictures of the gallery are looked at.
They are measured as dedupe measures them, on the thumbnails of the image stats.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmill.pipeline.dedupe.picture import (
    ComparedPictures,
    file_pictures,
    make_evidence,
    measure_similarity,
    read_evidence,
)
from vlmill.pipeline.dedupe.picture_places import GROUP_BITS, HASH_BITS, NEAR_BITS

LOOKED_UP = 256
"""Pictures looked up at a time."""
BATCH = 32
"""Pairs measured at a time: a pair takes 1 MB."""
CHUNK = 1 << 22
"""Pairs of places compared at a time: 32 MB a column."""

HASH = np.uint64((1 << HASH_BITS) - 1)
GROUP = np.uint64(64 - GROUP_BITS)


@dataclass(frozen=True)
class Gallery:
    """Pictures of benchmarks by row. Arrays may be mapped."""

    places: NDArray[np.uint64]  # sorted
    owners: NDArray[np.uint32]  # the row of the picture filed there
    evidence: NDArray[np.uint8]  # of all pictures, one behind the other
    stops: NDArray[np.int64]  # where that of each picture ends

    def alike(
        self, pictures: ComparedPictures, floor: float, *, mirror: bool = False
    ) -> Iterator[tuple[int, int, float]]:
        """(row of `pictures`, row of the gallery, similarity) of all pairs at or above `floor`; pure, in order.

        Pictures that show nothing are like none.
        """
        telling = np.flatnonzero(~pictures.flat)
        for start in range(0, telling.size, LOOKED_UP):
            rows = telling[start : start + LOOKED_UP]
            one, other = self._candidates(_file_rows(pictures[rows], mirror=mirror))
            for first in range(0, one.size, BATCH):
                ours, theirs = rows[one[first : first + BATCH]], other[first : first + BATCH]
                found = measure_similarity(pictures[ours], self._read(theirs), mirror=mirror)
                for pair in np.flatnonzero(found >= floor):
                    yield int(ours[pair]), int(theirs[pair]), float(found[pair])

    def _read(self, rows: NDArray[np.int64]) -> ComparedPictures:
        starts = np.concatenate([np.zeros(1, np.int64), self.stops[:-1]])[rows]
        return read_evidence([self.evidence[start:stop] for start, stop in zip(starts, self.stops[rows], strict=True)])

    def _candidates(
        self, filed: tuple[NDArray[np.uint64], NDArray[np.int64]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs worth measuring, once each, in order, of pictures that are `filed`: places, and their owners."""
        flat, holders = filed
        groups = flat >> GROUP
        low = np.searchsorted(self.places, groups << GROUP, side="left")
        high = np.searchsorted(self.places, (groups << GROUP) | ((np.uint64(1) << GROUP) - np.uint64(1)), side="right")
        found, size = [np.empty(0, np.int64)], max(1, self.stops.size)
        for rows in _group_rows(high - low):
            counts = (high - low)[rows]
            mine = np.repeat(rows, counts)
            skipped = np.repeat(np.cumsum(counts) - counts, counts)
            theirs = np.repeat(low[rows], counts) + np.arange(mine.size) - skipped
            near = np.bitwise_count((flat[mine] ^ self.places[theirs]) & HASH) <= NEAR_BITS
            owners = self.owners[theirs[near]].astype(np.int64)
            found.append(np.unique(holders[mine[near]] * size + owners))
        pairs = np.unique(np.concatenate(found))
        return pairs // size, pairs % size


def make_gallery(pictures: ComparedPictures) -> Gallery:
    """The gallery of these pictures; those that show nothing are filed nowhere."""
    telling = np.flatnonzero(~pictures.flat)
    places, holders = _file_rows(pictures[telling], mirror=False)
    owners = telling[holders].astype(np.uint32)
    order = np.lexsort((owners, places))
    evidence = make_evidence(pictures)
    stops = np.cumsum([each.size for each in evidence], dtype=np.int64)
    return Gallery(places[order], owners[order], np.concatenate([np.empty(0, np.uint8), *evidence]), stops)


def _file_rows(pictures: ComparedPictures, *, mirror: bool) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """All places of pictures, and the row of the picture at each."""
    filed = file_pictures(pictures)
    owners = np.repeat(np.arange(len(filed)), [places.size for places in filed])
    places = np.concatenate([np.empty(0, np.uint64), *filed])
    if not mirror:
        return places, owners
    turned, holders = _file_rows(pictures.mirror(), mirror=False)
    return np.concatenate([places, turned]), np.concatenate([owners, holders])


def _group_rows(counts: NDArray[Any]) -> Iterator[NDArray[np.int64]]:
    """Rows in groups whose counts add up to about CHUNK."""
    groups = np.cumsum(counts) // CHUNK
    yield from (np.flatnonzero(groups == number) for number in np.unique(groups))
