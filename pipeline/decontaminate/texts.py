"""Questions of benchmarks in the texts of training data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmill.pipeline.core.sample import Sample
from vlmill.pipeline.decontaminate.index import Benchmarks, Item
from vlmill.pipeline.decontaminate.words import (
    RUN,
    UNKNOWN,
    Words,
    find_runs,
    find_sequence,
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
        self.numeric = np.array([any(letter.isdigit() for letter in word) for word in benchmarks.words])

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

    def _matches(self, batch: Sequence[Passage]) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
        """(passage, item, [(start in the passage, start in the item)]) of common runs, in order."""
        gap = np.array([UNKNOWN], np.uint32)
        whole = np.concatenate([gap, *(part for passage in batch for part in (passage.words, gap))])
        firsts = np.cumsum([1, *(passage.words.size + 1 for passage in batch)])
        starts, hashes = find_runs(whole)
        low = np.searchsorted(self.benchmarks.hashes, hashes, side="left")
        counts = np.searchsorted(self.benchmarks.hashes, hashes, side="right") - low
        entries = np.repeat(low - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        places = np.repeat(starts, counts)
        owners = np.searchsorted(firsts, places, side="right") - 1
        items, own = self.benchmarks.holders[entries], self.benchmarks.starts[entries]
        groups = dict[tuple[int, int], list[tuple[int, int]]]()
        for owner, item, place, start in zip(
            owners.tolist(), items.tolist(), (places - firsts[owners]).tolist(), own.tolist(), strict=True
        ):
            groups.setdefault((owner, item), []).append((place, start))
        yield from ((*key, groups[key]) for key in sorted(groups))

    def _filter(
        self, passage: Passage, item: Item, matched: Sequence[tuple[int, int]], shown: frozenset[int] | None
    ) -> tuple[float, tuple[int, ...]] | None:
        """The share of the item's telling words that are there, and their nodes; None if that is too little."""
        foreign = passage.turn and shown is not None and bool(item.pictures) and not shown & item.pictures
        asked, best, nodes = item.asked, 0.0, set[int]()
        for occurrence in _split_occurrences(matched, asked.size):
            there, said = np.zeros(asked.size, bool), np.zeros(passage.words.size, bool)
            for place, start in occurrence:
                there[start : start + RUN] = True
                said[place : place + RUN] = True
            share = self._share(item, there)
            if share >= self.share and self._enough(passage.words, said, item, asked[there], foreign):
                best = max(best, share)
                nodes |= set(passage.nodes[said].tolist())
        return (best, tuple(sorted(nodes))) if nodes else None

    def _share(self, item: Item, there: NDArray[np.bool_]) -> float:
        """The share of the question's telling words that are there; 0 where it has none, or lacks a number."""
        telling, found = item.telling, there[: item.question.size]
        if not telling.any() or (self.numeric[item.question] & telling & ~found).any():
            return 0.0
        return float((found & telling).sum() / telling.sum())

    def _enough(self, sequence: Words, said: NDArray[np.bool_], item: Item, found: Words, foreign: bool) -> bool:
        """Whether enough words are there, those of choices behind them counted; or some, and an answer beside them."""
        least = ENOUGH_OF_OTHERS if foreign else ENOUGH
        weighs = float(self.weights[found].sum())
        if weighs < RUN or weighs >= least:
            return weighs >= least
        first, last = np.flatnonzero(said)[[0, -1]].tolist()
        rest = np.where(said, UNKNOWN, sequence)
        listed, stop = self._listed(rest, last + 1, item)
        return weighs + listed >= least or self._answered(rest, first, last + 1, stop, item, foreign)

    def _listed(self, rest: Words, stop: int, item: Item) -> tuple[float, int]:
        """The weight of choices behind a place, one after the other in any order, and where the last one ends."""
        weighs, left = 0.0, list(item.choices)
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

    def _answered(self, rest: Words, first: int, last: int, stop: int, item: Item, foreign: bool) -> bool:
        """Whether an answer stands behind the question or its choices, or before it.

        One of a word or a number alone has to be close.
        """
        for answer in item.answers:
            reach = self._reach(answer)
            if foreign and reach == NEXT:
                continue
            start = max(0, first - reach) if reach == REACH else last
            if find_sequence(answer, rest[start : stop + reach + answer.size]).size:
                return True
        return False

    def _reach(self, answer: Words) -> int:
        """Words between a question and an answer or choice at most."""
        return REACH if self.weights[answer].sum() >= 2 and not self.numeric[answer].all() else NEXT


def _split_occurrences(matched: Sequence[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    """Common runs of a passage and an item, split into the places where the passage may ask it.

    Places are further apart than the item is long.
    """
    group = list[tuple[int, int]]()
    for place, start in sorted(matched, key=lambda run: (run[0] - run[1], run)):
        if group and place - start - (group[-1][0] - group[-1][1]) > size:
            yield group
            group = []
        group.append((place, start))
    if group:
        yield group


def _list_nodes(passage: Passage, places: NDArray[np.int64], size: int) -> tuple[int, ...]:
    return tuple(sorted({int(node) for place in places for node in passage.nodes[place : place + size]}))
