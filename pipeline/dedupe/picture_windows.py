"""Windows of pictures: which of them are looked at, and how their pixels are sampled. Pure functions of arrays.

All pictures of one call are squares of one side; a window is (top, bottom, left, right) as shares of height and width.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
"""Pixels are float32: at float64 everything takes twice as long and finds the same."""

WINDOWS = (
    (0.0, 1.0, 0.0, 1.0),
    (0.0, 0.94, 0.0, 1.0),  # captions and marks below and above
    (0.0, 0.88, 0.0, 1.0),
    (0.06, 1.0, 0.0, 1.0),
    (0.12, 1.0, 0.0, 1.0),
    (0.05, 0.95, 0.05, 0.95),  # a copy that was cut at all sides
    (0.1, 0.9, 0.1, 0.9),
    (0.05, 1.0, 0.05, 1.0),  # crops of two sides
    (0.05, 1.0, 0.0, 0.95),
    (0.0, 0.95, 0.05, 1.0),
    (0.0, 0.95, 0.0, 0.95),
)
UNCUT = 5
"""The first of them leave left and right as they are."""
COARSE = 12
"""Side at which all windows of both pictures are compared to find where alignment starts."""


@cache
def make_area_weights(cells: int, start: float, stop: float, side: int) -> Floats:
    """(cells, side): the mean over each of `cells` equal parts of [start, stop) of `side` pixels."""
    edges = np.linspace(start * side, stop * side, cells + 1)
    pixels = np.arange(side)
    shares = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: Floats = (np.maximum(shares, 0) / (edges[1] - edges[0])).astype(np.float32)
    return weights


def reduce_pictures(pixels: Floats, side: int) -> Floats:
    """(n, side, side): pictures with fewer pixels, or as they are where they have no more."""
    if pixels.shape[1] <= side:
        return pixels
    area = make_area_weights(side, 0.0, 1.0, pixels.shape[1])
    reduced: Floats = area @ pixels @ area.T
    return reduced


def choose_windows(one: Floats, other: Floats) -> tuple[Floats, Floats, Floats]:
    """(n, 4) each: the pair of windows that correlate best; and (n,) their correlation."""
    correlations = (make_views(one) @ make_views(other).transpose(0, 2, 1)).reshape(len(one), len(WINDOWS) ** 2)
    best = correlations.argmax(axis=1)
    windows = np.array(WINDOWS)
    return windows[best // len(WINDOWS)], windows[best % len(WINDOWS)], correlations.max(axis=1)


def make_views(pixels: Floats) -> Floats:
    """(n, windows, COARSE * COARSE): all windows, with mean 0 and norm 1."""
    side = pixels.shape[1]
    views = [
        make_area_weights(COARSE, top, bottom, side) @ pixels @ make_area_weights(COARSE, left, right, side).T
        for top, bottom, left, right in WINDOWS
    ]
    return normalise_values(np.stack(views, axis=1).reshape(len(pixels), len(WINDOWS), COARSE * COARSE))[0]


def normalise_values(values: Floats) -> tuple[Floats, Floats]:
    """Values with mean 0 and norm 1 along the last axis, and what they were divided by."""
    centred = values - values.mean(axis=-1, keepdims=True)
    norm = np.maximum(np.sqrt((centred * centred).sum(axis=-1, keepdims=True)), 1e-3)
    return centred / norm, norm


def sample_slopes(pixels: Floats, windows: Floats, blur: float, points: int) -> tuple[Floats, Floats, Floats]:
    """(n, points, points) each: windows sampled with a Gaussian kernel, and their derivatives by row and column."""
    side, blurs = pixels.shape[1], np.full(len(pixels), blur)
    rows, row_distance = _make_kernel(windows[:, 0], windows[:, 1], side, points, blurs)
    columns, column_distance = _make_kernel(windows[:, 2], windows[:, 3], side, points, blurs)
    across = pixels @ columns.transpose(0, 2, 1)
    sloping_rows, sloping_columns = (
        _differentiate_kernel(rows, row_distance / blur),
        _differentiate_kernel(columns, column_distance / blur),
    )
    return rows @ across, sloping_rows @ across, rows @ pixels @ sloping_columns.transpose(0, 2, 1)


def sample_windows(pixels: Floats, windows: Floats, blurs: Floats, points: int) -> Floats:
    """(n, points, points): the windows sampled with Gaussian kernels of (n, 2) standard deviations, down and across."""
    side = pixels.shape[1]
    rows, _ = _make_kernel(windows[:, 0], windows[:, 1], side, points, blurs[:, 0])
    columns, _ = _make_kernel(windows[:, 2], windows[:, 3], side, points, blurs[:, 1])
    sampled: Floats = rows @ pixels @ columns.transpose(0, 2, 1)
    return sampled


@cache
def compute_middles(count: int) -> Floats:
    """The middles of `count` equal parts of [0, 1)."""
    middles: Floats = (np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(count)
    return middles


def _make_kernel(start: Floats, stop: Floats, side: int, count: int, blurs: Floats) -> tuple[Floats, Floats]:
    """(n, count, side) each: weights of the pixels at points of [start, stop), and their distances.

    Distances are in standard deviations.

    Pixels outside the window weigh nothing.
    """
    start, stop, blurs = (each.astype(np.float32) for each in (start, stop, blurs))
    middles = compute_middles(side)
    points = start[:, None] + (stop - start)[:, None] * compute_middles(count)
    distance = (middles - points[:, :, None]) / blurs[:, None, None]
    inside = (middles > start[:, None] - 0.5 / side) & (middles < stop[:, None] + 0.5 / side)
    weights: Floats = np.exp(-0.5 * distance * distance) * inside[:, None, :] + 1e-12
    weights /= weights.sum(axis=2, keepdims=True)
    return weights, distance


def _differentiate_kernel(weights: Floats, pull: Floats) -> Floats:
    """The derivative of a kernel's weights by the point, given that of their logarithms."""
    slope: Floats = weights * pull
    slope -= weights * slope.sum(axis=2, keepdims=True)
    return slope
