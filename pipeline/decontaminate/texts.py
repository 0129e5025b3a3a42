"""Questions of benchmarks in the texts of training data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.decontaminate.index import Benchmarks, Item
from pipeline.decontaminate.words import RUN, UNKNOWN, Words, find, numbers, runs, weight
from pipeline.sample import Sample

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


def passages(row: int, sample: Sample, benchmarks: Benchmarks) -> Iterator[Passage]:
    """The passages of a sample: one per turn, or one of all texts. System prompts are left out."""
    nodes_of = dict[int, list[int]]()
    for index, node in enumerate(sample.nodes):
        if node.kind == "text" and node.role != "system":
            nodes_of.setdefault(node.turn if node.role != "none" else -1, []).append(index)
    for turn, nodes in nodes_of.items():
        spoken = [numbers([sample.nodes[index].text or ""], benchmarks.vocabulary) for index in nodes]
        owners = np.repeat(np.array(nodes, np.int32), [part.size for part in spoken])
        yield Passage(row, turn >= 0, np.concatenate(spoken), owners)


class Search:
    """Looks for the items of an index in passages."""

    def __init__(self, benchmarks: Benchmarks, share: float) -> None:
        self.benchmarks, self.share = benchmarks, share
        self.weights = np.array([weight(word) for word in benchmarks.spelt])
        self.numeric = np.array([any(letter.isdigit() for letter in word) for word in benchmarks.spelt])

    def hits(self, batch: Sequence[Passage], pictures: Sequence[frozenset[int] | None]) -> Iterator[Hit]:
        """Items that passages ask, each passage for itself, in order of passage and item. Pure.

        Args:
            batch: The passages.
            pictures: Of each passage's sample the benchmark pictures it shows; None where it shows no picture at all.
        """
        for passage, item, matched in self._matches(batch):
            found = self._judge(batch[passage], self.benchmarks.items[item], matched, pictures[passage])
            if found:
                yield Hit(passage, item, *found)

    def asks(self, passage: Passage, item: Item) -> tuple[int, ...]:
        """The nodes of a passage that ask just what an item asks, at any length; none if it does not."""
        return _nodes(passage, find(item.question, passage.words)[:1], item.question.size)

    def _matches(self, batch: Sequence[Passage]) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
        """(passage, item, [(start in the passage, start in the item)]) of common runs, in order."""
        gap = np.array([UNKNOWN], np.uint32)
        whole = np.concatenate([gap, *(part for passage in batch for part in (passage.words, gap))])
        firsts = np.cumsum([1, *(passage.words.size + 1 for passage in batch)])
        starts, hashes = runs(whole)
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

    def _judge(
        self, passage: Passage, item: Item, matched: Sequence[tuple[int, int]], shown: frozenset[int] | None
    ) -> tuple[float, tuple[int, ...]] | None:
        """The share of the item's telling words that are there, and the nodes that hold them; None if that is too little."""
        asked = np.concatenate([item.question, item.choices])
        there, said = np.zeros(asked.size, bool), np.zeros(passage.words.size, bool)
        for place, start in matched:
            there[start : start + RUN] = True
            said[place : place + RUN] = True
        telling, found = item.telling, there[: item.question.size]
        if not telling.any() or (self.numeric[item.question] & telling & ~found).any():
            return None
        share = float((found & telling).sum() / telling.sum())
        weighs = float(self.weights[asked[there]].sum())
        foreign = passage.turn and shown is not None and bool(item.pictures) and not shown & item.pictures
        enough = weighs >= (ENOUGH_OF_OTHERS if foreign else ENOUGH)
        if share < self.share or weighs < RUN or not (enough or self._answered(passage.words, said, item, foreign)):
            return None
        return share, tuple(sorted(set(passage.nodes[said].tolist())))

    def _answered(self, sequence: Words, said: NDArray[np.bool_], item: Item, foreign: bool) -> bool:
        """Whether an answer stands behind the question, or before it. One of a word or a number alone has to be close."""
        first, last = np.flatnonzero(said)[[0, -1]].tolist()
        rest = np.where(said, UNKNOWN, sequence)
        for answer in item.answers:
            telling = self.weights[answer].sum() >= 2 and not self.numeric[answer].all()
            if foreign and not telling:
                continue
            reach = REACH if telling else NEXT
            start = max(0, first - reach if telling else last + 1)
            if find(answer, rest[start : last + 1 + reach + answer.size]).size:
                return True
        return False


def _nodes(passage: Passage, places: NDArray[np.int64], size: int) -> tuple[int, ...]:
    return tuple(sorted({int(node) for place in places for node in passage.nodes[place : place + size]}))
