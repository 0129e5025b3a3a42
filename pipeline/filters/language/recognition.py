"""Which paragraphs with Han characters are Japanese or Korean: what the language filter keeps under `strict`.

A paragraph is one if its evidence and its neighbours' (`evidence`) speak for Japanese or Korean more than for any other
language, and against Chinese by the filter's threshold: what is in doubt is none. In addition

- with kana, it may be Japanese, and with Hangul Korean. Kana that Chinese texts borrow, or that OCR reads for Han, do
  not count (`script.KANA`);
- with Han alone, its neighbours have to make it so, and one of them is in that language by itself: a kanji heading on a
  Japanese page. On an English page it is none, whatever its characters.

An English paragraph that quotes Japanese is English.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from vlmill.pipeline.filters.language.evidence import Column
from vlmill.pipeline.filters.language.script import HAN, HANGUL, KANA

LETTERS = {Column.JA: KANA, Column.KO: HANGUL}


def count_foreign_han(
    texts: Sequence[str], scores: np.ndarray, languages: Collection[Column], margin: float
) -> list[int]:
    """The Han characters of each paragraph of a sample that is not recognised as Japanese or Korean. Pure.

    Args:
        texts: The paragraphs of one sample.
        scores: (texts, columns), with what neighbours say.
        languages: Which of Japanese and Korean are wanted.
        margin: Nats by which Chinese has to trail.
    """
    found = [Column(best) for best in scores.argmax(axis=1)]
    likely = [
        best in languages and bool(scores[row, best] - scores[row, Column.ZH] >= margin)
        for row, best in enumerate(found)
    ]
    by_itself = [
        sure and LETTERS[best].search(text) is not None for text, best, sure in zip(texts, found, likely, strict=True)
    ]
    there = {best for best, alone in zip(found, by_itself, strict=True) if alone}
    return [
        0 if alone or (sure and best in there) else len(HAN.findall(text))
        for text, best, sure, alone in zip(texts, found, likely, by_itself, strict=True)
    ]
