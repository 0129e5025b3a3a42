"""Texts for dedupe: shingles, what finds candidates (MinHash bands, fingerprints), and the measures of similarity.

A text is folded (`core/compared_text.py`) and cut into tokens: a word, or one character where the script has no spaces
between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese). Punctuation, symbols and white space only separate. A
shingle is 5 consecutive tokens; a text of fewer tokens is one shingle. Similarity is the Jaccard index of the sets of
shingles; containment is the share of the smaller set that stands in the other.

All is done on arrays of code points, which takes half the time of hashing words one by one.
"""

from __future__ import annotations

import hashlib
import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vlmill.pipeline.core.compared_text import UNSPACED, clean_text, fold_text
from vlmill.pipeline.dedupe.hashing import GOLDEN, mix_bits

SHINGLE = 5
"""Tokens per shingle."""
BANDS, ROWS = 20, 6
"""MinHash bands and hashes per band; `find_probability` says which texts share a band."""
WINDOW = 16
"""Shingles of which one is a fingerprint: a power of two."""
TAIL = 0x40000
"""Code points from here on are unassigned or private; they separate."""

SEPARATOR, WORD, ALONE = 0, 1, 2


def make_text_key(text: str) -> int:
    """64 bits that name a text: equal for texts that differ in nothing that shows but white space.

    Among 141 million texts two others share a key with probability 0.0005.
    """
    return int.from_bytes(
        hashlib.blake2b(clean_text(text).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )


def hash_shingles(text: str) -> NDArray[np.uint32]:
    """The set of shingles of a text as sorted 32-bit hashes; empty for a text without a letter or digit. Pure.

    Two texts of 1,000 shingles each have two different shingles of one hash with probability 0.0003.
    """
    return shorten_hashes(hash_in_order(text))


def shorten_hashes(hashes: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The set of hashes, by their leading 32 bits, sorted; pure."""
    return np.unique((hashes >> np.uint64(32)).astype(np.uint32))


def hash_in_order(text: str) -> NDArray[np.uint64]:
    """A hash of each shingle of a text, in its order; pure.

    A shingle is hashed as a polynomial over its letters, read off a running sum over the text. A letter that starts a
    token counts as another one than the same letter within, so tokens are distinguished without a separator.
    """
    points = np.frombuffer(fold_text(text).encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _classify_characters()[np.minimum(points, TAIL)]
    letters = np.flatnonzero(kinds)
    if not letters.size:
        return np.empty(0, np.uint64)
    starting = kinds == ALONE
    starting[1:] |= kinds[1:] != kinds[:-1]
    starting[0] = True
    starting = starting[letters]
    symbols = _make_symbols()[points[letters] | (starting.astype(np.uint32) << np.uint32(18))]
    powers, inverse = _compute_powers(letters.size)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(symbols * powers, dtype=np.uint64)])
    starts = np.append(np.flatnonzero(starting), letters.size)
    first, stop = (starts[:-SHINGLE], starts[SHINGLE:]) if starts.size > SHINGLE else (starts[:1], starts[-1:])
    return mix_bits((sums[stop] - sums[first]) * inverse[first])


def choose_fingerprints(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Places of at least one shingle, in order, by which a text that is contained in another is found; pure.

    Winnowing (Schleimer, Wilkerson and Aiken, 2003): the least hash of every WINDOW shingles. So texts that have
    WINDOW + SHINGLE - 1 tokens in a row in common share a fingerprint, wherever they stand; about one shingle in 8 is
    kept.
    """
    least, width = hashes, 1
    while 2 * width <= min(WINDOW, hashes.size):
        least, width = np.minimum(least[:-width], least[width:]), 2 * width
    return mix_bits(np.unique(least if hashes.size >= WINDOW else hashes.min(keepdims=True)))


def find_probability(similarity: float) -> float:
    """How probable it is that two texts of a Jaccard index share a band, and so are measured: 0.998 at 0.8. Pure."""
    return float(1 - (1 - similarity**ROWS) ** BANDS)


def hash_bands(shingles: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """(BANDS,) hashes of a set of at least one shingle. Pure.

    Two sets agree in each with probability similarity ** ROWS.
    """
    smallest = (shingles[None, :] * _make_multipliers()[:, None]).min(axis=1)
    rows = smallest.reshape(BANDS, ROWS).astype(np.uint64)
    mixed = np.arange(1, BANDS + 1, dtype=np.uint64)
    for column in range(ROWS):
        mixed = mix_bits(mixed ^ rows[:, column])
    return mixed


def compute_jaccard(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
    """|A and B| / |A or B| of two sorted sets, of which at least one is not empty, to 4 decimals; pure."""
    common = np.intersect1d(one, other, assume_unique=True).size
    return round(common / (one.size + other.size - common), 4)


def compute_containment(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
    """|A and B| / min(|A|, |B|) of two sorted sets that are not empty (Broder, 1997), to 4 decimals; pure."""
    small, large = sorted((one, other), key=len)
    places = np.searchsorted(large, small).clip(max=large.size - 1)
    return round(int((large[places] == small).sum()) / small.size, 4)


@cache
def _classify_characters() -> NDArray[np.uint8]:
    """What each code point below TAIL is: letters, marks and numbers make words, unless they stand alone."""
    kinds = np.fromiter((unicodedata.category(chr(point))[0] in "LMN" for point in range(TAIL + 1)), np.uint8, TAIL + 1)
    for start, stop in UNSPACED:
        kinds[start : stop + 1] *= ALONE
    kinds[TAIL] = SEPARATOR
    return kinds


@cache
def _make_symbols() -> NDArray[np.uint64]:
    """A random number for each code point, within a token and at its start."""
    return mix_bits(np.arange(2 * TAIL, dtype=np.uint64))


@cache
def _make_multipliers() -> NDArray[np.uint32]:
    """Odd factors: multiplication by one permutes 32-bit values, so the smallest product is a MinHash."""
    return (mix_bits(np.arange(BANDS * ROWS, dtype=np.uint64)) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)


def _compute_powers(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """`count` powers of GOLDEN and of its inverse, modulo 2 ** 64."""
    size = 1 << max(10, (count - 1).bit_length())
    powers, inverse = _get_powers(size)
    return powers[:count], inverse[:count]


@cache
def _get_powers(size: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    bases = GOLDEN, pow(GOLDEN, -1, 1 << 64)
    powers, inverse = (
        np.cumprod(np.concatenate([[np.uint64(1)], np.full(size - 1, base, np.uint64)])) for base in bases
    )
    return powers, inverse
