"""How far two aligned pictures agree: cell by cell in what they show, and in their colours. Pure, each pair for itself.

A copy may be paler, darker or brighter than its original, or grey. So cells are compared by correlation, which sees
neither gain nor offset, and colours only where both pictures have some. What a picture shows in fine print counts as
much as what it shows in thick bars: pictures made from one template have the bars in common.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from vlmill.pipeline.dedupe.picture_windows import Floats

POINTS = 96
"""Points on a side at which pictures are compared."""
CELLS = 14
"""Cells on a side, of a ninth of it each, so that neighbours overlap."""
TELLING = 0.05
"""Variance of a cell, as a share of the picture's, at which it weighs half."""
USUAL, PALE = 8.0, 20.0
"""How many times the variance of the calmer three quarters of cells counts as that of the picture, and the standard
deviation that it has at least, if the picture has it."""
GRAIN = 0.06
"""Standard deviation, as a share of the picture's, under which a difference is no evidence ..."""
NOISE = 2.0
"""... or in levels of 255: what a JPEG adds."""
SHARED = 0.82
"""Share of a disagreement in the worst place that similarity keeps: the rest is lost, so that a block that only
one of two pictures shows counts however much they have in common."""
HIDDEN = 0.005
"""Similarity that is lost where a corner or an edge has to be left out."""
MARK = 0.24, 0.45
"""Height and width of a corner in which a watermark may lie, and ..."""
STRIP = 0.16
"""... height of a strip above or below that a caption may cover."""
POOR = 0.15, 0.25
"""Mean weight of cells under which a picture has little to show, and from which it has enough, so that its contrast
does not count: a pale square on white and a dark one are not the same."""
SATURATED = 243.0
"""Level from which a brightened picture may have lost what it shows."""
LOST = 0.02
"""Share of points that have to be saturated in one picture alone, for it to be looked at as a brightened one."""
LEFT = 0.12
"""Mean weight of the cells that has to be left then, and half of the share of what it was."""
CREDIT = 0.6
"""Share of a disagreement that counts in such a pair: what is left of a saturated cell says less."""
MOST_GAIN = 1.6
"""How much brighter one of two pictures may be."""
FEW = 0.33
"""Mean weight of cells under which a picture shows a shape or two, so that no corner of it may be left out."""
INSIDE = slice(3, CELLS - 3)
"""Cells that do not touch the outline of a shape that fills the picture."""
PLAIN, SIMPLE = 0.25, 0.4
"""Mean weight of these under which a picture is a plain shape, and under which a simple one. Where a shape lies on its
ground counts."""
OTHER, TONE = 0.2, 5.0
"""Share of points by which another tone is no blurred edge, and levels from which it is another."""
GREY = 4.0
"""Mean of chroma under which a picture is grey, and its colours do not count."""
SATURATION = 2.2
"""How much more colourful one picture may be."""
TINTED = 20.0
"""Levels of chroma by which colours may differ."""
SPOTS = 3
"""Cells of 64, besides those in a corner or at an edge, that may differ more: an edge of colour lies beside its cell
after alignment."""
TINTS = 8
"""Cells on a side by which colours are compared."""


def compare_luminance(one: Floats, other: Floats) -> Floats:
    """(n,): how far two samplings of luminance, (n, points, points), agree, up to 1."""
    found, telling = _compare_cells(one, other, np.ones_like(one))
    brighter = (one.mean(axis=(1, 2)) < other.mean(axis=(1, 2)))[:, None, None]
    dark, bright = np.where(brighter, one, other), np.where(brighter, other, one)
    saturated = (bright >= SATURATED).mean(axis=(1, 2)) - (dark >= SATURATED).mean(axis=(1, 2))
    rows = np.flatnonzero((saturated > LOST) & (found < 1 - HIDDEN))
    dark, bright = dark[rows], bright[rows]
    for most in (255 / np.maximum(dark, 1.0), 255 / _measure_light(dark)) if rows.size else ():
        brightened = dark * np.minimum(_estimate_gain(dark, bright, most)[:, None, None], most)
        lost = (brightened >= SATURATED) & (bright >= SATURATED) & (dark < SATURATED)
        seen, left = _compare_cells(brightened, bright, 1.0 - lost)
        enough = left >= np.maximum(LEFT, LEFT * 2 * telling[rows])
        found[rows] = np.maximum(found[rows], np.where(enough, 1 - (1 - seen) * CREDIT, 0.0))
    return found


