"""Verdicts applied: which samples and nodes stay, and why each of the others does not.

Dedupe applies verdicts what the filters before it left, render applies verdicts everything, and statistics and trace
repeat it to explain a loss. All of them call `apply verdicts`, so a loss has one reason wherever it is asked about.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from vlmill.pipeline.core.names import name_verdicts
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    LEAST_IMAGES,
    WHOLE_SAMPLE,
    ImageStats,
    Node,
    Sample,
    Verdict,
    read_verdicts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TURN_ROLES = frozenset({"user", "assistant"})
OWN_REASONS = frozenset({Reason.TAKEN_DOWN, Reason.NOT_FETCHED})
"""What a sample says of itself where it goes with a required image, besides failures."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one sample. It is lost if and only if all of its nodes are."""

    sample: Reason | None  # None where it stays
    nodes: tuple[Reason | None, ...]  # one per node, in order

    @property
    def kept(self) -> tuple[int, ...]:
        """Indices of the nodes that stay, in order."""
        return tuple(index for index, reason in enumerate(self.nodes) if reason is None)


def apply_verdicts(sample: Sample, verdicts: Sequence[Verdict], image_stats: Sequence[ImageStats]) -> Outcome:
    """Apply everything that is known against a sample. Pure.

    Images that could not be had or read fall first, then the filters speak in turn; what falls keeps its first reason.
    Images that were not fetched since filters had dropped all that shows them fall last: whatever is lost by these
    filters has the same reason as if they had been fetched.
    After each of them the consequences are drawn, so that they too are attributed to the first cause:

    - a lost image takes a sample that requires it along: with the image's own reason where it failed (render's verdicts
      say so too), was taken down or not fetched, REQUIRED_LOST where a filter dropped it; any other image falls alone,
      and the rest keeps its order;
    - a turn that loses a text loses its other texts (TURN_LOST), and its images unless a later turn can still see them;
    - a text that a model wrote beside a node falls with it, for its reason, and takes no turn along;
    - a sample that has fewer images left than a filter asks for (a verdict on LEAST_IMAGES) is lost with that verdict's
      reason, whatever took the images: this filter, one beside it, dedupe, or the policy that cannot draw them;
    - a sample with nothing left, or nothing but a system prompt, is lost: TAKEN_DOWN where all of it was, else
      NOTHING_LEFT;
    - the nodes of a lost sample have the sample's reason, unless they had their own before.

    Args:
        sample: The sample as it was read.
        verdicts: Those on this sample, in recipe order of their filters.
        image_stats: Of all images of the partition; the index is the image's number.
    """
    nodes = [_find_initial_loss(node, image_stats) for node in sample.nodes]
    whole, least = _drop_turns(sample.nodes, nodes), list[Verdict]()
    for _, found in groupby(verdicts, key=lambda verdict: verdict.filter):
        if whole:
            break
        said = list(found)
        least += [verdict for verdict in said if verdict.node == LEAST_IMAGES]
        whole = _enter_verdicts(said, nodes) or _drop_turns(sample.nodes, nodes) or _miss_images(sample, nodes, least)
    if not whole and _enter_not_fetched(sample, nodes, image_stats):
        whole = _drop_turns(sample.nodes, nodes) or _miss_images(sample, nodes, least)
    return Outcome(whole, tuple(reason or whole for reason in nodes))


def read_verdicts_by_sample(inputs: Mapping[str, Path], filters: Sequence[str]) -> dict[int, list[Verdict]]:
    """The verdicts of `filters` by sample, in the order of `filters`, read from their `<filter>.verdicts.parquet`."""
    found = defaultdict[int, list[Verdict]](list)
    for filter_ in filters:
        for verdict in read_verdicts(inputs[name_verdicts(filter_)]):
            found[verdict.sample].append(verdict)
    return dict(found)


def _find_initial_loss(node: Node, image_stats: Sequence[ImageStats]) -> Reason | None:
    """Why a node is empty before any filter; None if it is not."""
    if node.image is not None:
        reason = image_stats[node.image].reason
        return None if reason is Reason.NOT_FETCHED else reason
    return Reason.TAKEN_DOWN if node.text is None else None


def _enter_not_fetched(sample: Sample, nodes: list[Reason | None], image_stats: Sequence[ImageStats]) -> bool:
    """Enter the images that were not fetched; return whether one of them still stood."""
    found = False
    for index, node in enumerate(sample.nodes):
        if nodes[index] is None and node.image is not None and image_stats[node.image].reason is Reason.NOT_FETCHED:
            nodes[index], found = Reason.NOT_FETCHED, True
    return found


def _enter_verdicts(verdicts: Sequence[Verdict], nodes: list[Reason | None]) -> Reason | None:
    """Enter one filter's verdicts on nodes; return its reason against the whole sample."""
    whole: Reason | None = None
    for verdict in verdicts:
        if verdict.node == WHOLE_SAMPLE:
            whole = whole or verdict.reason
        elif verdict.node != LEAST_IMAGES:
            nodes[verdict.node] = nodes[verdict.node] or verdict.reason
    return whole


def _miss_images(sample: Sample, lost: Sequence[Reason | None], least: Sequence[Verdict]) -> Reason | None:
    """Why a sample is lost that has too few images left; None if it has enough."""
    left = sum(node.image is not None and why is None for node, why in zip(sample.nodes, lost, strict=True))
    return next((verdict.reason for verdict in least if left < verdict.score), None)


def _drop_turns(nodes: Sequence[Node], lost: list[Reason | None]) -> Reason | None:
    """Enter the turns that fall with what is lost; return why the whole sample falls with it, if it does."""
    for node, reason in zip(nodes, lost, strict=True):
        if node.required and reason not in {None, Reason.TURN_LOST}:
            return reason if reason.failed or reason in OWN_REASONS else Reason.REQUIRED_LOST
    _lose_turns(nodes, lost)
    for index, node in enumerate(nodes):
        if node.after is not None:
            lost[index] = lost[index] or lost[node.after]
    left = (node for node, reason in zip(nodes, lost, strict=True) if reason is None)
    if any(node.role != "system" for node in left):
        return None
    return Reason.TAKEN_DOWN if set(lost) == {Reason.TAKEN_DOWN} else Reason.NOTHING_LEFT


def _lose_turns(nodes: Sequence[Node], lost: list[Reason | None]) -> None:
    texts = [
        (node.turn, why)
        for node, why in zip(nodes, lost, strict=True)
        if node.kind == "text" and node.role in TURN_ROLES and node.after is None
    ]
    broken = {turn for turn, why in texts if why}
    last = max((turn for turn, _ in texts if turn not in broken), default=-1)
    for index, node in enumerate(nodes):
        falls = node.role in TURN_ROLES and node.turn in broken and (node.kind == "text" or node.turn > last)
        if falls and lost[index] is None:
            lost[index] = Reason.TURN_LOST
