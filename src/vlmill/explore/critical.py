"""For each sample and node the value at which a bound loses it: what makes a slider answer at once, and exactly.

Tightening a bound only ever adds verdicts, and verdicts only ever lose more. So with everything else as it is, a sample
stays up to one value of the bound and is lost beyond it. That value is found by asking `apply_verdicts` with the
sample's values falling one after the other, once for all samples that are alike and whose values fall in the same
order. Counts at any position of the slider are then a search in a sorted array.

Values are keyed so that tightening raises the bound: a thing is kept where its key is at least the bound's. Keys are
-inf of what is lost anyway, and inf of what the bound never loses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vlmill.explore.bounds import SliderBound
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, Verdict
from vlmill.pipeline.reports.alike import AlikeSamples, group_alike
from vlmill.pipeline.verdicts.apply import Outcome, apply_verdicts

BEYOND = Reason.REQUIRED_LOST
"""Any reason that counts as dropped; which one does not matter to what is kept."""


@dataclass
class PartitionKeys:
    """The keys of a partition: of samples by row, of nodes in any order."""

    samples: np.ndarray  # float64
    nodes: list[np.ndarray] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)  # the same of image nodes alone


def find_partition_keys(
    tables: Mapping[str, Path],
    verdicts: Mapping[str, Path],
    bound: SliderBound,
    values: tuple[np.ndarray, np.ndarray, np.ndarray],
    number: int,
) -> PartitionKeys:
    """The keys of all samples of a partition.

    Args:
        tables: the partition's.
        verdicts: filter -> verdicts in the order of attribution, all but those of the bound.
        bound: what moves.
        values: rows, nodes and values of the bound's dimension, in the order of rows; empty where it is not asked.
        number: of samples.
    """
    keys = PartitionKeys(np.full(number, np.inf))
    order = {name: place for place, name in enumerate(verdicts)}
    rows, nodes, numbers = values
    numbers = numbers * bound.sign
    for alike in group_alike(tables, verdicts, verdicts):
        mine = np.asarray(alike.rows)
        first, last = np.searchsorted(rows, mine, "left"), np.searchsorted(rows, mine, "right")
        for count in np.unique(last - first).tolist():
            some = last - first == count
            places = first[some][:, None] + np.arange(count)
            _enter_keys(keys, alike, mine[some], nodes[places], numbers[places], bound, order)
    return keys


def _enter_keys(
    keys: PartitionKeys,
    alike: AlikeSamples,
    rows: np.ndarray,
    nodes: np.ndarray,
    numbers: np.ndarray,
    bound: SliderBound,
    order: Mapping[str, int],
) -> None:
    """Enter samples that are alike and have as many values; `nodes` and `numbers` are (samples, values)."""
    falling = np.argsort(numbers, axis=1, kind="stable")
    nodes, numbers = np.take_along_axis(nodes, falling, 1), np.take_along_axis(numbers, falling, 1)
    ways, which = (
        np.unique(nodes, axis=0, return_inverse=True) if nodes.shape[1] else (nodes[:1], np.zeros(len(nodes), int))
    )
    for place, way in enumerate(ways):
        here = np.flatnonzero(which.reshape(-1) == place)
        lost_at = _find_falls(alike, way.tolist(), bound, order)
        steps = np.column_stack([np.full(len(here), -np.inf), numbers[here], np.full(len(here), np.inf)])
        keys.samples[rows[here]] = steps[:, lost_at[0]]
        for node, at in zip(alike.sample.nodes, lost_at[1:], strict=True):
            keys.nodes.append(steps[:, at])
            if node.kind == "image":
                keys.images.append(steps[:, at])


def _find_falls(
    alike: AlikeSamples, nodes: Sequence[int], bound: SliderBound, order: Mapping[str, int]
) -> tuple[int, ...]:
    """With how many of the nodes beyond the bound the sample is lost, then each node of it.

    0 is without any, one more than there are is never.
    """
    never = len(nodes) + 1
    found = [never] * (1 + len(alike.sample.nodes))
    for number in range(never):
        outcome = _lose_nodes(alike, nodes[:number], bound, order)
        for place, reason in enumerate((outcome.sample, *outcome.nodes)):
            if reason is not None:
                found[place] = min(found[place], number)
        if outcome.sample is not None:
            break
    return tuple(found)


def _lose_nodes(alike: AlikeSamples, nodes: Sequence[int], bound: SliderBound, order: Mapping[str, int]) -> Outcome:
    """The outcome where some nodes are beyond the bound."""
    mine = order.get(bound.filter, _find_turn(order))
    before = [verdict for verdict in alike.now if order.get(verdict.filter, len(order)) <= mine]
    after = [verdict for verdict in alike.now if order.get(verdict.filter, len(order)) > mine]
    said = {verdict.node for verdict in before if verdict.filter == bound.filter}
    more = [
        Verdict(0, WHOLE_SAMPLE if bound.whole else node, bound.filter, BEYOND)
        for node in (nodes[:1] if bound.whole else nodes)
        if node not in said
    ]
    return apply_verdicts(alike.sample, [*before, *more, *after], alike.image_stats)


def _find_turn(order: Mapping[str, int]) -> float:
    """When a filter is asked that has no verdicts without its bound: last of those before dedupe."""
    last = [place for name, place in order.items() if name in {"dedupe", "render"}]
    return min(last, default=len(order)) - 0.5