def find_plain(one: Floats, other: Floats) -> NDArray[np.bool_]:
    """(n,): which pairs of samplings of luminance show no more than the same outline of a shape.

    Nor is a shape with a line or two in it that has another tone more than that.
    """
    telling = np.minimum(_weigh_inside(one), _weigh_inside(other))
    recoloured = (np.abs(one - other) > TONE).mean(axis=(1, 2)) > OTHER
    plain: NDArray[np.bool_] = (telling < PLAIN) | ((telling < SIMPLE) & recoloured)
    return plain


def _weigh_inside(pixels: Floats) -> Floats:
    """(n,): the mean weight of the cells inside."""
    centred = pixels - pixels.mean(axis=(1, 2), keepdims=True)
    whole, pool = np.maximum(centred.var(axis=(1, 2), keepdims=True), 1.0), _make_pool(pixels.shape[1])
    spread = pool @ (centred * centred) @ pool.T - (pool @ centred @ pool.T) ** 2
    spread = (np.maximum(spread - NOISE * NOISE, 0) / whole)[:, INSIDE, INSIDE]
    weights: Floats = (spread / (spread + TELLING)).mean(axis=(1, 2))
    return weights


def _compare_cells(one: Floats, other: Floats, shown: Floats) -> tuple[Floats, Floats]:
    """(n,): the weighted mean of the cells' agreement, less where they disagree most; the best over what is hidden.

    Also (n,): the mean weight of the cells.
    """
    (a, contrast, whole), (b, contrast_other, whole_other) = (_standardise_pictures(each) for each in (one, other))
    pool = _make_pool(one.shape[1])

    def average(values: Floats) -> Floats:
        pooled: Floats = (pool @ values @ pool.T).reshape(len(values), CELLS * CELLS)
        return pooled

    mean, mean_other = average(a), average(b)
    spread = np.maximum(average(a * a) - mean * mean, 0)
    spread_other = np.maximum(average(b * b) - mean_other * mean_other, 0)
    shared = average(a * b) - mean * mean_other
    grain = np.maximum(GRAIN, NOISE / contrast) * np.maximum(GRAIN, NOISE / contrast_other)
    agreement = ((shared + grain) / (np.sqrt(spread * spread_other) + grain)).clip(-1, 1)
    most = np.maximum(spread, spread_other)
    weight = most / (most + TELLING) * average(shown) ** 2 + 1e-9
    masks = _make_masks(CELLS)
    means = ((agreement * weight) @ masks.T) / (weight @ masks.T)
    worst = _find_worst(1 - (1 - agreement) * weight, masks)
    found: Floats = np.minimum(means, SHARED + (1 - SHARED) * worst)
    most = np.maximum(spread * (contrast / whole) ** 2, spread_other * (contrast_other / whole_other) ** 2)
    full = (most / (most + TELLING)).mean(axis=1)
    found[:, 1:] -= np.where(full < FEW, 1.0, HIDDEN)[:, None]
    return found.max(axis=1) * _compare_contrasts(full, whole[:, 0], whole_other[:, 0]), weight.mean(axis=1)


def _standardise_pictures(pixels: Floats) -> tuple[Floats, Floats, Floats]:
    """Pictures with mean 0, divided by their contrast; (n, 1) that contrast in levels; and (n, 1) standard deviations.

    Contrast is the standard deviation, or less where a few cells have most of it: a black bar below a pale picture must
    not hide what the picture shows.
    """
    centred = pixels - pixels.mean(axis=(1, 2), keepdims=True)
    whole, pool = centred.std(axis=(1, 2)), _make_pool(pixels.shape[1])
    spread = (pool @ (centred * centred) @ pool.T - (pool @ centred @ pool.T) ** 2).reshape(len(pixels), CELLS * CELLS)
    most = CELLS * CELLS * 3 // 4
    usual = np.sqrt(np.partition(np.maximum(spread, 0), most, axis=1)[:, :most].mean(axis=1) * USUAL)
    contrast = np.maximum(np.clip(usual, np.minimum(whole, PALE), whole), 1.0)[:, None]
    return centred / contrast[:, :, None], contrast, np.maximum(whole, 1.0)[:, None]


