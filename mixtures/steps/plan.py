"""The plan step, one task per block: the packed sequences of a stretch of the mixture's order.

A block is a whole number of packing windows, and a window is packed on its own: so the sequences are the same however
windows are divided into blocks, shares hold at every window's end, and a block needs nothing but the counts it starts
from. Within a window sequences are dealt out by what they hold, so that those of one step are a small image of the
window.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlmill.mixtures.algorithms.budget import COARSE, ImageBudget
from vlmill.mixtures.algorithms.order import make_order_key, permute_index
from vlmill.mixtures.algorithms.pack import GOLDEN_RATIO, Stretches, pack_segments
from vlmill.mixtures.algorithms.schedule import Schedule
from vlmill.mixtures.steps.mix import order_samples
from vlmill.mixtures.steps.selection import Selection
from vlmill.mixtures.steps.window import Columns, find_stretches, gather_segments, split_windows
from vlmill.pipeline.core.arrays import read_array
from vlmill.pipeline.core.step import Count, Counts, Inputs

SEGMENT = pa.struct(
    [
        pa.field("source", pa.int16(), nullable=False),  # in the lock
        pa.field("shard", pa.int32(), nullable=False),  # of the source
        pa.field("row", pa.int32(), nullable=False),  # of the shard
        pa.field("first", pa.int32(), nullable=False),  # nodes [first, last) of the sample
        pa.field("last", pa.int32(), nullable=False),
        pa.field("epoch", pa.int16(), nullable=False),  # of the source before this one
        pa.field("tokens", pa.int32(), nullable=False),  # with overhead
        pa.field("tiles", pa.int32(), nullable=False),
        pa.field("begin", pa.int32(), nullable=False),  # from this token of the first node
        pa.field("end", pa.int32(), nullable=False),  # to this token of the last; -1: all of it
    ]
)
EDGE = 1e-6
"""Fraction of a stretch that sequences keep from its ends, where those stand that share two stretches."""

SEQUENCES = pa.schema(
    [
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("tiles", pa.int32(), nullable=False),
        pa.field("segments", pa.list_(pa.field("item", SEGMENT, nullable=False)), nullable=False),
    ]
)
VISUAL = pa.field("visual", pa.int32(), nullable=False)
"""Visual tokens of a sequence, behind its tiles where they are bounded."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Plans one block. Reads the mix and the arrays of every entry."""

    block: int

    name: ClassVar[str] = "plan"
    version: ClassVar[int] = 3
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The mix, and the entries' arrays behind their labels."""
        return ("mix.json", "starts.npy", "*/sizes.npy", "*/units.npy", "*/cuts.npy", "*/shards.npy")

    def made_by(self) -> Mapping[str, str]:
        """The array library and the table writer."""
        return {"numpy": version("numpy"), "pyarrow": version("pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<block>.parquet`; counts samples, segments and packed sequences."""
        mix = json.loads(inputs["mix.json"].read_text(encoding="utf-8"))
        settings = mix["mixture"]
        budget = ImageBudget(settings["tiles_per_sequence"], mix.get("visual_per_sequence"))
        starts = read_array(inputs["starts.npy"], mapped=False)
        entries = [
            Selection.open(inputs, entry["label"], settings["unit"], mix["seed"], settings["shard_window"])
            for entry in mix["entries"]
        ]
        samples = int(starts[self.block + 1].sum() - starts[self.block].sum())
        called = order_samples(entries, starts[self.block].tolist(), starts[-1].tolist(), Schedule.of(mix))
        order = np.fromiter(islice(called, samples), np.int64)
        segments = gather_segments(entries, order, starts[self.block].tolist())
        sources = [entry["entry"]["source"] for entry in mix["entries"]]
        first = self.block * settings["windows_per_block"]
        packed = 0
        schema = SEQUENCES if budget.visual is None else SEQUENCES.insert(2, VISUAL)
        with pq.ParquetWriter(folder / f"{self.block:05d}.parquet", schema, compression="zstd") as writer:
            for window, here in enumerate(split_windows(segments, settings["pack_window"]), start=first):
                apart = find_stretches(here, sources)
                taken = budget.measure(here["tiles"], here["visual"], COARSE)
                sequences = pack_segments(here["tokens"], taken[0], settings["sequence_length"], taken[1], apart)
                table = _make_table(here, sequences, apart, make_order_key(mix["seed"], "rows", window), schema)
                writer.write_table(table)
                packed += table.num_rows
        numbers = {"samples": order.size, "segments": segments["row"].size, "packed_sequences": packed}
        return {level: Count(number, number) for level, number in numbers.items()}


def _make_table(
    segments: Columns, packed: np.ndarray, apart: Stretches | None, key: int, schema: pa.Schema
) -> pa.Table:
    """The packed sequences of a window, dealt out; a sequence's segments stay in order."""
    count = int(packed.max(initial=-1)) + 1
    packed = _deal_sequences(segments, packed, apart, key)[packed]
    order = np.argsort(packed, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(packed, minlength=count))])
    columns = {**segments, "epoch": segments["half"] // 2}
    fields = [pa.array(columns[f.name][order], f.type) for f in SEGMENT]
    return pa.table(
        [
            *(pa.array(np.bincount(packed, segments[name], count).astype(np.int32)) for name in schema.names[:-1]),
            pa.ListArray.from_arrays(
                pa.array(offsets, pa.int32()),
                pa.StructArray.from_arrays(fields, fields=list(SEGMENT)),
                type=SEQUENCES.field("segments").type,
            ),
        ],
        schema=schema,
    )


def _deal_sequences(segments: Columns, packed: np.ndarray, apart: Stretches | None, key: int) -> np.ndarray:
    """The place of every sequence, within its stretch.

    Sequences that are alike, in source and in tokens of it, end up evenly apart.

    A packer puts like with like, so in a random order steps would differ: over 256 sequences the share of a source of
    tokens is then off by 1.7 points in the mean, dealt out by 0.4. The i-th of the sequences laid beside their like
    goes to the fraction of i times the golden ratio, which leaves no run of places without its entry of them (Weyl's
    equidistribution), from a keyed start.
    """
    count, sources = int(packed.max(initial=-1)) + 1, int(segments["source"].max(initial=0)) + 1
    held = np.bincount(packed * sources + segments["source"], segments["tokens"], count * sources).reshape(
        count, sources
    )
    begin, end = np.zeros(count, np.int64), np.ones(count, np.int64)
    if apart is not None:  # what the stretches of a sequence's segments have in common
        end *= apart.end.max()
        np.maximum.at(begin, packed, apart.begin[apart.use])
        np.minimum.at(end, packed, apart.end[apart.use])
    alike = np.lexsort((permute_index(np.arange(count), count, key), held.max(axis=1), held.argmax(axis=1), begin, end))
    fractions = np.modf(np.arange(count) * GOLDEN_RATIO + key / 2**64)[0].clip(EDGE, 1 - EDGE)
    points = _spread_sequences(begin[alike], end[alike], held.sum(axis=1)[alike], fractions)
    places = np.empty(count, np.int64)
    places[alike[np.argsort(points, kind="stable")]] = np.arange(count)
    return places


def _spread_sequences(begin: np.ndarray, end: np.ndarray, tokens: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """The point of the window where each sequence stands, so that tokens lie evenly.

    It is the sequence's fraction of the space left in its stretch.

    Sequences of the shortest stretches are served first; those that may stand in more go where these have left space.
    """
    edges = np.unique([begin, end])
    even = tokens.sum() / max(edges[-1] - edges[0], 1) * np.diff(edges)
    room, points = even.copy(), begin.astype(float)
    found, stretch = np.unique(np.stack([end - begin, begin]), axis=1, return_inverse=True)
    for number, (width, first) in enumerate(found.T.tolist()):
        if not width:  # two stretches meet: there is one point
            continue
        here = np.flatnonzero(stretch.ravel() == number)
        low, high = np.searchsorted(edges, [first, first + width])
        left = np.maximum(room, EDGE * even)[low:high]
        points[here] = np.interp(fractions[here] * left.sum(), np.append(0, np.cumsum(left)), edges[low : high + 1])
        room[low:high] -= tokens[here].sum() * left / left.sum()
    return points
