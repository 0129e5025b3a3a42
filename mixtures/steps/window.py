"""Windows of a mixture's order as the packer sees them.

Their segments, and the stretch of the window that each may stand in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from vlmill.mixtures.algorithms.pack import Stretches
from vlmill.mixtures.steps.select import BOUNDS
from vlmill.mixtures.steps.selection import Selection

Columns = dict[str, np.ndarray]
"""Segments in order, an entry per segment in each array of COLUMNS."""

COLUMNS = ("position", "source", "shard", "row", "first", "last", "begin", "end", "half", "tokens", "tiles", "visual")
"""Position in the mixture's order, entry, place of the sample, nodes and where in them, halves of an epoch of the entry
before this one, costs."""


def gather_segments(entries: Sequence[Selection], order: np.ndarray, start: Sequence[int]) -> Columns:
    """The segments of the samples that `order` calls for, in its order; pure.

    Args:
        entries: of the mixture.
        order: the entry of each sample.
        start: items of each entry that came before.
    """
    found: list[Columns] = []
    for source, (entry, first) in enumerate(zip(entries, start, strict=True)):
        positions = np.flatnonzero(order == source)
        for half, samples in entry.items(first, first + positions.size):
            here, positions = positions[: samples.size], positions[samples.size :]
            segments = entry.segments(samples)
            shard, row = entry.place(samples[segments.item])
            count = segments.item.size
            columns = {"position": here[segments.item], "shard": shard, "row": row}
            columns |= {"source": np.full(count, source), "half": np.full(count, half)}
            columns |= {name: getattr(segments, name) for name in (*BOUNDS, "tokens", "tiles", "visual")}
            found.append(columns)
    if not found:
        return {name: np.empty(0, np.int64) for name in COLUMNS}
    joined = {name: np.concatenate([columns[name] for columns in found]) for name in COLUMNS}
    by_position = np.argsort(joined["position"], kind="stable")
    return {name: column[by_position] for name, column in joined.items()}


def split_windows(segments: Columns, window: int) -> Iterator[Columns]:
    """The segments of each `window` samples; positions count from the window's start."""
    samples = int(segments["position"].max(initial=-1)) + 1
    starts = range(0, samples + window, window)
    bounds = np.searchsorted(segments["position"], starts)
    for start, (first, last) in zip(starts, pairwise(bounds.tolist()), strict=False):
        here = {name: column[first:last] for name, column in segments.items()}
        yield {**here, "position": here["position"] - start}


def find_stretches(segments: Columns, sources: Sequence[str]) -> Stretches | None:
    """Where in its window each segment may stand; None where no sample comes twice and each may stand anywhere.

    A half of an entry's epoch has the stretch from its first sample to that of the next half; the first one of an entry
    begins, and the last one ends, with the window.

    Args:
        segments: of a window.
        sources: the source of each entry.
    """
    uses, first, use = np.unique((segments["source"] << 32) + segments["half"], return_index=True, return_inverse=True)
    entries = uses >> 32
    here = set(entries.tolist())
    twins = len({sources[entry] for entry in here}) < len(here)
    if uses.size == len(here) and not twins:
        return None
    begin, new = segments["position"][first], np.diff(entries, prepend=-1) > 0
    begin[new] = 0
    end = np.where(np.append(new[1:], True), int(segments["position"].max()) + 1, np.append(begin[1:], 0))
    names = np.array([sources.index(source) for source in sources])[segments["source"]]
    shards, rows = (int(segments[name].max()) + 1 for name in ("shard", "row"))
    sample = (names * shards + segments["shard"]) * rows + segments["row"]
    return Stretches(begin, end, use, sample, twins)
