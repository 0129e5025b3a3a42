"""Pictures for dedupe: hashes of windows that find candidates, and the aligned correlation that measures them.

Both look at nothing but square luminance thumbnails, so images are not decoded again. A copy may be recompressed, resized,
brightened, cropped a little or carry a caption: then a window of one picture shows what a window of the other shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.dedupe.hashing import mix

Pixels = NDArray[np.float64]
Window = tuple[float, float, float, float]
"""Top, bottom, left and right as shares of the height and width."""

WINDOWS: tuple[Window, ...] = (
    (0.0, 1.0, 0.0, 1.0),
    (0.05, 0.95, 0.05, 0.95),  # a copy that lost its margins
    (0.0, 0.94, 0.0, 1.0),  # captions below, above
    (0.0, 0.88, 0.0, 1.0),
    (0.06, 1.0, 0.0, 1.0),
    (0.12, 1.0, 0.0, 1.0),
    (0.05, 1.0, 0.05, 1.0),  # crops of two sides
    (0.05, 1.0, 0.0, 0.95),
    (0.0, 0.95, 0.05, 1.0),
    (0.0, 0.95, 0.0, 0.95),
)
TABLE_BITS = 3
"""Four orders of the hash bits: copies that differ in the first bits of one order agree in those of another."""
HASH_BITS = 64 - TABLE_BITS
GROUP_BITS = TABLE_BITS + 10
"""Leading bits of a place that candidates share. With 4 tables and 12 bits, 667 pictures in 9 altered copies each were found
to at least 0.99 each, among 8,000 (see benchmarks/dedupe.py)."""
NEAR_BITS = 12
"""Most differing bits of a candidate pair's hashes: 99 % of altered copies have at most 9, 1 in 10,000 unrelated pairs has 12."""
FLAT = 3.0
"""Standard deviation of luminance under which a picture shows nothing to compare; it is only an exact duplicate of others."""

COARSE = 12
"""Side at which all windows of both pictures are compared to find where alignment starts."""
FINE = 32
"""Side of the grid that alignment and the final correlation sample."""
HOPELESS, CERTAIN, REACH = 0.7, 0.99, 0.06
GAINS = (1 / 1.2, 1 / 1.1, 1 / 1.05, 1.0, 1.05, 1.1, 1.2)
BLURS = (2.0, 2.0, 1.0, 1.0, 0.5, 0.5)
"""Standard deviations of the sampling kernel in cells of FINE, from coarse to fine, one per step of alignment."""


