"""Questions of benchmarks in the texts of training data. Part of step `contamination`.

Runs of words that a passage and a question have in common say where it may be asked; an alignment there says what is
the same and what differs; then what differs, and how much is the same, decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmill.pipeline.core.sample import Sample
from vlmill.pipeline.decontaminate.alignment import Alignment, align_words
from vlmill.pipeline.decontaminate.index import Benchmarks, Item, Runs
from vlmill.pipeline.decontaminate.words import (
    RUN,
    SHORT_RUN,
    UNKNOWN,
    UNKNOWN_NUMBER,
    Words,
    find_runs,
    find_sequence,
    has_digit,
    number_words,
    weigh_word,
)

ENOUGH = 13
"""Words of a question that have to be there: GPT-3's longest n-gram."""
ENOUGH_OF_OTHERS = 26
"""Words that have to be there where the same is asked of other pictures."""
REACH = 50
"""Words between a question and its answer at most."""
NEXT = 8
"""Words between a question and an answer of one word at most: `seven` stands in many documents."""


@dataclass(frozen=True)
class Passage:
    """What is searched as one text: a turn, or all of a document."""

    sample: int
    turn: bool
    words: Words
    nodes: NDArray[np.int32]  # the node of each word


class SharedRun(NamedTuple):
    """A run of words that a passage and an item have in common: where it starts in both, and its length."""

    place: int
    start: int
    length: int


@dataclass(frozen=True)
class Hit:
    """An item that a passage asks."""

    passage: int
    item: int
    score: float  # share of the item's telling words
    nodes: tuple[int, ...]


def split_passages(row: int, sample: Sample, benchmarks: Benchmarks) -> Iterator[Passage]:
    """The passages of a sample: one per turn, or one of all texts. System prompts are left out."""
    nodes_of = dict[int, list[int]]()
    for index, node in enumerate(sample.nodes):
        if node.kind == "text" and node.role != "system":
            nodes_of.setdefault(node.turn if node.role != "none" else -1, []).append(index)
    for turn, nodes in nodes_of.items():
        spoken = [number_words([sample.nodes[index].text or ""], benchmarks.vocabulary) for index in nodes]
        owners = np.repeat(np.array(nodes, np.int32), [part.size for part in spoken])
        yield Passage(row, turn >= 0, np.concatenate(spoken), owners)


