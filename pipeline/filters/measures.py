"""What a text is like, in numbers: the measures behind the filter `text_quality`.

All are pure, and 0 for an empty text.

The formulas are those of the ROOTS corpus (Laurencon et al. 2022, arXiv:2303.03915, appendix on filtering;
`filtering.py` of bigscience-workshop/data-preparation) as OBELICS uses them (Laurencon et al. 2023, arXiv:2306.16527,
appendix A.2; `web_document_filtering.py`), so thresholds that were published for them hold here; unreadable characters
are our own. Two things differ:

- Special characters and punctuation are Unicode's categories, not lists: all that is no letter or mark, and all of P.
- Scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) need no tokenizer: every two characters count as
  a word, for
  Chinese words have 1.6 characters on average. Counts of words there are approximate, and word lists have no use.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from math import isqrt

import numpy as np

CHARACTERS = 10  # of the runs whose repetition counts
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, of many bits: 2^64 over the golden ratio
WORDS = 5  # of the runs of words whose repetition counts

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
UNREADABLE = frozenset({"Cc", "Cn", "Co", "Cs"})

_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]+)"
)
_PIECE = re.compile(r"[\w']+")


class _Categories(dict[str, str]):
    """A character's Unicode category, looked up once."""

    def __missing__(self, character: str) -> str:
        """Remember a character that is new."""
        self[character] = "Cc" if character == UNKNOWN else unicodedata.category(character)
        return self[character]


_CATEGORY = _Categories()


def split_words(text: str) -> list[str]:
    """What stands between spaces, in lower case, without special characters at its ends.

    Numbers and signs are no words.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    found: list[str] = []
    for piece in text.lower().split():
        word = _strip_piece(piece)
        if word.isascii() or not _UNSPACED.search(word):
            found += [word] if word else []
        else:
            found += [pair for run in _UNSPACED.split(word) for pair in _split_into_pairs(run)]
    return found


def measure_character_repetition(text: str) -> float:
    """Share of the most frequent runs of 10 characters among all, if they repeat.

    As many kinds of runs count as the square root of the number of all kinds.

    Runs are distinguished by 64-bit hashes: five times as fast as by themselves.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    total = len(codes) - CHARACTERS + 1
    if total < 1:
        return 0.0
    runs = np.zeros(total, np.uint64)
    for start in range(CHARACTERS):
        runs = runs * MULTIPLIER + codes[start : start + total]
    numbers = np.sort(np.unique(runs, return_counts=True)[1])[::-1]
    most = min(isqrt(len(numbers)), int(np.count_nonzero(numbers > 1)))
    return int(numbers[:most].sum()) / total


def measure_word_repetition(words: Sequence[str]) -> float:
    """Share of the runs of 5 words that come more than once."""
    runs = Counter(zip(*(words[start:] for start in range(WORDS)), strict=False))
    return sum(number for number in runs.values() if number > 1) / max(runs.total(), 1)


def measure_special_characters(text: str) -> float:
    """Share of the characters that are neither letters nor marks: spaces, digits, punctuation, symbols, emoji."""
    return sum(_CATEGORY[character][0] not in "LM" for character in text) / max(len(text), 1)


def measure_unreadable_characters(text: str) -> float:
    """Share of characters that stand for nothing: controls, private use, unassigned, the replacement character."""
    if UNKNOWN not in text and text.replace("\n", "").isprintable():  # most texts are, and this takes no time
        return 0.0
    return sum(_CATEGORY[character] in UNREADABLE and not character.isspace() for character in text) / len(text)


def measure_punctuation(text: str) -> float:
    """Share of punctuation marks among these and what stands between them; an apostrophe belongs to its word."""
    marks = sum(_CATEGORY[character][0] == "P" and character not in "'_" for character in text)
    return marks / max(marks + len(_PIECE.findall(text)), 1)


def measure_share(words: Sequence[str], of: Collection[str]) -> float:
    """Share of the words that stand in a list."""
    return sum(word in of for word in words) / max(len(words), 1)


def _strip_piece(piece: str) -> str:
    start, stop = 0, len(piece)
    while start < stop and _CATEGORY[piece[start]][0] not in "LM":
        start += 1
    while start < stop and _CATEGORY[piece[stop - 1]][0] not in "LM":
        stop -= 1
    return piece[start:stop]


def _split_into_pairs(run: str) -> list[str]:
    if not _UNSPACED.match(run):
        return [word] if (word := _strip_piece(run)) else []
    return [run[start : start + 2] for start in range(0, len(run), 2)]
