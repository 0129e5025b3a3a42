"""Cutting a sample that does not fit a sequence into segments that do.

A segment is a range of nodes [first, last). Interleaved documents are cut between nodes. A conversation keeps the turns
from its first on that fit, because later turns lean on what was said and shown before. A node is never cut, so neither
is an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vlmill.pipeline.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class Nodes:
    """The lengths of a sample's nodes, one entry per node in each field."""

    tokens: Sequence[int]  # text + visual
    tiles: Sequence[int]
    image: Sequence[bool]
    turn: Sequence[int]
    role: Sequence[str]


@dataclass(slots=True)
class Cut:
    """Segments in order, without overlap, and the reason of every node that is in none."""

    segments: list[tuple[int, int]] = field(default_factory=list)
    lost: dict[int, Reason] = field(default_factory=dict)


def cut_sample(nodes: Nodes, tokens: int, tiles: int) -> Cut:
    """Segments of at most `tokens` and `tiles`; pure.

    `tokens` is the sequence's length without the overhead of a segment.
    """
    if any(role != "none" for role in nodes.role):
        return _cut_turns(nodes, tokens, tiles)
    return _cut_nodes(nodes, tokens, tiles)


def _cut_nodes(nodes: Nodes, tokens: int, tiles: int) -> Cut:
    """From the front, as many nodes as fit, and again from the next one."""
    result, first, used, shown = Cut(), 0, 0, 0
    for at, (length, inputs) in enumerate(zip(nodes.tokens, nodes.tiles, strict=True)):
        alone = length > tokens or inputs > tiles
        if alone or used + length > tokens or shown + inputs > tiles:
            _close_segment(result, nodes, first, at)
            first, used, shown = at, 0, 0
        if alone:
            result.lost[at] = Reason.TOO_LONG
            first = at + 1
        else:
            used, shown = used + length, shown + inputs
    _close_segment(result, nodes, first, len(nodes.tokens))
    return result


def _close_segment(result: Cut, nodes: Nodes, first: int, last: int) -> None:
    """Add the segment [first, last), unless it holds images alone."""
    if first == last:
        return
    if all(nodes.image[first:last]):
        result.lost |= dict.fromkeys(range(first, last), Reason.NO_TEXT)
    else:
        result.segments.append((first, last))


def _cut_turns(nodes: Nodes, tokens: int, tiles: int) -> Cut:
    """Whole turns from the first on, as long as they fit; an answer must be among them."""
    last, used, shown, count = 0, 0, 0, len(nodes.tokens)
    while last < count:
        stop = next((at for at in range(last, count) if nodes.turn[at] != nodes.turn[last]), count)
        used, shown = used + sum(nodes.tokens[last:stop]), shown + sum(nodes.tiles[last:stop])
        if used > tokens or shown > tiles:
            break
        last = stop
    if "assistant" not in nodes.role[:last]:
        return Cut(lost=dict.fromkeys(range(count), Reason.TOO_LONG))
    return Cut([(0, last)], dict.fromkeys(range(last, count), Reason.LATER_TURNS))
