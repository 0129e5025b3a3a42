"""Where pictures are filed so that similar ones meet: hashes of windows. Pure, and each picture for itself."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from vlmill.pipeline.dedupe.hashing import mix_bits
from vlmill.pipeline.dedupe.picture_windows import WINDOWS, Floats, make_area_weights

TABLE_BITS = 3
"""Eight orders of the hash bits: copies that differ in the first bits of one order agree in those of another."""
HASH_BITS = 64 - TABLE_BITS
GROUP_BITS = TABLE_BITS + 10
"""Leading bits of a place that candidates share: among 14,000 files that finds 0.99 of the pictures that lost 5 % of
each side, and more of all other copies. The cap lets 25 bits count among 353 million: then it is 0.92."""
NEAR_BITS = 10
"""Most differing bits of a candidate pair's hashes: one in 500 altered copies has more, and hardly a pair with 11 or 12
is a copy."""


def hash_places(pixels: Floats, windows: int = len(WINDOWS)) -> NDArray[np.uint64]:
    """Where each of n pictures of luminance is filed: (n, tables x windows), by the first of WINDOWS.

    A place is the number of a table, then HASH_BITS signs of the lowest frequencies of a DCT-II of one window, in the
    order of that table (the perceptual hash of Zauner, 2010, with the sign in place of the median). Sorted by place,
    neighbours agree in the leading bits.
    """
    batches = range(0, max(1, len(pixels)), 256)
    signs = np.concatenate([_compute_signs(pixels[start : start + 256], windows) for start in batches])
    weights = np.uint64(1) << np.arange(HASH_BITS, dtype=np.uint64)
    filed = []
    for table in range(1 << TABLE_BITS):
        order = np.argsort(mix_bits(np.arange(64 * table, 64 * table + HASH_BITS, dtype=np.uint64)))
        hashes = (signs[..., order] * weights).sum(axis=-1, dtype=np.uint64)
        filed.append(hashes | np.uint64(table << HASH_BITS))
    return np.concatenate(filed, axis=1)


def _compute_signs(pixels: Floats, windows: int) -> NDArray[np.bool_]:
    """(n, windows, HASH_BITS) signs of the lowest frequencies but the mean, and but the highest ones."""
    side, frequencies = pixels.shape[1], _make_cosines(32, 8)
    signs = []
    for top, bottom, left, right in WINDOWS[:windows]:
        rows, columns = (
            frequencies @ make_area_weights(32, top, bottom, side),
            frequencies @ make_area_weights(32, left, right, side),
        )
        waves = (rows @ pixels @ columns.T).reshape(-1, 64)
        signs.append(waves[:, 1 : 1 + HASH_BITS].round(6) > 0)
    return np.stack(signs, axis=1)


@cache
def _make_cosines(size: int, count: int) -> Floats:
    """The `count` lowest frequencies of a DCT-II of `size` values."""
    waves: Floats = np.cos(np.pi * np.outer(np.arange(count), 2 * np.arange(size) + 1) / (2 * size))
    return waves
