"""Pictures for dedupe: hashes of windows that find candidates, and the aligned correlation that measures them.

Both look at nothing but square luminance thumbnails and the pictures' sizes, so images are not decoded again. A copy
may be recompressed, resized, brightened, cropped a little or carry a caption: then a window of one picture shows what a
window of the other shows. Candidates and alignment need no more than 32 pixels a side; what distinguishes a copy from a
picture like it, such as the same dialogue in another language, shows at 64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vlmill.pipeline.dedupe.hashing import mix_bits

Thumbnails = NDArray[np.uint8]
"""(n, side, side) luminance, row-major."""
Floats = NDArray[np.float64]

WINDOWS = (
    (0.0, 1.0, 0.0, 1.0),  # top, bottom, left and right as shares of height and width
    (0.05, 0.95, 0.05, 0.95),  # a copy that lost its margins
    (0.0, 0.94, 0.0, 1.0),  # captions below and above
    (0.0, 0.88, 0.0, 1.0),
    (0.06, 1.0, 0.0, 1.0),
    (0.12, 1.0, 0.0, 1.0),
    (0.05, 1.0, 0.05, 1.0),  # crops of two sides
    (0.05, 1.0, 0.0, 0.95),
    (0.0, 0.95, 0.05, 1.0),
    (0.0, 0.95, 0.0, 0.95),
)
TABLE_BITS = 3
"""Eight orders of the hash bits: copies that differ in the first bits of one order agree in those of another."""
HASH_BITS = 64 - TABLE_BITS
GROUP_BITS = TABLE_BITS + 10
"""Leading bits of a place that candidates share: among 14,000 files that finds 0.99 of the pictures that lost 5 % of
each side, and more of all other copies. The cap lets 25 bits count among 353 million: then it is 0.92."""
NEAR_BITS = 10
"""Most differing bits of a candidate pair's hashes: one in 500 altered copies has more, and hardly a pair with 11 or 12
is a copy."""
FLAT = 3.0
"""Standard deviation of luminance under which a picture shows nothing to compare."""

FLOOR = 0.9
"""Least similarity that is returned. Pairs that cannot reach it are given up on the way, and returned as 0."""
DISTORTED = 2.0
"""How much longer one picture may be in proportion than its copy. Sites squeeze wide pictures into squares; a scroll
bar is no dialogue."""
COARSE = 12
"""Side at which all windows of both pictures are compared to find where alignment starts."""
SMALL = 32
"""Most pixels a side for all that comes before the last looks."""
HOPELESS = 0.8
"""Correlation at COARSE under which a pair is given up: of altered copies one in a thousand has less, of pairs of
altered ones one in 150."""
PROMISING = 0.9
"""Correlation at SMALL pixels, by windows or by alignment, under which a pair is given up: one in 300 pairs of altered
copies has less."""
CERTAIN = 0.99
"""Correlation from which nothing better is looked for."""
REACH = 0.06
"""How far alignment may move an edge of the window it starts from: as far as windows lie apart."""
LEVELS = ((16, 1 / 16, 2, 0.4), (SMALL, 1 / 32, 2, PROMISING), (None, 1 / 64, 1, 0.0))
"""Steps of alignment, from coarse to fine: most pixels a side (all for None), standard deviation of the sampling kernel
as a share of the picture, how many steps, and the correlation before the last of them under which a pair is given up.
"""
GAINS = (1.05, 1.1, 1.2)
"""How much brighter one picture may be where that saturates, beside what their means say. Without saturation
correlation does not see a gain."""
RESOLVED = 0.6
"""Standard deviation of the kernel at which pictures are compared, in pixels of the smaller one: finer things only the
other shows."""


def stack_pictures(pixels: Sequence[bytes]) -> Thumbnails:
    """Square pictures of one size as one array."""
    side = math.isqrt(len(pixels[0])) if pixels else 1
    return np.frombuffer(b"".join(pixels), np.uint8).reshape(len(pixels), side, side)


def make_evidence(thumbnails: Thumbnails, sizes: NDArray[np.int32]) -> NDArray[np.void]:
    """What similarity is measured on: (n,) records of a thumbnail and of (height, width) of the picture."""
    fields = np.dtype([("thumbnail", np.uint8, thumbnails.shape[1:]), ("size", np.int32, (2,))])
    records = np.empty(len(thumbnails), fields)
    records["thumbnail"], records["size"] = thumbnails, sizes
    return records


def find_flat(thumbnails: Thumbnails) -> NDArray[np.bool_]:
    """Which of n pictures show nothing to compare."""
    spread: Floats = thumbnails.std(axis=(1, 2))
    return spread < FLAT


def hash_places(thumbnails: Thumbnails) -> NDArray[np.uint64]:
    """Where each of n pictures is filed: (n, tables x windows); pure, and each picture for itself.

    A place is the number of a table, then HASH_BITS signs of the lowest frequencies of a DCT-II of one window, in the
    order of that table (the perceptual hash of Zauner, 2010, with the sign in place of the median). Sorted by place,
    neighbours agree in the leading bits.
    """
    batches = range(0, max(1, len(thumbnails)), 256)
    signs = np.concatenate([_compute_signs(thumbnails[start : start + 256]) for start in batches])
    weights = np.uint64(1) << np.arange(HASH_BITS, dtype=np.uint64)
    filed = []
    for table in range(1 << TABLE_BITS):
        order = np.argsort(mix_bits(np.arange(64 * table, 64 * table + HASH_BITS, dtype=np.uint64)))
        hashes = (signs[..., order] * weights).sum(axis=-1, dtype=np.uint64)
        filed.append(hashes | np.uint64(table << HASH_BITS))
    return np.concatenate(filed, axis=1)


def measure_similarity(one: Thumbnails, other: Thumbnails, sizes: tuple[Floats, Floats] | None = None) -> Floats:
    """How alike n pairs of pictures are: (n,) correlations to 4 decimals from FLOOR on, else 0.

    Pure, and each pair for itself.

    The best of all pairs of windows is refined by Gauss-Newton steps over the edges of a window (after Lucas and
    Kanade, 1981). It does not matter which of the two was cut.

    Args:
        one: The first picture of each pair.
        other: The second ones, of the same side.
        sizes: (n, 2) height and width of the first and of the second pictures before they became thumbnails; large
            squares if not given.
    """
    found = np.zeros(len(one))
    ours, theirs = sizes or (np.full((len(one), 2), np.inf), np.full((len(one), 2), np.inf))
    rows = np.arange(len(one)) if sizes is None else np.flatnonzero(_measure_distortion(ours, theirs) <= DISTORTED)
    pixels = np.minimum(ours, theirs)[rows]
    a, b = one[rows].astype(np.float64), other[rows].astype(np.float64)
    found[rows] = _measure_similarity(a, b, pixels)
    return np.where(found >= FLOOR, found, 0.0).round(4)


def _measure_distortion(one: Floats, other: Floats) -> Floats:
    """(n,): by how much the ratio of height to width is another, at least 1."""
    change: Floats = (one[:, 0] * other[:, 1]) / (one[:, 1] * other[:, 0])
    return np.maximum(change, 1 / change)


def _measure_similarity(one: Floats, other: Floats, pixels: Floats) -> Floats:
    """(n,): correlations; less than FLOOR where a pair was given up."""
    found = np.zeros(len(one))
    small, small_other = _reduce_pictures(one, SMALL), _reduce_pictures(other, SMALL)
    first, second, best = choose_windows(small, small_other)
    hopeful = np.flatnonzero(best >= HOPELESS)
    as_they_lie = _compare_windows(*(x[hopeful] for x in (small, small_other, first, second, pixels)))
    rows = hopeful[as_they_lie >= PROMISING]
    found[rows] = _compare_windows(*(x[rows] for x in (one, other, first, second, pixels)))
    rows = hopeful[found[hopeful] < CERTAIN]
    going, first, second = align_pairs(*(x[rows] for x in (one, other, first, second)))
    rows = rows[going]
    found[rows] = np.maximum(found[rows], _compare_windows(one[rows], other[rows], first, second, pixels[rows]))
    return found


def _compute_signs(thumbnails: Thumbnails) -> NDArray[np.bool_]:
    """(n, windows, HASH_BITS) signs of the lowest frequencies but the mean, and but the highest ones."""
    side, pixels, frequencies = thumbnails.shape[1], thumbnails.astype(np.float64), _make_cosines(32, 8)
    signs = []
    for top, bottom, left, right in WINDOWS:
        rows, columns = (
            frequencies @ _make_area_weights(32, top, bottom, side),
            frequencies @ _make_area_weights(32, left, right, side),
        )
        waves = (rows @ pixels @ columns.T).reshape(-1, 64)
        signs.append(waves[:, 1 : 1 + HASH_BITS].round(6) > 0)
    return np.stack(signs, axis=1)


@cache
def _make_cosines(size: int, count: int) -> Floats:
    """The `count` lowest frequencies of a DCT-II of `size` values."""
    waves: Floats = np.cos(np.pi * np.outer(np.arange(count), 2 * np.arange(size) + 1) / (2 * size))
    return waves


@cache
def _make_area_weights(cells: int, start: float, stop: float, side: int) -> Floats:
    """(cells, side): the mean over each of `cells` equal parts of [start, stop) of `side` pixels."""
    edges = np.linspace(start * side, stop * side, cells + 1)
    pixels = np.arange(side)
    shares = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: Floats = np.maximum(shares, 0) / (edges[1] - edges[0])
    return weights


def choose_windows(one: Floats, other: Floats) -> tuple[Floats, Floats, Floats]:
    """(n, 4) each: the pair of windows that correlate best; and (n,) their correlation."""
    correlations = (_make_views(one) @ _make_views(other).transpose(0, 2, 1)).reshape(len(one), len(WINDOWS) ** 2)
    best = correlations.argmax(axis=1)
    windows = np.array(WINDOWS)
    return windows[best // len(WINDOWS)], windows[best % len(WINDOWS)], correlations.max(axis=1)


def _make_views(pixels: Floats) -> Floats:
    """(n, windows, COARSE * COARSE): all windows, with mean 0 and norm 1."""
    side = pixels.shape[1]
    views = [
        _make_area_weights(COARSE, top, bottom, side) @ pixels @ _make_area_weights(COARSE, left, right, side).T
        for top, bottom, left, right in WINDOWS
    ]
    return _normalise_values(np.stack(views, axis=1).reshape(len(pixels), len(WINDOWS), COARSE * COARSE))[0]


def _normalise_values(values: Floats) -> tuple[Floats, Floats]:
    """Values with mean 0 and norm 1 along the last axis, and what they were divided by."""
    centred = values - values.mean(axis=-1, keepdims=True)
    norm = np.maximum(np.sqrt((centred * centred).sum(axis=-1, keepdims=True)), 1e-3)
    return centred / norm, norm


def align_pairs(one: Floats, other: Floats, first: Floats, second: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """The pairs that are not given up, and their windows, moved so that both show the same: (m,), (m, 4) and (m, 4).

    The first one's window is moved; where it would leave the picture, both lose what the first does not show.
    """
    going, low, high = np.arange(len(one)), first - REACH, first + REACH
    for side, blur, steps, least in LEVELS:
        picture, pattern = _reduce_pictures(one[going], side), _reduce_pictures(other[going], side)
        blurs, agreement = np.full((len(going), 2), blur), np.ones(len(going))
        for _ in range(steps):
            step, agreement = _compute_step(
                *sample_windows(picture, first, blur), _sample_windows(pattern, second, blurs, picture.shape[1] // 2)
            )
            first, second = _select_shared_windows((first + step).clip(low, high), second)
        kept = agreement >= least
        going = going[kept]
        low, high, first, second = (edges[kept] for edges in (low, high, first, second))
    return going, first, second


def _select_shared_windows(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Windows that show the same, without what lies outside the first picture."""
    first, second = first.reshape(-1, 2, 2), second.reshape(-1, 2, 2)  # by axis, then by end
    inside = first.clip(0, 1)
    shares = (inside - first[:, :, :1]) / np.diff(first, axis=2)
    kept: Floats = second[:, :, :1] + shares * np.diff(second, axis=2)
    return inside.reshape(-1, 4), kept.reshape(-1, 4)


