"""A question laid beside the words of a passage: which of them are the same, and where the two differ.

The alignment with the fewest words replaced, left out or added (Levenshtein, 1966) of all of the question and any
stretch of the passage (Sellers, 1980).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmill.pipeline.decontaminate.words import Words


@dataclass(frozen=True)
class ChangedStretch:
    """Where the two differ: words `start` to `stop` of the question, and what the passage has in their place."""

    start: int
    stop: int
    said: Words

    @property
    def edits(self) -> int:
        """Words that are replaced, left out or added."""
        return max(self.said.size, self.stop - self.start)

    def slots(self) -> slice:
        """Where slots.py says of it whether it varies: words that were replaced, or all with the gaps around them."""
        if self.said.size == self.stop - self.start:
            return slice(2 * self.start + 1, 2 * self.stop, 2)
        return slice(2 * self.start, 2 * self.stop + 1)


@dataclass(frozen=True)
class Alignment:
    """The words of the question that stand in the passage, where they stand, and the differences between them."""

    asked: NDArray[np.int64]  # places in the question, which rise
    places: NDArray[np.int64]  # of the same words in the passage
    differences: tuple[ChangedStretch, ...]


def align_words(question: Words, passage: Words) -> Alignment:
    """The best alignment of all of a question with a stretch of a passage; of equals one, always the same. Pure."""
    costs = _measure_costs(question, passage)
    asked, places = list[int](), list[int]()
    row, column = question.size, int(costs[-1].argmin())
    while row and column:
        cost = costs[row, column]
        if question[row - 1] == passage[column - 1] and cost == costs[row - 1, column - 1]:
            row, column = row - 1, column - 1
            asked.append(row)
            places.append(column)
        elif cost == costs[row - 1, column - 1] + 1:
            row, column = row - 1, column - 1
        elif cost == costs[row - 1, column] + 1:
            row -= 1
        else:
            column -= 1
    asked.reverse()
    places.reverse()
    found = np.array(asked, np.int64), np.array(places, np.int64)
    return Alignment(*found, _list_differences(question.size, passage, *found))


def _measure_costs(question: Words, passage: Words) -> NDArray[np.int64]:
    """(words of the question + 1, words of the passage + 1): least edits of a beginning that ends at each word."""
    steps = np.arange(passage.size + 1)
    costs = np.zeros((question.size + 1, passage.size + 1), np.int64)
    for row, word in enumerate(question, 1):
        before = costs[row - 1]
        best = before + 1
        np.minimum(best[1:], before[:-1] + (passage != word), out=best[1:])
        costs[row] = np.minimum.accumulate(best - steps) + steps
    return costs


def _list_differences(
    size: int, passage: Words, asked: NDArray[np.int64], places: NDArray[np.int64]
) -> tuple[ChangedStretch, ...]:
    """What lies between the words that are the same; before the first and behind the last the question alone."""
    found = list[ChangedStretch]()
    if not asked.size:
        return (ChangedStretch(0, size, passage[:0]),)
    if asked[0]:
        found.append(ChangedStretch(0, int(asked[0]), passage[max(0, int(places[0] - asked[0])) : places[0]]))
    for number in np.flatnonzero((np.diff(asked) > 1) | (np.diff(places) > 1)).tolist():
        start, stop = int(asked[number]) + 1, int(asked[number + 1])
        found.append(ChangedStretch(start, stop, passage[places[number] + 1 : places[number + 1]]))
    if (left := size - 1 - int(asked[-1])) > 0:
        found.append(ChangedStretch(int(asked[-1]) + 1, size, passage[places[-1] + 1 : places[-1] + 1 + left]))
    return tuple(found)
