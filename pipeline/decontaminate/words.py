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

SHORT_RUN = 4
"""Words of a run by which a question is found that has a word changed: of 8 words 4 in a row are left."""

UNKNOWN = 0
"""Stands for a word that no benchmark has. No run holds one."""
UNKNOWN_NUMBER = 0xFFFFFFFF
"""The same, for a word with a digit."""

Words = NDArray[np.uint32]
"""Numbers of words, from 1 in the order of the vocabulary."""


def weigh_word(word: str) -> float:
    """The weight of a word: half for a character of a script without spaces, whose words have about two."""
    return 0.5 if len(word) == 1 and any(start <= ord(word) <= stop for start, stop in UNSPACED) else 1.0


def number_words(texts: Sequence[str], vocabulary: Mapping[str, int]) -> Words:
    """The words of `texts` by number."""
    words = (word for text in texts for word in split_words(text))
    return np.array([vocabulary.get(word) or _number_unknown(word) for word in words], np.uint32)


def has_digit(word: str) -> bool:
    """Whether a word is a number, or part of one; pure."""
    return any(letter.isdigit() for letter in word)


def _number_unknown(word: str) -> int:
    return UNKNOWN_NUMBER if has_digit(word) else UNKNOWN


def find_runs(sequence: Words, length: int = RUN) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Where runs of so many known words start, and their hashes; pure."""
    if sequence.size < length:
        return np.empty(0, np.int64), np.empty(0, np.uint64)
    known = np.concatenate([[0], np.cumsum((sequence != UNKNOWN) & (sequence != UNKNOWN_NUMBER))])
    starts = np.flatnonzero(known[length:] - known[:-length] == length)
    hashes = np.full(starts.size, length, np.uint64)
    for place in range(length):
        hashes = mix_bits(hashes ^ sequence[starts + place].astype(np.uint64))
    return starts, hashes


def list_runs(texts: Sequence[Words], length: int) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.uint64]]:
    """The runs of all texts: the row of each one's text, where it starts there, and its hash."""
    found = [find_runs(words, length) for words in texts]
    holders = np.repeat(np.arange(len(texts), dtype=np.uint32), [starts.size for starts, _ in found])
    starts = np.concatenate([np.empty(0, np.int64), *(starts for starts, _ in found)])
    return holders, starts, np.concatenate([np.empty(0, np.uint64), *(hashes for _, hashes in found)])


def find_sequence(wanted: Words, sequence: Words) -> NDArray[np.int64]:
    """Where `wanted`, at least one word, stands in `sequence`; pure."""
    if not 0 < wanted.size <= sequence.size:
        return np.empty(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(sequence, wanted.size)
    return np.flatnonzero((windows == wanted).all(axis=1))
