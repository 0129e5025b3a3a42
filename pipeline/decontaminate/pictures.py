"""Pictures of benchmarks, and which of them a training picture shows, in two looks.

Candidates share leading bits of a place, as in dedupe, but there is no cap: all pictures of the gallery are looked at.
The first look measures them by dedupe's aligned correlation of 64 pixels' luminance. Scenes made from one template,
diagrams in another colour and receipts of one shop pass it, so those that do are decoded again for a close-up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmill.pipeline.dedupe import picture
from vlmill.pipeline.dedupe.picture import align_pairs, choose_windows, sample_windows
from vlmill.pipeline.images.decode import decode_image

BATCH = 256
"""Pairs measured at a time, and pictures looked up."""
CHUNK = 1 << 22
"""Pairs of places compared at a time: 32 MB a column."""

SIDE = 128
"""Pixels of a close-up's side. There, 99 of 100 copies of screenshots, photographs and receipts (recompressed, halved,
cut by 5 %) correlate by 0.98 and more, and different receipts of one shop by less; at 64 pixels they overlap."""
ALIKE = 0.98
"""Correlation of luminance from which close-ups are the same."""
CELLS = 12
"""Cells on a side over which differences of colour are averaged."""
DIFFERENT = 48.0
"""Levels of 255 by which no cell may differ in any colour: 19 of 20 copies that were cut, halved and recompressed stay
below 41; a block of another colour in a scene of blocks gives 56 and more."""
CALM = 5.0
"""Levels by which the calmest quarter of cells may differ: where little is shown, a copy keeps its colours. A shape on
a ground of another tint is no copy, and nor is one that was brightened on purpose."""
MOST_PIXELS = 178_956_970  # Pillow's own limit; image stats has said which images are too large for the recipe
PAIRS = 16
"""Close-ups compared at a time: a pair takes some 4 MB."""

HASH = np.uint64((1 << picture.HASH_BITS) - 1)
GROUP = np.uint64(64 - picture.GROUP_BITS)


@dataclass(frozen=True)
class Gallery:
    """Pictures of benchmarks by row. Arrays may be mapped."""

    places: NDArray[np.uint64]  # sorted
    owners: NDArray[np.uint32]  # the row of the picture filed there
    thumbnails: NDArray[np.uint8]  # (n, side, side)

    def alike(self, thumbnails: NDArray[np.uint8], floor: float) -> Iterator[tuple[int, int, float]]:
        """(row of `thumbnails`, row of the gallery, similarity) of all pairs at or above `floor`; pure, in order.

        Pictures that show nothing are like none.
        """
        telling = np.flatnonzero(~picture.find_flat(thumbnails))
        for start in range(0, telling.size, BATCH):
            rows = telling[start : start + BATCH]
            one, other = self._candidates(picture.hash_places(thumbnails[rows]))
            for first in range(0, one.size, BATCH):
                ours, theirs = rows[one[first : first + BATCH]], other[first : first + BATCH]
                found = picture.measure_similarity(thumbnails[ours], self.thumbnails[theirs])
                for pair in np.flatnonzero(found >= floor):
                    yield int(ours[pair]), int(theirs[pair]), float(found[pair])

    def _candidates(self, filed: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs worth measuring, once each, in order. `filed` has a row of places for each picture."""
        flat = filed.ravel()
        groups = flat >> GROUP
        low = np.searchsorted(self.places, groups << GROUP, side="left")
        high = np.searchsorted(self.places, (groups << GROUP) | ((np.uint64(1) << GROUP) - np.uint64(1)), side="right")
        found = [np.empty(0, np.int64)]
        for rows in _group_rows(high - low):
            counts = (high - low)[rows]
            mine = np.repeat(rows, counts)
            skipped = np.repeat(np.cumsum(counts) - counts, counts)
            theirs = np.repeat(low[rows], counts) + np.arange(mine.size) - skipped
            near = np.bitwise_count((flat[mine] ^ self.places[theirs]) & HASH) <= picture.NEAR_BITS
            owners = self.owners[theirs[near]].astype(np.int64)
            found.append(np.unique(mine[near] // filed.shape[1] * len(self.thumbnails) + owners))
        pairs = np.unique(np.concatenate(found))
        size = max(1, len(self.thumbnails))
        return pairs // size, pairs % size


def make_close_up(data: bytes) -> NDArray[np.uint8]:
    """(SIDE, SIDE, 3): the picture in `data`, of which is known that it can be decoded; pure."""
    return np.asarray(decode_image(data, MOST_PIXELS).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def find_same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of n pairs of close-ups show the same in the same colours, whichever of the two was cut.

    Pure, each pair for itself.

    What is cheap comes first, so that most pairs of a set made from templates cost little.
    """
    left = np.flatnonzero(_compare_tints(_shrink_pictures(one, 16), _shrink_pictures(other, 16)))
    for side, floor in ((32, 0.0), (SIDE, ALIKE)):
        found = np.zeros(left.size, bool)
        for start in range(0, left.size, PAIRS):
            rows = left[start : start + PAIRS]
            a, b = _shrink_pictures(one[rows], side), _shrink_pictures(other[rows], side)
            found[start : start + PAIRS] = _compare_windows(a, b, floor)
        left = left[found]
    kept = np.zeros(len(one), bool)
    kept[left] = True
    return kept


def _shrink_pictures(close_ups: NDArray[np.uint8], side: int) -> picture.Floats:
    step = SIDE // side
    small: picture.Floats = close_ups.reshape(-1, side, step, side, step, 3).mean(axis=(2, 4))
    return small


def _compare_tints(one: picture.Floats, other: picture.Floats) -> NDArray[np.bool_]:
    """Whether the tints in the middle of each picture are about within the range of all of the other's.

    Cutting takes none away there.
    """
    one, other = (pictures - np.roll(pictures, 1, axis=3) for pictures in (one, other))
    within = np.ones(len(one), bool)
    for inner, outer in ((one, other), (other, one)):
        edge = one.shape[1] // 8
        middle = inner[:, edge:-edge, edge:-edge]
        low = middle.min(axis=(1, 2)) >= outer.min(axis=(1, 2)) - 2 * DIFFERENT
        high = middle.max(axis=(1, 2)) <= outer.max(axis=(1, 2)) + 2 * DIFFERENT
        within &= (low & high).all(axis=1)
    return within


def _compare_windows(one: picture.Floats, other: picture.Floats, floor: float) -> NDArray[np.bool_]:
    """Whether some window of the first shows what a window of the second does."""
    grey, target = one.mean(axis=3), other.mean(axis=3)
    first, second, _ = choose_windows(grey, target)
    found = np.zeros(len(one), bool)
    for rows, shows, seen in ((np.arange(len(one)), first, second), align_pairs(grey, target, first, second)):
        shown, wanted = (
            np.stack(
                [sample_windows(pictures[rows, ..., colour], place, 1 / one.shape[1])[0] for colour in range(3)], axis=3
            )
            for pictures, place in ((one, shows), (other, seen))
        )
        found[rows] |= (_correlate_pictures(shown.mean(axis=3), wanted.mean(axis=3)) >= floor) & _compare_colours(
            shown, wanted
        )
    return found


def _correlate_pictures(one: picture.Floats, other: picture.Floats) -> picture.Floats:
    a, b = (pictures - pictures.mean(axis=(1, 2), keepdims=True) for pictures in (one, other))
    spread = np.sqrt((a * a).sum(axis=(1, 2)) * (b * b).sum(axis=(1, 2)))
    found: picture.Floats = (a * b).sum(axis=(1, 2)) / np.maximum(spread, 1e-9)
    return found


def _compare_colours(one: picture.Floats, other: picture.Floats) -> NDArray[np.bool_]:
    """Whether the colours of n pairs are the same, cell by cell."""
    rest = np.abs(one - other)
    size = rest.shape[1] // CELLS
    cells = rest[:, : size * CELLS, : size * CELLS].reshape(-1, CELLS, size, CELLS, size, 3).mean(axis=(2, 4))
    by_cell = cells.max(axis=3).reshape(-1, CELLS * CELLS)
    found: NDArray[np.bool_] = (by_cell.max(axis=1) <= DIFFERENT) & (np.quantile(by_cell, 0.25, axis=1) <= CALM)
    return found


def make_gallery(thumbnails: NDArray[np.uint8]) -> Gallery:
    """The gallery of these pictures; those that show nothing are filed nowhere."""
    telling = np.flatnonzero(~picture.find_flat(thumbnails))
    filed = picture.hash_places(thumbnails[telling])
    places, owners = filed.ravel(), np.repeat(telling, filed.shape[1]).astype(np.uint32)
    order = np.lexsort((owners, places))
    return Gallery(places[order], owners[order], thumbnails)


def _group_rows(counts: NDArray[Any]) -> Iterator[NDArray[np.int64]]:
    """Rows in groups whose counts add up to about CHUNK."""
    groups = np.cumsum(counts) // CHUNK
    yield from (np.flatnonzero(groups == number) for number in np.unique(groups))