def _reduce_pictures(pixels: Floats, most: int | None) -> Floats:
    """Pictures with at most so many pixels a side."""
    side = pixels.shape[1]
    if most is None or side <= most:
        return pixels
    area = _make_area_weights(most, 0.0, 1.0, side)
    reduced: Floats = area @ pixels @ area.T
    return reduced


def sample_windows(pixels: Floats, windows: Floats, blur: float) -> tuple[Floats, Floats, Floats]:
    """(n, points, points) each: windows sampled with a Gaussian kernel, and their derivatives by row and column."""
    side, blurs = pixels.shape[1], np.full(len(pixels), blur)
    rows, row_distance = _make_kernel(windows[:, 0], windows[:, 1], side, side // 2, blurs)
    columns, column_distance = _make_kernel(windows[:, 2], windows[:, 3], side, side // 2, blurs)
    across = pixels @ columns.transpose(0, 2, 1)
    sloping_rows, sloping_columns = (
        _differentiate_kernel(rows, row_distance / blur),
        _differentiate_kernel(columns, column_distance / blur),
    )
    return rows @ across, sloping_rows @ across, rows @ pixels @ sloping_columns.transpose(0, 2, 1)


def _sample_windows(pixels: Floats, windows: Floats, blurs: Floats, points: int) -> Floats:
    """(n, points, points): the windows sampled with Gaussian kernels of (n, 2) standard deviations, down and across."""
    side = pixels.shape[1]
    rows, _ = _make_kernel(windows[:, 0], windows[:, 1], side, points, blurs[:, 0])
    columns, _ = _make_kernel(windows[:, 2], windows[:, 3], side, points, blurs[:, 1])
    sampled: Floats = rows @ pixels @ columns.transpose(0, 2, 1)
    return sampled


def _make_kernel(start: Floats, stop: Floats, side: int, count: int, blurs: Floats) -> tuple[Floats, Floats]:
    """(n, count, side) each: weights of the pixels at points of [start, stop), and their distances.

    Distances are in standard deviations.

    Pixels outside the window weigh nothing.
    """
    points = start[:, None] + (stop - start)[:, None] * _compute_middles(count)
    distance = (_compute_middles(side) - points[:, :, None]) / blurs[:, None, None]
    inside = (_compute_middles(side) > start[:, None] - 0.5 / side) & (
        _compute_middles(side) < stop[:, None] + 0.5 / side
    )
    weights: Floats = np.exp(-0.5 * distance * distance) * inside[:, None, :] + 1e-12
    weights /= weights.sum(axis=2, keepdims=True)
    return weights, distance


def _differentiate_kernel(weights: Floats, pull: Floats) -> Floats:
    """The derivative of a kernel's weights by the point, given that of their logarithms."""
    slope: Floats = weights * pull
    slope -= weights * slope.sum(axis=2, keepdims=True)
    return slope


def _compute_middles(count: int) -> Floats:
    """The middles of `count` equal parts of [0, 1)."""
    return (np.arange(count) + 0.5) / count


def _compute_step(shown: Floats, down: Floats, right: Floats, target: Floats) -> tuple[Floats, Floats]:
    """The step of (top, bottom, left, right), (n, 4), that brings what is shown closer to the target.

    Also (n,): the correlation before the step.
    """
    count, points = shown.shape[:2]
    share = _compute_middles(points)
    (a, norm), (b, _) = (_normalise_values(picture.reshape(count, points * points)) for picture in (shown, target))
    agreement = (a * b).sum(axis=1)
    by_edge = [down * (1 - share)[:, None], down * share[:, None], right * (1 - share), right * share]
    slopes = np.stack(by_edge, axis=1).reshape(count, 4, points * points) / norm[:, None]
    slopes = slopes - slopes.mean(axis=2, keepdims=True)
    slopes = slopes - (slopes @ a[:, :, None]) * a[:, None, :]
    hessian = slopes @ slopes.transpose(0, 2, 1)
    damping = np.eye(4) * (1e-6 + 0.01 * hessian.diagonal(axis1=1, axis2=2)[:, :, None])
    towards = slopes @ (b - a * agreement[:, None])[:, :, None]
    step: Floats = np.linalg.solve(hessian + damping, towards)[:, :, 0]
    return step.clip(-0.05, 0.05), agreement


def _compare_windows(one: Floats, other: Floats, first: Floats, second: Floats, pixels: Floats) -> Floats:
    """(n,): the correlation of two windows, as they are or with the darker one as bright as the other."""
    blurs = np.maximum(0.5 / one.shape[1], RESOLVED / pixels)
    points = one.shape[1] * 3 // 4
    shown, target = _sample_windows(one, first, blurs, points), _sample_windows(other, second, blurs, points)
    telling = _compute_moments(shown, target)[1].max(axis=0) >= FLAT * FLAT
    telling[:, 0] = True
    best = _correlate_samplings(shown, target, telling)
    unsure = np.flatnonzero(best < CERTAIN)
    shown, target, telling = shown[unsure], target[unsure], telling[unsure]
    lighter = (shown.mean(axis=(1, 2)) > target.mean(axis=(1, 2)))[:, None, None]
    dark, bright = np.where(lighter, target, shown), np.where(lighter, shown, target)
    for brightened in _brighten_pictures(dark, bright):
        best[unsure] = np.maximum(best[unsure], _correlate_samplings(brightened, bright, telling))
    return best


def _brighten_pictures(dark: Floats, bright: Floats) -> Iterator[Floats]:
    """The darker pictures with each gain, and with the one at which they have the mean of the brighter ones."""
    most, wanted, gain = 255 / _measure_light(dark), bright.mean(axis=(1, 2)), np.ones(len(dark))
    for _ in range(3):  # saturation swallows a part of each gain
        brightened = dark * np.minimum(gain[:, None, None], most)
        gain = (gain * wanted / np.maximum(brightened.mean(axis=(1, 2)), 1e-3)).clip(1, max(GAINS))
    yield from (dark * np.minimum(gain, most) for gain in (gain[:, None, None], *GAINS))


def _measure_light(sampled: Floats) -> Floats:
    """The brightest of each point and its eight neighbours, at least 1.

    Where a picture is made brighter it saturates letter by letter, not point by point: of grey letters on white the
    letters alone become brighter. So a point gains no more than the ground that it lies on.
    """
    padded = np.pad(sampled, ((0, 0), (1, 1), (1, 1)), mode="edge")
    down = np.maximum(np.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    light: Floats = np.maximum(np.maximum(down[:, :, :-2], down[:, :, 1:-1]), down[:, :, 2:])
    return np.maximum(light, 1.0)


def _correlate_samplings(one: Floats, other: Floats, telling: NDArray[np.bool_]) -> Floats:
    """(n,): correlations of two samplings, with the mean of the variances in place of their geometric mean.

    So contrast counts: a pale square and a dark one, each on white, are not the same, as copies keep their contrast.
    What counts is the least of the correlation of the windows and of what is left of them without the top or the bottom
    eighth, where that shows anything (`telling`): two pictures are not the same for having the same caption.
    """
    shared, spreads = _compute_moments(one, other)
    correlations = shared / np.maximum(spreads, FLAT * FLAT).mean(axis=0)
    least: Floats = np.where(telling, correlations, 1.0).min(axis=1)
    return least


def _compute_moments(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Covariance (n, 3) and variances (2, n, 3) of two samplings.

    Of all points, without the top eighth, and without the bottom eighth.
    """
    points = one.shape[1]
    eighth = points // 8
    rows = np.stack([one, other, one * one, other * other, one * other]).sum(axis=3)
    sums = [rows.sum(axis=2), rows[:, :, eighth:].sum(axis=2), rows[:, :, : points - eighth].sum(axis=2)]
    a, b, aa, bb, ab = np.stack(sums, axis=2) / (points * np.array([points, points - eighth, points - eighth]))
    return ab - a * b, np.stack([aa - a * a, bb - b * b])
