"""How pictures look at first sight: which of many candidates of a picture are measured. Pure, each pair for itself.

Pictures made from templates meet in hundreds: their hashes are the same. What distinguishes them is where the shape
lies, its colour and small things, so they are compared as a whole, within their margins, and by colour. A copy may be
cut or have got a caption, so half of those that are measured are chosen by the windows that correlate best.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlmill.pipeline.dedupe.hashing import mix_bits
from vlmill.pipeline.dedupe.picture_windows import COARSE, Floats, make_views, normalise_values, reduce_pictures

TINTS = 4
"""Cells on a side by which colours are compared."""
TOGETHER = 512
"""Pairs compared at a time: 26 KB each."""
TINTED = 100.0
"""Levels of chroma by which two pictures differ as much as by all their correlation."""

HUE = 0.25
"""How much of it another hue counts where pictures may be cut or have got a caption, which change shares of colours."""
GREY = 4.0
"""Levels of chroma at which a hue counts half."""

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
    """(n, 2): how little alike n pairs look, 0 if they look the same, to 4 decimals: as they are, and where cut alike.

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
    found = np.empty((one.size, 2), np.float32)
    pictures = [each["luminance"].astype(np.float32) for each in (looks, others)]
    whole = [normalise_values(each.reshape(len(each), 2, COARSE * COARSE))[0] for each in pictures]
    windows = [np.stack([make_views(each[:, view]) for view in (0, 1)], axis=1) for each in pictures]
    chroma = [each["chroma"].astype(np.float32) - 128 for each in (looks, others)]
    hues = [_find_hues(each) for each in chroma]
    for start in range(0, one.size, TOGETHER):
        batch = slice(start, start + TOGETHER)
        a, b = one[batch], other[batch]
        difference = chroma[0][a] - chroma[1][b]
        tint = np.sqrt((difference * difference).mean(axis=(1, 2))).sum(axis=1)
        found[batch, 0] = 2 - (whole[0][a] * whole[1][b]).sum(axis=(1, 2)) + tint / TINTED
        best = (windows[0][a] @ windows[1][b].transpose(0, 1, 3, 2)).max(axis=(1, 2, 3))
        found[batch, 1] = 1 - best + HUE * np.abs(hues[0][a] - hues[1][b]).sum(axis=1)
    return found


def _find_hues(chroma: Floats) -> Floats:
    """(n, 2): the colour of pictures, however much of them has it: up to 1, and near 0 of grey ones."""
    strengths = np.sqrt((chroma * chroma).sum(axis=3)).mean(axis=(1, 2))[:, None]
    hues: Floats = chroma.mean(axis=(1, 2)) / (strengths + GREY)
    return hues


def choose_nearest(
    one: NDArray[np.uint64], other: NDArray[np.uint64], distances: NDArray[np.float64], nearest: int
) -> NDArray[np.int64]:
    """Which pairs are measured, in their order: of each `one` up to `nearest`, half of them by either distance.

    Of equal ones those with the lower hash of both keys, so that it is no matter of order.

    Args:
        one: (n,) keys, sorted.
        other: The second ones.
        distances: See `measure_distances`.
        nearest: Pairs of a key at most.
    """
    first, chosen = np.searchsorted(one, one), np.zeros(one.size, bool)
    for column, most in ((0, -(-nearest // 2)), (1, nearest // 2)):
        order = np.lexsort((mix_bits(one ^ other), distances[:, column], one))  # `one` is sorted, so ordered as it is
        chosen[order[np.arange(one.size) - first < most]] = True
    return np.flatnonzero(chosen)
