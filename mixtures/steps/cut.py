"""Cutting a sample that does not fit a sequence into segments that do.

Part of the select step. A document (nodes without a role) is cut between nodes, and inside a text that does not fit: at
the last end of a line or sentence that does, else between words. All of its text is kept. An image is never cut; it
stands in one segment, with text. A conversation keeps the turns from its first on that fit, because later turns lean on
what was said and shown before; where the mixture says so, the answer that does not fit is truncated.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vlmill.pipeline.chat.encode import WHOLE
from vlmill.pipeline.core.reasons import Reason

LEAST = 1 / 8
"""Fraction of the space left in a segment that a text fills at least so that a sentence stays whole."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """The lengths of a sample's nodes, one entry per node in each field."""

    tokens: Sequence[int]  # text + visual
    tiles: Sequence[int]
    image: Sequence[bool]
    turn: Sequence[int]
    role: Sequence[str]
    supervised: Sequence[int]
    lead: Sequence[int]  # tokens before the supervised ones
    ends: Sequence[Sequence[int]]  # where a text may be cut, see Breaks
    words: Sequence[Sequence[int]]

    def list_spans(self, part: Bounds) -> Iterator[tuple[int, int, int]]:
        """The nodes of a segment, each with which of its tokens belong to it: [begin, end)."""
        for node in range(part.first, part.last):
            cut_off = node == part.last - 1 and part.end != WHOLE
            yield node, part.begin if node == part.first else 0, part.end if cut_off else self.tokens[node]

    def count_supervised(self, node: int, begin: int, end: int) -> int:
        """Supervised ones among tokens [begin, end) of a node."""
        first = self.lead[node]
        return max(0, min(end, first + self.supervised[node]) - max(begin, first))


class Bounds(NamedTuple):
    """A segment: nodes [first, last), from token `begin` of the first to token `end` of the last."""

    first: int
    last: int
    begin: int = 0
    end: int = WHOLE


@dataclass(slots=True)
class CutSample:
    """Segments in order, without overlap, and the reason of every node that is in none."""

    segments: list[Bounds] = field(default_factory=list)
    lost: dict[int, Reason] = field(default_factory=dict)


def cut_sample(nodes: Nodes, tokens: int, tiles: int, *, truncate: bool = False) -> CutSample:
    """Segments of at most `tokens` and `tiles`; pure.

    Args:
        nodes: of the sample.
        tokens: the sequence's length without the overhead of a segment.
        tiles: of a sequence.
        truncate: whether an answer that does not fit is cut at the sequence's end.
    """
    if any(role != "none" for role in nodes.role):
        return _cut_turns(nodes, tokens, tiles, truncate=truncate)
    return _Document(nodes, tokens, tiles).cut()


@dataclass(slots=True)
class _Document:
    """A document being cut: from the front, as much as fits, and again from there."""

    nodes: Nodes
    tokens: int
    tiles: int
    done: CutSample = field(default_factory=CutSample)
    first: int = 0  # where the open segment begins
    begin: int = 0
    used: int = 0  # what it holds
    shown: int = 0
    spoken: bool = False  # whether that has a text

    def cut(self) -> CutSample:
        """Add every node in turn."""
        for at, (length, inputs) in enumerate(zip(self.nodes.tokens, self.nodes.tiles, strict=True)):
            if not self.nodes.image[at]:
                self._add_text(at, length)
                continue
            alone = length > self.tokens or inputs > self.tiles
            if alone or self.used + length > self.tokens or self.shown + inputs > self.tiles:
                self._close(at)
            if alone:
                self.done.lost[at] = Reason.TOO_LONG
                self.first = at + 1
            else:
                self.used, self.shown = self.used + length, self.shown + inputs
        self._close(len(self.nodes.tokens))
        return self.done

    def _add_text(self, at: int, length: int) -> None:
        """Add a text, in as many parts as it takes.

        A text that fits a sequence is not parted from itself: it begins a new one. But images alone would be lost, so
        they get as much of the text behind them as fits.
        """
        placed = 0
        while self.used + length - placed > self.tokens:
            if self.spoken and length <= self.tokens:
                self._close(at)
                continue
            place = self._find_place(at, placed)
            if place == placed:
                self._close(at, placed)
                continue
            self.spoken, placed = True, place
            self._close(at, place)
        self.used, self.spoken = self.used + length - placed, True

    def _find_place(self, at: int, placed: int) -> int:
        """Up to which of its tokens a text goes into the open segment; `placed` where none fits beside what is there.

        An end of a sentence that leaves nearly all of the space empty does not count, as a longer one follows. Where
        even a word fits no sequence, it is between two tokens.
        """
        most = placed + self.tokens - self.used
        least = placed + (most - placed) * LEAST
        for places, bound in ((self.nodes.ends[at], least), (self.nodes.words[at], placed)):
            index = bisect_right(places, most)
            if index and places[index - 1] > bound:
                return places[index - 1]
        return placed if self.used else most

    def _close(self, last: int, end: int = 0) -> None:
        """End the open segment before token `end` of node `last`, and begin the next there.

        Images alone are lost.
        """
        if self.spoken:
            whole = not end
            self.done.segments.append(Bounds(self.first, last + (not whole), self.begin, WHOLE if whole else end))
        else:
            self.done.lost |= dict.fromkeys(range(self.first, last), Reason.NO_TEXT)
        self.first, self.begin, self.used, self.shown, self.spoken = last, end, 0, 0, False


def _cut_turns(nodes: Nodes, tokens: int, tiles: int, *, truncate: bool) -> CutSample:
    """Whole turns from the first on, as long as they fit; an answer must be among them."""
    last, used, shown, count = 0, 0, 0, len(nodes.tokens)
    while last < count:
        stop = next((at for at in range(last, count) if nodes.turn[at] != nodes.turn[last]), count)
        more, inputs = sum(nodes.tokens[last:stop]), sum(nodes.tiles[last:stop])
        if used + more > tokens or shown + inputs > tiles:
            break
        last, used, shown = stop, used + more, shown + inputs
    if truncate and last < count and (part := _truncate_answer(nodes, last, tokens - used, tiles - shown)):
        turn = nodes.turn[last]
        behind = range(part.last, count)
        return CutSample(
            [part], {at: Reason.TOO_LONG if nodes.turn[at] == turn else Reason.LATER_TURNS for at in behind}
        )
    if "assistant" not in nodes.role[:last]:
        return CutSample(lost=dict.fromkeys(range(count), Reason.TOO_LONG))
    return CutSample([Bounds(0, last)], dict.fromkeys(range(last, count), Reason.LATER_TURNS))


def _truncate_answer(nodes: Nodes, turn: int, tokens: int, tiles: int) -> Bounds | None:
    """All up to where a turn's answer stops fitting; None where what does not fit is no supervised answer.

    Args:
        nodes: of a conversation.
        turn: the turn's first node.
        tokens: left for it, fewer than it has.
        tiles: left for it.
    """
    for at in range(turn, len(nodes.tokens)):
        tiles -= nodes.tiles[at]
        if tiles < 0:
            return None
        if nodes.tokens[at] > tokens:
            return Bounds(0, at + 1, 0, tokens) if nodes.count_supervised(at, 0, tokens) else None
        tokens -= nodes.tokens[at]
    return None
