"""How pictures look at first sight: which of many candidates of a picture are measured. Pure, each pair for itself.

Pictures made from templates meet in hundreds: their hashes are the same. What distinguishes them is where the shape
lies, its colour and small things, so they are compared as a whole, within their margins, and by colour.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlmill.pipeline.dedupe.hashing import mix_bits
from vlmill.pipeline.dedupe.picture_windows import COARSE, Floats, normalise_values, reduce_pictures

TINTS = 4
"""Cells on a side by which colours are compared."""
TOGETHER = 512
"""Pairs compared at a time: 4 KB each."""
TINTED = 100.0
"""Levels of chroma by which two pictures differ as much as by all their correlation."""

LOOK = np.dtype([("luminance", "u1", (2, COARSE, COARSE)), ("chroma", "u1", (TINTS, TINTS, 2))])
"""Luminance within the margins and of the whole, and chroma within the margins, with 128 for grey."""


def make_looks(small: NDArray[np.uint8], colours: NDArray[np.uint8]) -> NDArray[np.void]:
    """(n,) of LOOK.

    Args:
        small: (n, 2, side, side), luminance of both views.
        colours: (n, TINTS, TINTS, 2).
    """
    looks = np.zeros(len(small), LOOK)
    for view in (0, 1):
        looks["luminance"][:, view] = reduce_pictures(small[:, view].astype(np.float32), COARSE).round()
    looks["chroma"] = colours
    return looks


def measure_distances(
    looks: NDArray[np.void], one: NDArray[np.int64], other: NDArray[np.int64], *, mirror: bool = False
) -> NDArray[np.float64]:
    """(n,): how little alike n pairs look, 0 if they look the same, to 4 decimals.

    Args:
        looks: Of pictures.
        one: (n,), rows of these.
        other: The second ones.
        mirror: Whether the second one may be mirrored.
    """
    found = _compare_looks(looks, looks, one, other)
    if mirror:
        turned = looks.copy()
        turned["luminance"], turned["chroma"] = looks["luminance"][..., ::-1], looks["chroma"][:, :, ::-1]
        found = np.minimum(found, _compare_looks(looks, turned, one, other))
    return found.astype(np.float64).round(4)


def _compare_looks(
    looks: NDArray[np.void], others: NDArray[np.void], one: NDArray[np.int64], other: NDArray[np.int64]
) -> Floats:
    found = np.empty(one.size, np.float32)
    views = [
        normalise_values(each["luminance"].astype(np.float32).reshape(len(each), 2, COARSE * COARSE))[0]
        for each in (looks, others)
    ]
    for start in range(0, one.size, TOGETHER):
        batch = slice(start, start + TOGETHER)
        a, b = one[batch], other[batch]
        difference = looks["chroma"][a].astype(np.float32) - others["chroma"][b]
        tint = np.sqrt((difference * difference).mean(axis=(1, 2))).sum(axis=1)
        found[batch] = 2 - (views[0][a] * views[1][b]).sum(axis=(1, 2)) + tint / TINTED
    return found


def choose_nearest(
    one: NDArray[np.uint64], other: NDArray[np.uint64], distances: NDArray[np.float64], nearest: int
) -> NDArray[np.int64]:
    """Which pairs are measured, in their order: of each `one` those with the `nearest` least distances.

    Of equal ones those with the lower hash of both keys, so that it is no matter of order.

    Args:
        one: (n,) keys, sorted.
        other: The second ones.
        distances: See `measure_distances`.
        nearest: Pairs of a key at most.
    """
    order = np.lexsort((mix_bits(one ^ other), distances, one))
    ranks = np.arange(one.size) - np.searchsorted(one, one)  # `one` is sorted, so ordered as it is
    chosen: NDArray[np.int64] = np.sort(order[ranks < nearest])
    return chosen
