"""The plan step, one task per block: the packed sequences of a stretch of the mixture's order.

A block is a whole number of packing windows, and a window is packed on its own: so the sequences are the same however windows are
divided into blocks, shares hold at every window's end, and a block needs nothing but the counts it starts from. Within a window
sequences are dealt out by what they hold, so that those of one step are a small image of the window.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice, pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlmill.mixtures.algorithms.order import make_order_key, permute_index
from vlmill.mixtures.algorithms.pack import pack_segments
from vlmill.mixtures.steps.mix import order_samples
from vlmill.mixtures.steps.selection import Selection
from vlmill.pipeline.core.sample import read_array
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
    ]
)
SEQUENCES = pa.schema(
    [
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("tiles", pa.int32(), nullable=False),
        pa.field("segments", pa.list_(pa.field("item", SEGMENT, nullable=False)), nullable=False),
    ]
)

GOLDEN_RATIO = (5**0.5 - 1) / 2

Columns = dict[str, np.ndarray]
"""Segments in order, an entry per segment in each array: `position` in the mixture's order, and the fields of SEGMENT."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Plans one block. Reads the mix and the arrays of every entry."""

    block: int

    name: ClassVar[str] = "plan"
    version: ClassVar[int] = 2
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The mix, and the entries' arrays behind their labels."""
        return ("mix.json", "starts.npy", "*/sizes.npy", "*/cuts.npy", "*/shards.npy")

    def made_by(self) -> Mapping[str, str]:
        """The array library and the table writer."""
        return {"numpy": version("numpy"), "pyarrow": version("pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<block>.parquet`; counts samples, segments and packed sequences."""
        mix = json.loads(inputs["mix.json"].read_text(encoding="utf-8"))
        settings = mix["mixture"]
        starts = read_array(inputs["starts.npy"], mapped=False)
        entries = [
            Selection.open(inputs, entry["label"], settings["unit"], mix["seed"], settings["shard_window"])
            for entry in mix["entries"]
        ]
        samples = int(starts[self.block + 1].sum() - starts[self.block].sum())
        order = np.fromiter(
            islice(order_samples(entries, starts[self.block].tolist(), starts[-1].tolist()), samples), np.int64
        )
        segments = gather_segments(entries, order, starts[self.block])
        first = self.block * settings["windows_per_block"]
        packed = 0
        with pq.ParquetWriter(folder / f"{self.block:05d}.parquet", SEQUENCES, compression="zstd") as writer:
            for window, here in enumerate(_split_windows(segments, settings["pack_window"]), start=first):
                sequences = pack_segments(
                    here["tokens"], here["tiles"], settings["sequence_length"], settings["tiles_per_sequence"]
                )
                table = _make_table(here, sequences, make_order_key(mix["seed"], "rows", window))
                writer.write_table(table)
                packed += table.num_rows
        numbers = {"samples": order.size, "segments": segments["row"].size, "packed_sequences": packed}
        return {level: Count(number, number) for level, number in numbers.items()}


def gather_segments(entries: Sequence[Selection], order: np.ndarray, start: np.ndarray) -> Columns:
    """The segments of the samples that `order` calls for, in its order; pure.

    Args:
        entries: of the mixture.
        order: the entry of each sample.
        start: items of each entry that came before.
    """
    found: list[Columns] = []
    for source, (entry, first) in enumerate(zip(entries, start.tolist(), strict=True)):
        positions = np.flatnonzero(order == source)
        for epoch, samples in entry.items(first, first + positions.size):
            here, positions = positions[: samples.size], positions[samples.size :]
            segments = entry.segments(samples)
            shard, row = entry.place(samples[segments.item])
            count = segments.item.size
            columns = {
                "position": here[segments.item],
                "source": np.full(count, source),
                "shard": shard,
                "row": row,
            }
            columns |= {name: getattr(segments, name) for name in ("first", "last", "tokens", "tiles")}
            found.append({**columns, "epoch": np.full(count, epoch)})
    joined = (
        {name: np.concatenate([columns[name] for columns in found]) for name in found[0]} if found else _make_empty()
    )
    by_position = np.argsort(joined["position"], kind="stable")
    return {name: column[by_position] for name, column in joined.items()}


def _make_empty() -> Columns:
    return {name: np.empty(0, np.int64) for name in ("position", *(f.name for f in SEGMENT))}


def _split_windows(segments: Columns, window: int) -> Iterator[Columns]:
    """The segments of each `window` samples."""
    samples = int(segments["position"].max(initial=-1)) + 1
    bounds = np.searchsorted(segments["position"], range(0, samples + window, window))
    for first, last in pairwise(bounds.tolist()):
        yield {name: column[first:last] for name, column in segments.items()}


def _make_table(segments: Columns, packed: np.ndarray, key: int) -> pa.Table:
    """The packed sequences of a window, dealt out; a sequence's segments stay in order."""
    count = int(packed.max(initial=-1)) + 1
    packed = _deal_sequences(segments, packed, count, key)[packed]
    order = np.argsort(packed, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(packed, minlength=count))])
    fields = [pa.array(segments[f.name][order], f.type) for f in SEGMENT]
    return pa.table(
        [
            *(pa.array(np.bincount(packed, segments[name], count).astype(np.int32)) for name in ("tokens", "tiles")),
            pa.ListArray.from_arrays(
                pa.array(offsets, pa.int32()),
                pa.StructArray.from_arrays(fields, fields=list(SEGMENT)),
                type=SEQUENCES.field("segments").type,
            ),
        ],
        schema=SEQUENCES,
    )


def _deal_sequences(segments: Columns, packed: np.ndarray, count: int, key: int) -> np.ndarray:
    """The place of every sequence: sequences that are alike, in source and tokens of it, end up evenly apart.

    A packer puts like with like, so in a random order steps would differ: over 256 sequences the share of a source of tokens is then off
    by 1.7 points in the mean, dealt out by 0.4. The i-th of the sequences laid beside their like goes to the fraction of i times the
    golden ratio, which leaves no run of places without its entry of them (Weyl's equidistribution), from a keyed start.
    """
    sources = int(segments["source"].max(initial=0)) + 1
    held = np.bincount(packed * sources + segments["source"], segments["tokens"], count * sources).reshape(
        count, sources
    )
    alike = np.lexsort((permute_index(np.arange(count), count, key), held.max(axis=1), held.argmax(axis=1)))
    fractions = np.modf(np.arange(count) * GOLDEN_RATIO + key / 2**64)[0]
    places = np.empty(count, np.int64)
    places[alike[np.argsort(fractions)]] = np.arange(count)
    return places
