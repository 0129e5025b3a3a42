"""Step `places`: the places of many partitions in one file, so that a bucket opens a file for each block of them.

A run of few partitions does without: its buckets read the partitions' own files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.dedupe.candidates import BUCKET_BITS, FILE, list_kinds, read_span, split_range
from vlmill.pipeline.dedupe.domain import LINES
from vlmill.pipeline.dedupe.signature import PLACES

FEW = 64
"""Partitions of a block, and of a run that has no blocks."""
SLICE = 1 << 19
"""Places, about, that are sorted at once: what a task holds, about 0.1 GB."""
GROUP = 1 << 14
"""Rows of a row group: a block has 64 times the rows of a partition, and each bucket reads where its groups lie."""


@dataclass(frozen=True)
class GatherPlaces:
    """Step: the places of a block. Pure. Counts `places_gathered`."""

    first: int  # partitions before those of the block, in the order of names
    partitions: tuple[str, ...]  # `<source>/<partition>`, in that order
    containment: bool

    name: ClassVar[str] = "places"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The places of the partitions."""
        things = self._list_things()
        return tuple(f"{partition}/{thing}.places.parquet" for partition in self.partitions for thing in things)

    def made_by(self) -> Mapping[str, str]:
        """The libraries that sort and write."""
        return {library: version(library) for library in ("numpy", "pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<kind>.places.parquet` with a column `file`, and `line.places.parquet`."""
        count = Count()
        for thing, places in self._list_things().items():
            schema = places.append(pa.field(FILE, pa.int64()))
            paths = [inputs[f"{partition}/{thing}.places.parquet"] for partition in self.partitions]
            with pq.ParquetWriter(folder / f"{thing}.places.parquet", schema, compression="zstd") as writer:
                slices = min(-(-sum(pq.read_metadata(path).num_rows for path in paths) // SLICE), 1 << BUCKET_BITS)
                for number in range(slices):
                    table = self._gather_slice(paths, schema, *split_range(number, slices, BUCKET_BITS))
                    writer.write_table(table, row_group_size=GROUP)
                    count.keep(table.num_rows)
        return {"places_gathered": count}

    def _list_things(self) -> dict[str, pa.Schema]:
        return {**{kind.name: PLACES for kind in list_kinds(containment=self.containment)}, "line": LINES}

    def _gather_slice(self, paths: Sequence[Path], schema: pa.Schema, first: int, last: int) -> pa.Table:
        """The rows of a range of places, sorted by place, and those of one by partition."""
        parts = [read_span(path, schema.names[:-1], first, last) for path in paths]
        files = np.repeat(np.arange(len(parts)) + self.first, [len(part[0]) for part in parts])
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        return pa.Table.from_arrays([pa.array(column[order]) for column in (*columns, files)], schema=schema)


def cut_partitions(partitions: Sequence[str], *, containment: bool) -> tuple[GatherPlaces, ...]:
    """The steps for blocks of FEW partitions, in the order of names; none where there are no more. Pure."""
    ordered = sorted(partitions, key=lambda partition: f"{partition}/")
    if len(ordered) <= FEW:
        return ()
    return tuple(
        GatherPlaces(first, tuple(ordered[first : first + FEW]), containment) for first in range(0, len(ordered), FEW)
    )