class Search:
    """Looks for the items of an index in passages."""

    def __init__(self, benchmarks: Benchmarks, share: float) -> None:
        self.benchmarks, self.share = benchmarks, share
        self.weights = np.array([weigh_word(word) for word in benchmarks.words])
        self.numeric = np.array([has_digit(word) for word in benchmarks.words])

    def hits(self, batch: Sequence[Passage], pictures: Sequence[frozenset[int] | None]) -> Iterator[Hit]:
        """Items that passages ask, each passage for itself, in order of passage and item. Pure.

        Args:
            batch: The passages.
            pictures: Of each passage's sample the benchmark pictures it shows; None where it shows no picture at all.
        """
        for passage, item, matched in self._matches(batch):
            found = self._filter(batch[passage], self.benchmarks.items[item], matched, pictures[passage])
            if found:
                yield Hit(passage, item, *found)

    def asks(self, passage: Passage, item: Item) -> tuple[int, ...]:
        """The nodes of a passage that ask just what an item asks, at any length; none if it does not."""
        return _list_nodes(passage, find_sequence(item.question, passage.words)[:1], item.question.size)

    def _matches(self, batch: Sequence[Passage]) -> Iterator[tuple[int, int, list[SharedRun]]]:
        """(passage, item, common runs) of what may be asked, in order.

        A word changed leaves all but SHORT_RUN of the item's short runs, so where fewer are there it is not asked.
        """
        gap = np.array([UNKNOWN], np.uint32)
        whole = np.concatenate([gap, *(part for passage in batch for part in (passage.words, gap))])
        firsts = np.cumsum([1, *(passage.words.size + 1 for passage in batch)])
        groups = dict[tuple[int, int], list[SharedRun]]()
        for runs in (self.benchmarks.runs, self.benchmarks.short_runs):
            places, entries = _look_up_runs(runs, whole)
            owners, items = np.searchsorted(firsts, places, side="right") - 1, runs.holders[entries].astype(np.int64)
            if runs is self.benchmarks.short_runs:
                kept = self._select_promising(owners, items)
                places, entries, owners, items = (column[kept] for column in (places, entries, owners, items))
            columns = (owners, items, places - firsts[owners], runs.starts[entries])
            for owner, item, place, start in zip(*(column.tolist() for column in columns), strict=True):
                groups.setdefault((owner, item), []).append(SharedRun(place, start, runs.length))
        yield from ((*key, groups[key]) for key in sorted(groups))

    def _select_promising(self, owners: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which short runs are among enough of their item that stand in their passage."""
        pairs = owners * (self.benchmarks.sizes.size + 1) + items
        _, inverse, counts = np.unique(pairs, return_inverse=True, return_counts=True)
        lost = SHORT_RUN * count_allowed(self.benchmarks.sizes[items])
        enough: NDArray[np.bool_] = counts[inverse] >= self.benchmarks.short_counts[items] - lost
        return enough

    def _filter(
        self, passage: Passage, item: Item, matched: Sequence[SharedRun], shown: frozenset[int] | None
    ) -> tuple[float, tuple[int, ...]] | None:
        """The share of the item's telling words that are there, and their nodes; None if that is too little."""
        foreign = passage.turn and shown is not None and bool(item.pictures) and not shown & item.pictures
        best, nodes = 0.0, set[int]()
        for occurrence in _split_occurrences(matched, item.asked.size):
            asked = item.asked[: max(item.question.size, *(run.start + run.length for run in occurrence))]
            found = self._align(passage.words, asked, occurrence)
            if found is None or not self._is_same(item, asked, found, occurrence):
                continue
            there, said = np.zeros(asked.size, bool), np.zeros(passage.words.size, bool)
            there[found.asked], said[found.places] = True, True
            share, strict = self._share(item, there), foreign or bool(found.differences)
            least = ENOUGH_OF_OTHERS if foreign else ENOUGH
            counted = asked if not found.differences else asked[: item.question.size][item.telling]
            if share >= self.share and self._enough(passage.words, said, item, counted, least, strict=strict):
                best = max(best, share)
                nodes |= set(passage.nodes[said].tolist())
        return (best, tuple(sorted(nodes))) if nodes else None

    def _align(self, words: Words, asked: Words, occurrence: Sequence[SharedRun]) -> Alignment | None:
        """What is asked beside the words of a passage where it may stand; None where too many are not there."""
        shifts, reach = [run.place - run.start for run in occurrence], int(count_allowed(asked.size))
        start = max(0, min(shifts) - reach)
        window = words[start : max(shifts) + asked.size + reach]
        if np.isin(asked, window).sum() < self.share * asked.size - reach:
            return None
        found = align_words(asked, window)
        return replace(found, places=found.places + start)

    def _is_same(self, item: Item, asked: Words, found: Alignment, occurrence: Sequence[SharedRun]) -> bool:
        """Whether what differs makes no other question: few words, no number, and none that the benchmark varies.

        Of a long question any words may differ, as long as enough of it stands there in whole runs.
        """
        if sum(each.edits for each in found.differences) > count_allowed(asked.size):
            whole = np.zeros(asked.size, bool)
            for run in occurrence:
                whole[run.start : run.start + run.length] |= run.length == RUN
            if asked.size < ENOUGH_OF_OTHERS or self._share(item, whole) < self.share:
                return False
        return not any(
            self.numeric[asked[each.start : each.stop]].any()
            or self._has_number(each.said)
            or item.slots[each.slots()].any()
            for each in found.differences
        )

    def _has_number(self, said: Words) -> bool:
        unknown = said == UNKNOWN_NUMBER
        return bool(unknown.any() or self.numeric[np.where(unknown, UNKNOWN, said)].any())

    def _share(self, item: Item, there: NDArray[np.bool_]) -> float:
        """The share of the question's telling words that are there; 0 where it has none."""
        telling, found = item.telling, there[: item.question.size]
        return float((found & telling).sum() / telling.sum()) if telling.any() else 0.0

    def _enough(
        self, sequence: Words, said: NDArray[np.bool_], item: Item, counted: Words, least: int, *, strict: bool
    ) -> bool:
        """Whether the question has enough words, those of choices behind it counted; or some, and an answer beside it.

        `counted` are its words: of one that differs the telling ones, as the rest may be a template's. Where it is
        `strict`, choices and answers of a word or a number alone are no evidence.
        """
        weighs = float(self.weights[counted].sum())
        if weighs < RUN or weighs >= least:
            return weighs >= least
        first, last = np.flatnonzero(said)[[0, -1]].tolist()
        rest = np.where(said, UNKNOWN, sequence)
        choices, answers = (
            [words for words in texts if not strict or self._reach(words) == REACH]
            for texts in (item.choices, item.answers)
        )
        listed, stop = self._listed(rest, last + 1, choices)
        return weighs + listed >= least or self._answered(rest, first, last + 1, stop, answers)

    def _listed(self, rest: Words, stop: int, choices: Sequence[Words]) -> tuple[float, int]:
        """The weight of choices behind a place, one after the other in any order, and where the last one ends."""
        weighs, left = 0.0, list(choices)
        while True:
            ends = dict[tuple[int, int], int]()
            for number, choice in enumerate(left):
                places = find_sequence(choice, rest[stop : stop + self._reach(choice) + choice.size])
                if places.size:
                    ends[stop + int(places[0]), -choice.size] = number
            if not ends:
                return weighs, stop
            (place, _), number = min(ends.items())
            choice = left.pop(number)
            weighs += float(self.weights[choice].sum())
            stop = place + choice.size

    def _answered(self, rest: Words, first: int, last: int, stop: int, answers: Sequence[Words]) -> bool:
        """Whether an answer stands behind the question or its choices, or before it.

        One of a word or a number alone has to be close.
        """
        for answer in answers:
            reach = self._reach(answer)
            start = max(0, first - reach) if reach == REACH else last
            if find_sequence(answer, rest[start : stop + reach + answer.size]).size:
                return True
        return False

    def _reach(self, answer: Words) -> int:
        """Words between a question and an answer or choice at most."""
        return REACH if self.weights[answer].sum() >= 2 and not self.numeric[answer].all() else NEXT


def count_allowed(sizes: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Words that may differ in a question of so many: one, or one for each two RUN words."""
    allowed: NDArray[np.int64] = np.maximum(1, np.asarray(sizes, np.int64) // (2 * RUN))
    return allowed


def _look_up_runs(runs: Runs, words: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where runs of the index start in the words, and their entries there."""
    starts, hashes = find_runs(words, runs.length)
    low = np.searchsorted(runs.hashes, hashes, side="left")
    counts = np.searchsorted(runs.hashes, hashes, side="right") - low
    entries = np.repeat(low - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    return np.repeat(starts, counts), entries


def _split_occurrences(matched: Sequence[SharedRun], size: int) -> Iterator[list[SharedRun]]:
    """Common runs of a passage and an item, split into the places where the passage may ask it.

    Places are further apart than the item is long.
    """
    group = list[SharedRun]()
    for run in sorted(matched, key=lambda run: (run.place - run.start, run)):
        if group and run.place - run.start - (group[-1].place - group[-1].start) > size:
            yield group
            group = []
        group.append(run)
    if group:
        yield group


def _list_nodes(passage: Passage, places: NDArray[np.int64], size: int) -> tuple[int, ...]:
    return tuple(sorted({int(node) for place in places for node in passage.nodes[place : place + size]}))