def _find_worst(cells: Floats, masks: Floats) -> Floats:
    """(n, masks): the least mean of four neighbouring cells that a mask leaves."""
    square = cells.reshape(-1, CELLS, CELLS)
    fours = (square[:, 1:, 1:] + square[:, :-1, 1:] + square[:, 1:, :-1] + square[:, :-1, :-1]) / 4
    left = masks.reshape(-1, CELLS, CELLS)
    whole = left[:, 1:, 1:] * left[:, :-1, 1:] * left[:, 1:, :-1] * left[:, :-1, :-1] > 0
    least = [np.where(mask, fours, 1.0).min(axis=(1, 2)) for mask in whole]
    return np.stack(least, axis=1)


def _compare_contrasts(telling: Floats, one: Floats, other: Floats) -> Floats:
    """(n,): 1 where enough is shown, else how near two contrasts are: 1 if equal, 0.8 if one is twice the other."""
    near = 2 * one * other / (one * one + other * other)
    few, enough = POOR
    counts = ((enough - telling) / (enough - few)).clip(0, 1)
    alike: Floats = 1 - counts * (1 - near)
    return alike


@cache
def _make_pool(points: int) -> Floats:
    """(CELLS, points): the mean over each cell."""
    size = -(-points // 9)
    starts = np.linspace(0, points - size, CELLS).round().astype(int)[:, None]
    places = np.arange(points)
    pool: Floats = (((places >= starts) & (places < starts + size)) / size).astype(np.float32)
    return pool


@cache
def _make_masks(cells: int) -> Floats:
    """(7, cells * cells): 1 where cells count: all of them, all but a corner, all but a strip above or below."""
    height, width, strip = (round(cells * share) for share in (*MARK, STRIP))
    first, last = slice(None, height), slice(cells - height, None)
    left, right, every = slice(None, width), slice(cells - width, None), slice(None)
    corners = ((first, left), (first, right), (last, left), (last, right))
    strips = ((slice(None, strip), every), (slice(cells - strip, None), every))
    masks = np.ones((7, cells, cells), np.float32)
    for mask, hidden in zip(masks[1:], (*corners, *strips), strict=True):
        mask[hidden] = 0
    return masks.reshape(7, cells * cells)


def _estimate_gain(dark: Floats, bright: Floats, most: Floats) -> Floats:
    """(n,): the gain at which the darker pictures have the mean of the brighter ones, up to MOST_GAIN."""
    wanted, gain = bright.mean(axis=(1, 2)), np.ones(len(dark))
    for _ in range(3):  # saturation swallows a part of each gain
        brightened = dark * np.minimum(gain[:, None, None], most)
        gain = (gain * wanted / np.maximum(brightened.mean(axis=(1, 2)), 1e-3)).clip(1, MOST_GAIN)
    return gain


def _measure_light(sampled: Floats) -> Floats:
    """The brightest of each point and its eight neighbours, at least 1.

    Where a picture is made brighter it saturates letter by letter, not point by point: of grey letters on white the
    letters alone become brighter. So a point gains no more than the ground that it lies on.
    """
    padded = np.pad(sampled, ((0, 0), (1, 1), (1, 1)), mode="edge")
    down = np.maximum(np.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    light: Floats = np.maximum(np.maximum(down[:, :, :-2], down[:, :, 1:-1]), down[:, :, 2:])
    return np.maximum(light, 1.0)


def find_tinted(one: Floats, other: Floats) -> NDArray[np.bool_]:
    """(n,): which pairs of samplings of chroma, (n, 8, 8, 2), differ in their colours; grey ones differ from none."""
    strengths = [np.sqrt((chroma * chroma).sum(axis=3).mean(axis=(1, 2))) for chroma in (one, other)]
    stronger = (strengths[0] > strengths[1])[:, None, None, None]
    strong, weak = np.where(stronger, one, other), np.where(stronger, other, one)
    least = np.maximum((weak * weak).sum(axis=(1, 2, 3)), 1e-6)
    factor = ((strong * weak).sum(axis=(1, 2, 3)) / least).clip(1, SATURATION)
    rest = strong - factor[:, None, None, None] * weak
    distances = np.sqrt((rest * rest).sum(axis=3)).reshape(len(one), 1, TINTS * TINTS)
    left = np.sort(distances * _make_masks(TINTS), axis=2)[:, :, -1 - SPOTS].min(axis=1)
    tinted: NDArray[np.bool_] = (np.minimum(*strengths) > GREY) & (left > TINTED)
    return tinted