def places(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Where each of n pictures is filed: (n, windows x tables) uint64; pure, and independent of the other pictures.

    A place is the number of a table, then HASH_BITS signs of the lowest frequencies of a DCT-II of one window, in the order of
    that table (a perceptual hash after Zauner, 2010, with the sign in place of the median). Sorted by place, neighbours agree in
    the leading bits.

    Args:
        thumbnails: (n, side, side).
    """
    batches = [_signs(thumbnails[start : start + 256]) for start in range(0, max(1, len(thumbnails)), 256)]
    signs = np.concatenate(batches)
    filed = []
    for table in range(1 << TABLE_BITS):
        order = np.argsort(mix(np.arange(table * 64, table * 64 + HASH_BITS, dtype=np.uint64)))
        weights = np.uint64(1) << np.arange(HASH_BITS, dtype=np.uint64)
        hashes = (signs[..., order] * weights).sum(axis=-1, dtype=np.uint64)
        filed.append(hashes | np.uint64(table << HASH_BITS))
    return np.concatenate(filed, axis=1)


def stack(pixels: Sequence[bytes]) -> NDArray[np.uint8]:
    """Square pictures of one size, row-major, as (n, side, side)."""
    side = math.isqrt(len(pixels[0])) if pixels else 1
    return np.frombuffer(b"".join(pixels), np.uint8).reshape(len(pixels), side, side)


def flat(thumbnails: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of n pictures show nothing to compare."""
    return thumbnails.std(axis=(1, 2)) < FLAT


def similarity(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> Pixels:
    """Correlation of luminance of n pairs of pictures after alignment, from -1 to 1, to 4 decimals; pure, and each pair on its own.

    The best of all pairs of windows is refined by Gauss-Newton steps over the edges of the first picture's window (after Lucas
    and Kanade, 1981), from coarse to fine. A gain that saturates is undone by saturating the other picture as well.

    Args:
        one: (n, side, side).
        other: (n, side, side).
    """
    first, second, best = _start(one, other)
    a, b = one.astype(np.float64), other.astype(np.float64)
    hopeful = np.flatnonzero(best >= HOPELESS)
    best[hopeful] = _compare(a[hopeful], b[hopeful], first[hopeful], second[hopeful])
    unsure = hopeful[best[hopeful] < CERTAIN]
    aligned = _align(a[unsure], b[unsure], first[unsure], second[unsure])
    best[unsure] = np.maximum(best[unsure], _compare(a[unsure], b[unsure], aligned, second[unsure]))
    return best.round(4)


def _signs(thumbnails: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(n, windows, HASH_BITS) signs of the lowest frequencies but the mean, and but the highest, whose sign is least stable."""
    side, pixels, frequencies = thumbnails.shape[1], thumbnails.astype(np.float64), _cosines(32, 8)
    signs = []
    for top, bottom, left, right in WINDOWS:
        rows, columns = frequencies @ _area(32, top, bottom, side), frequencies @ _area(32, left, right, side)
        waves = (rows @ pixels @ columns.T).reshape(-1, 64)
        signs.append(waves[:, 1 : 1 + HASH_BITS].round(6) > 0)
    return np.stack(signs, axis=1)


@cache
def _cosines(size: int, count: int) -> Pixels:
    """The `count` lowest frequencies of a DCT-II of `size` values."""
    return np.cos(np.pi * np.outer(np.arange(count), 2 * np.arange(size) + 1) / (2 * size))


@cache
def _area(cells: int, start: float, stop: float, side: int) -> Pixels:
    """(cells, side): the mean over each of `cells` equal parts of [start, stop) of `side` pixels."""
    edges = np.linspace(start * side, stop * side, cells + 1)
    pixels = np.arange(side)
    shares = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.maximum(shares, 0) / (edges[1] - edges[0])


def _start(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> tuple[Pixels, ...]:
    """(n, 4) each: the pair of windows that correlate best, and their correlation."""
    correlations = (_views(one) @ _views(other).transpose(0, 2, 1)).reshape(len(one), -1)
    best = correlations.argmax(axis=1)
    windows = np.array(WINDOWS)
    return windows[best // len(WINDOWS)], windows[best % len(WINDOWS)], correlations.max(axis=1)


def _align(one: Pixels, other: Pixels, first: Pixels, second: Pixels) -> Pixels:
    """(n, 4): the first one's window, moved to where it shows what the second one's shows."""
    low, high = (first - REACH).clip(0, 1), (first + REACH).clip(0, 1)
    targets = {blur: _look(other, second, blur)[0] for blur in set(BLURS)}
    for blur in BLURS:
        shown, down, right = _look(one, first, blur)
        first = (first + _step(shown, down, right, targets[blur])).clip(low, high)
    return first


def _compare(one: Pixels, other: Pixels, first: Pixels, second: Pixels) -> Pixels:
    """(n,): the correlation of two windows under the gain that suits best."""
    shown, target = _look(one, first, BLURS[-1])[0], _look(other, second, BLURS[-1])[0]
    exposed = [
        _correlation(np.minimum(shown * max(gain, 1), 255), np.minimum(target * max(1 / gain, 1), 255))
        for gain in GAINS
    ]
    return np.max(np.stack(exposed), axis=0)


def _correlation(one: Pixels, other: Pixels) -> Pixels:
    """(n,): the correlation of two samplings, or the least without one of the eighths that lie on top of each other.

    So a caption that two different pictures have in common does not make them one.
    """
    eighths = np.stack([np.ones_like(one), one, other, one * one, other * other, one * other])
    sums = eighths.reshape(6, len(one), 8, one.shape[1] * one.shape[2] // 8).sum(axis=3)
    whole = sums.sum(axis=2, keepdims=True)
    count, a, b, aa, bb, ab = np.concatenate([whole, whole - sums], axis=2)
    spread = (aa / count - (a / count) ** 2).clip(0), (bb / count - (b / count) ** 2).clip(0)
    telling = np.minimum(*spread) >= FLAT * FLAT
    correlation = (ab / count - a * b / count**2) / np.sqrt(np.maximum(spread[0] * spread[1], 1e-6))
    least: Pixels = np.where(telling[:, 1:], correlation[:, 1:], 1.0).min(axis=1)
    return np.minimum(correlation[:, 0], least)


def _views(thumbnails: NDArray[np.uint8]) -> Pixels:
    """(n, windows, COARSE * COARSE): all windows, with mean 0 and norm 1."""
    side, pixels = thumbnails.shape[1], thumbnails.astype(np.float64)
    views = [
        _area(COARSE, top, bottom, side) @ pixels @ _area(COARSE, left, right, side).T
        for top, bottom, left, right in WINDOWS
    ]
    return _normal(np.stack(views, axis=1).reshape(len(pixels), len(WINDOWS), -1))[0]


def _normal(values: Pixels) -> tuple[Pixels, Pixels]:
    """Values with mean 0 and norm 1 along the last axis, and what they were divided by."""
    centred = values - values.mean(axis=-1, keepdims=True)
    norm = np.maximum(np.sqrt((centred * centred).sum(axis=-1, keepdims=True)), 1e-3)
    return centred / norm, norm


def _look(pixels: Pixels, windows: Pixels, blur: float) -> tuple[Pixels, ...]:
    """(n, FINE, FINE) each: the windows sampled with a Gaussian kernel, and their derivatives by row and by column."""
    side = pixels.shape[1]
    rows, sloping_rows = _kernel(windows[:, 0], windows[:, 1], side, blur)
    columns, sloping_columns = _kernel(windows[:, 2], windows[:, 3], side, blur)
    across = pixels @ columns.transpose(0, 2, 1)
    return rows @ across, sloping_rows @ across, rows @ pixels @ sloping_columns.transpose(0, 2, 1)


def _kernel(start: Pixels, stop: Pixels, side: int, blur: float) -> tuple[Pixels, Pixels]:
    """(n, FINE, side) each: weights of the pixels at FINE points of [start, stop), and their derivative by the point (as a share)."""
    points = start[:, None] + (stop - start)[:, None] * ((np.arange(FINE) + 0.5) / FINE)
    centres = (np.arange(side) + 0.5) / side
    width = blur / FINE
    distance = (centres - points[:, :, None]) / width
    inside = (centres > start[:, None] - 0.5 / side) & (centres < stop[:, None] + 0.5 / side)
    weights = np.exp(-0.5 * distance * distance) * inside[:, None, :] + 1e-12
    weights /= weights.sum(axis=2, keepdims=True)
    slope = weights * distance / width
    return weights, slope - weights * slope.sum(axis=2, keepdims=True)


def _step(shown: Pixels, down: Pixels, right: Pixels, target: Pixels) -> Pixels:
    """(n, 4): the step of (top, bottom, left, right) that brings what is shown closer to the target."""
    count, share = len(shown), (np.arange(FINE) + 0.5) / FINE
    (a, norm), (b, _) = _normal(shown.reshape(count, FINE * FINE)), _normal(target.reshape(count, FINE * FINE))
    by_edge = np.stack([down * (1 - share)[:, None], down * share[:, None], right * (1 - share), right * share], axis=1)
    slopes = by_edge.reshape(count, 4, FINE * FINE) / norm[:, None]
    slopes = slopes - slopes.mean(axis=2, keepdims=True)
    slopes = slopes - (slopes @ a[:, :, None]) * a[:, None, :]
    hessian = slopes @ slopes.transpose(0, 2, 1)
    damping = np.eye(4) * (1e-6 + 0.01 * np.einsum("nii->ni", hessian))[:, :, None]
    towards = slopes @ (b - a * (a * b).sum(axis=1, keepdims=True))[:, :, None]
    step: Pixels = np.linalg.solve(hessian + damping, towards)[:, :, 0]
    return step.clip(-0.05, 0.05)
