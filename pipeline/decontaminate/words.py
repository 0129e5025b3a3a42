"""Words for decontamination: how a text is cut into them, and runs of them as numbers.

Words are those of `core/compared_text.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vlmill.pipeline.core.compared_text import UNSPACED, split_words
from vlmill.pipeline.dedupe.hashing import mix_bits

RUN = 8
"""Words of a run: an n-gram's n."""

UNKNOWN = 0
"""Stands for a word that no benchmark has. No run holds one."""

Words = NDArray[np.uint32]
"""Numbers of words, from 1 in the order of the vocabulary."""


def weigh_word(word: str) -> float:
    """The weight of a word: half for a character of a script without spaces, whose words have about two."""
    return 0.5 if len(word) == 1 and any(start <= ord(word) <= stop for start, stop in UNSPACED) else 1.0


def number_words(texts: Sequence[str], vocabulary: Mapping[str, int]) -> Words:
    """The words of `texts` by number."""
    return np.array([vocabulary.get(word, UNKNOWN) for text in texts for word in split_words(text)], np.uint32)


def find_runs(sequence: Words) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Where runs of RUN known words start, and their hashes; pure."""
    if sequence.size < RUN:
        return np.empty(0, np.int64), np.empty(0, np.uint64)
    known = np.concatenate([[0], np.cumsum(sequence != UNKNOWN)])
    starts = np.flatnonzero(known[RUN:] - known[:-RUN] == RUN)
    hashes = np.full(starts.size, RUN, np.uint64)
    for place in range(RUN):
        hashes = mix_bits(hashes ^ sequence[starts + place].astype(np.uint64))
    return starts, hashes


def find_sequence(wanted: Words, sequence: Words) -> NDArray[np.int64]:
    """Where `wanted`, at least one word, stands in `sequence`; pure."""
    if not 0 < wanted.size <= sequence.size:
        return np.empty(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(sequence, wanted.size)
    return np.flatnonzero((windows == wanted).all(axis=1))
