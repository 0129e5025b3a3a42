"""The one hash that dedupe derives everything from. Fixed for good: it decides which candidates meet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15


def mix_bits(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A permutation of 64-bit values in which every bit depends on every other.

    splitmix64's (Steele, Lea and Flood, 2014).
    """
    values = values + np.uint64(GOLDEN)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
