"""Words that a benchmark varies: the slots of its templates.

Where a benchmark asks `what colour is the large cube` and `what colour is the small cube`, another word in that place
makes another question. Such places are told by what stands around them: words between the same words in two questions
that are not the same there, and no more of them than stand around them. Of what no template made, some places look so
by chance; so a question with enough words that are its own has no slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmill.pipeline.decontaminate.words import Words, list_runs
from vlmill.pipeline.dedupe.hashing import mix_bits

AROUND = 3
"""Words on each side that have to be the same, or fewer where the question begins or ends."""


OWN = 8
"""Words of its own from which a question is no template's: PaLM's n-gram, as in words.py."""
SHARED = 3
"""Words of a run that are not a question's own if another question has it."""


def find_slots(questions: Sequence[Words]) -> list[NDArray[np.bool_]]:
    """Of each question of n words, (2 n + 1,): at odd places the words that vary, at even ones the gaps before them.

    A gap varies where some questions have words that others have not. Pure, and the order of questions does not
    matter.

    Args:
        questions: Of one benchmark.
    """
    edge = np.zeros(AROUND, np.uint64)
    whole = np.concatenate([edge, *(part for words in questions for part in (words.astype(np.uint64), edge))])
    sizes = np.array([words.size for words in questions], np.int64)
    firsts = np.cumsum(sizes + AROUND) - sizes
    starts = np.repeat(firsts, sizes + 1) + _count_up(sizes + 1)
    ends = np.repeat(firsts + sizes, sizes + 1)
    varied = np.zeros(2 * whole.size + 1, bool)
    begun, contexts, gaps = (list[NDArray[Any]]() for _ in range(3))
    lead = np.minimum(starts - np.repeat(firsts, sizes + 1), AROUND)
    for gap in range(2 * AROUND + 1):
        behind = ends - starts - gap
        begun.append(starts[(behind >= 0) & (lead + np.minimum(behind, AROUND) >= gap)])
        contexts.append(_hash_around(whole, begun[-1], gap))
        gaps.append(np.full(begun[-1].size, gap, np.uint64))
        for place in range(gap):
            varied[2 * (begun[-1][_find_varied(contexts[-1] + gaps[-1], whole[begun[-1] + place])] + place) + 1] = True
    first, stop = np.concatenate(begun), np.concatenate(gaps).astype(np.int64)
    around, differing = np.concatenate(contexts), (np.concatenate(gaps), whole[first], whole[first + stop - 1])
    changing = np.logical_and.reduce([_find_varied(around, words) for words in differing])
    for place in range(4 * AROUND + 1):
        varied[2 * first[changing & (place <= 2 * stop)] + place] = True
    slots = [varied[2 * first : 2 * (first + size) + 1] for first, size in zip(firsts, sizes, strict=True)]
    own = _find_own(questions)
    return [found & ((alone & ~found[1::2]).sum() < OWN) for found, alone in zip(slots, own, strict=True)]


def _find_own(questions: Sequence[Words]) -> list[NDArray[np.bool_]]:
    """Of each question which words stand in no run of SHARED words that another question has."""
    holders, starts, hashes = list_runs(questions, SHARED)
    names = dict[bytes, int]()
    numbers = np.array([names.setdefault(words.tobytes(), len(names)) for words in questions], np.uint64)
    shared = _find_varied(hashes, numbers[holders])
    own = [np.ones(words.size, bool) for words in questions]
    for holder, start in zip(holders[shared].tolist(), starts[shared].tolist(), strict=True):
        own[holder][start : start + SHARED] = False
    return own


def _count_up(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ... below each of the counts, one after the other."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if ends.size else 0) - np.repeat(ends - counts, counts)


def _hash_around(whole: NDArray[np.uint64], starts: NDArray[np.int64], gap: int) -> NDArray[np.uint64]:
    """A hash of the words before and behind the `gap` words from each start on."""
    hashes = np.full(starts.size, AROUND, np.uint64)
    for distance in range(AROUND):
        hashes = mix_bits(hashes ^ whole[starts - AROUND + distance])
        hashes = mix_bits(hashes ^ whole[starts + gap + distance])
    return hashes


def _find_varied(contexts: NDArray[np.uint64], words: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of the places stand in a context that has more than one word there."""
    _, firsts = np.unique(mix_bits(contexts ^ mix_bits(words)), return_index=True)
    found, counts = np.unique(contexts[firsts], return_counts=True)
    return np.isin(contexts, found[counts > 1])
