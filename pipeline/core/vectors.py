"""Vectors of length 1 as whole numbers, so that cosines are the same bits on every machine and in any order of sums.

A component is a multiple of 1 / SCALE. A product of two vectors, and every part of its sum, is a whole number of at
most SCALE ** 2 in absolute value (Cauchy and Schwarz), which float32 holds exactly: so a matrix product by whatever
library, in whatever order, gives the exact number. The error of a cosine is about 0.0001, which is where values are
rounded. Embeddings become such vectors where they are grouped (steps/clusters.py) and compared (dedupe/semantic.py).
"""

from __future__ import annotations

import numpy as np

SCALE = 4000
"""Its square, and that of what rounding adds to a length, is below 2 ** 24 for up to LONGEST components."""
LONGEST = 32_768
"""Components of a vector at most."""
DIGITS = 4
"""Of a cosine."""


def quantise_vectors(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, length) of float16 or float32 as int16, scaled to the length SCALE; zeros stay zeros. Pure.

    Raises:
        ValueError: they have more than LONGEST components.
    """
    if vectors.shape[1] > LONGEST:
        raise ValueError(f"vectors of {vectors.shape[1]} components; {LONGEST} at most can be compared exactly")
    wide = vectors.astype(np.float64)
    lengths = np.sqrt((wide * wide).sum(1, keepdims=True))
    whole: np.ndarray = np.rint(wide / np.where(lengths > 0, lengths, 1) * SCALE).astype(np.int16)
    return whole


def measure_lengths(whole: np.ndarray) -> np.ndarray:
    """The lengths (n,) of quantised vectors, float64; 1 of a vector of zeros, whose cosine with any other is 0."""
    squares = np.einsum("ij,ij->i", whole, whole, dtype=np.int64)
    lengths: np.ndarray = np.sqrt(np.maximum(squares, 1).astype(np.float64))
    return lengths


def multiply_vectors(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The products (n, m) of quantised vectors (n, length) and (m, length), exact, as float32."""
    products: np.ndarray = one.astype(np.float32) @ other.astype(np.float32).T
    return products


def round_cosines(products: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Cosines to DIGITS decimals (float64) from products, and the products of the lengths; 1 at most."""
    cosines = np.round(products.astype(np.float64) / lengths, DIGITS)
    bounded: np.ndarray = np.minimum(cosines, 1) + 0.0  # no -0.0
    return bounded
