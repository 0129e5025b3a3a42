"""Where a long text may be cut into segments: at ends of lines and sentences, as numbers of tokens.

Part of the step `token_lengths`. A text is tokenized whole and cut between tokens, so the segments of a text hold its
tokens and no others. Which places those are depends on the text; the mixture chooses among them by its sequence length.

Sentences end as in UAX #29 (Unicode Text Segmentation), simplified: behind a mark that ends sentences, what closes
brackets and quotations, and white space; behind the marks of Chinese and Japanese without any; and not behind a full
stop before a small letter in the same line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

STRETCH = 32
"""Tokens without an end of a line or sentence from which other places are listed as well: between words, or between
characters where there are no words."""

_CLOSING = r"""["'”’»›)\]}）］｝」』】〕〉》｣]{0,8}"""  # noqa: RUF001 - closing marks of all scripts
_STOPS = "!?.…։؟۔।॥။።፧፨᙮᠃᠉។៕།‼‽⁇⁈⁉⸮꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫"  # noqa: RUF001 - Sentence_Terminal of living scripts
_WIDE_STOPS = "。！？．｡﹒﹖﹗"  # noqa: RUF001 - those that no white space follows
_LINE = "[\n\r\v\f\x85\u2028\u2029]"
_ENDS = re.compile(rf"[{re.escape(_STOPS)}]{_CLOSING}\s+|[{_WIDE_STOPS}]{_CLOSING}\s*|{_LINE}(?:\s*{_LINE})?")
_LINES = re.compile(_LINE)
_SPACE = re.compile(r"\s+")


class Breaks(NamedTuple):
    """Numbers of a text's first tokens behind which it may be cut, ascending; neither 0 nor all."""

    ends: list[int]  # of lines and sentences
    words: list[int]  # further ones, so that no two neighbours of both lists are more than STRETCH apart


def find_breaks(text: str, spans: Sequence[tuple[int, int]]) -> Breaks:
    """The places where a text may be cut; pure.

    A character of several tokens, and a token over an end, are never cut.

    Args:
        text: as it was tokenized.
        spans: of its tokens, [start, stop) in characters.
    """
    if len(spans) <= STRETCH:
        return Breaks([], [])
    starts, stops = (np.array(column, np.int64) for column in zip(*spans, strict=True))
    free = np.flatnonzero(np.maximum.accumulate(stops)[:-1] <= starts[1:]) + 1
    gaps = [gap for gap in _list_ends(text) if gap[1] < len(text.rstrip())]
    ends = _match_gaps(gaps, starts, free)
    words = list[int]()
    for first, last in pairwise([0, *ends, len(spans)]):
        if last - first > STRETCH:
            words += _divide_stretch(text, first, last, starts, free)
    return Breaks(ends, words)


def _list_ends(text: str) -> Iterator[tuple[int, int]]:
    """Behind each line and sentence, the first and last place where a cut belongs: around its white space."""
    for found in _ENDS.finditer(text):
        start, stop = found.span()
        if found[0].startswith(".") and text[stop : stop + 1].islower() and not _LINES.search(found[0]):
            continue
        said = len(found[0].rstrip())
        yield start + said, stop


def _match_gaps(gaps: Sequence[tuple[int, int]], starts: np.ndarray, free: np.ndarray) -> list[int]:
    """The last token border within each gap; `free` are the borders that cut no character."""
    if not gaps or not free.size:
        return []
    low, high = np.array(gaps, np.int64).T
    places = starts[free]
    at = np.searchsorted(places, high, "right") - 1
    there = (at >= 0) & (places[at] >= low)
    found: list[int] = np.unique(free[at[there]]).tolist()
    return found


def _divide_stretch(text: str, first: int, last: int, starts: np.ndarray, free: np.ndarray) -> Iterator[int]:
    """Places inside tokens [first, last), STRETCH apart at most: between words, else between characters."""
    begin, end = int(starts[first]), int(starts[last]) if last < starts.size else len(text.rstrip())
    words = np.array(_match_gaps([run.span() for run in _SPACE.finditer(text, begin, end)], starts, free), np.int64)
    at = first
    while last - at > STRETCH:
        for places in (words, free):
            index = int(np.searchsorted(places, at + STRETCH, "right")) - 1
            if index >= 0 and places[index] > at:
                at = int(places[index])
                break
        else:  # a character of more tokens than that
            index = int(np.searchsorted(free, at, "right"))
            if index == free.size or free[index] >= last:
                return
            at = int(free[index])
        yield at
