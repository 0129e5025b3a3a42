"""Step `candidates`: which texts and images of one bucket are worth comparing.

Also which lines of a host are repeated, over all sources.

Looks at places alone, so it is cheap. A similar pair meets at many places; `pairs` measures it once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.dedupe import picture_places
from vlmill.pipeline.dedupe.domain import LINES, find_repeated

BUCKET_BITS = picture_places.GROUP_BITS
"""Leading bits of a place that say which bucket it belongs to, so that groups stay whole; there are at most 8,192
buckets."""

FILE = "file"
"""Column of the places of a block: which of the partitions, in the order of their names (gather.py)."""

ROW_GROUP = 4096
HELD = 1 << 20
"""Meetings, about, that are held before each pair is kept once: 64 MB while they are sorted."""

CANDIDATES = pa.schema(
    [
        ("one", pa.uint64()),
        ("other", pa.uint64()),
        *((f"{end}_{name}", pa.int64()) for end in ("one", "other") for name in ("file", "start", "stop")),
    ]
)
"""Content keys, one < other, sorted; and where the evidence on each lies: which of the partitions in the order of their
names, which rows."""

Places = NDArray[np.uint64]


@dataclass(frozen=True)
class Kind:
    """What can be similar, and how that is seen."""

    name: str
    group_bits: int  # leading bits of their places that candidates share
    hash_bits: int  # last bits of their places in which candidates differ by at most near_bits; 0: not compared
    near_bits: int
    evidence: str  # what it is measured on: of texts, or of images


TEXT = Kind("text", 64, 0, 0, "text")
IMAGE = Kind("image", picture_places.GROUP_BITS, picture_places.HASH_BITS, picture_places.NEAR_BITS, "image")
CONTAINED = Kind("contained", 64, 0, 0, "text")
"""Texts of which one may stand in the other."""


def list_kinds(*, containment: bool) -> tuple[Kind, ...]:
    """What is compared: texts, images, and on request texts with those that they may stand in."""
    return (TEXT, IMAGE, *((CONTAINED,) if containment else ()))


@dataclass(frozen=True)
class FindCandidates:
    """Step: the candidates of one bucket of places. Pure.

    Counts `text_candidates`, `image_candidates` and perhaps `contained_candidates`: kept is what is to be measured,
    dropped for PAIR_CAP what shares a place and is not; and `repeated_lines`.
    """

    name: ClassVar[str] = "candidates"
    version: ClassVar[int] = 4
    pure: ClassVar[bool] = True

    bucket: int
    buckets: int
    cap: int  # things that each thing of a group is compared with: its next ones in the order of places
    containment: bool  # whether texts that stand in others are looked for

    @property
    def reads(self) -> tuple[str, ...]:
        """The places of all partitions, or of blocks of them."""
        kinds = list_kinds(containment=self.containment)
        return tuple(f"*/*/{thing}.places.parquet" for thing in (*(kind.name for kind in kinds), "line"))

    def made_by(self) -> Mapping[str, str]:
        """The libraries that calculate and write."""
        return {"numpy": version("numpy"), "pyarrow": version("pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<kind>.candidates.parquet` for each kind, and `line.repeats.parquet`.

        The order of `inputs` does not matter.
        """
        first_place, last_place = split_range(self.bucket, self.buckets, BUCKET_BITS)
        repeats = find_repeated(*_read_columns("line", LINES.names, inputs, first_place, last_place)[0])
        table = pa.Table.from_arrays([pa.array(column) for column in repeats], schema=LINES)
        pq.write_table(table, folder / "line.repeats.parquet", compression="zstd")
        counts = {"repeated_lines": Count(table.num_rows, table.num_rows)}
        for kind in list_kinds(containment=self.containment):
            filed = _read_places(kind, inputs, first_place, last_place)
            first, second, excess = find_candidates(kind, filed.places, filed.keys, self.cap)
            path = folder / f"{kind.name}.candidates.parquet"
            pq.write_table(_make_candidates(filed, first, second), path, compression="zstd", row_group_size=ROW_GROUP)
            counts[f"{kind.name}_candidates"] = count = Count()
            count.keep(first.size)
            count.lose(Reason.PAIR_CAP, excess)
        return counts


def find_candidates(
    kind: Kind, places: Places, keys: NDArray[np.uint64], cap: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Rows of each pair of different keys to compare, once, the smaller key first.

    Also the number of pairs at one place that were left out for `cap`.

    Args:
        kind: Says which rows make a group.
        places: Sorted.
        keys: Of the things filed there, sorted within a place.
        cap: Rows of its group that follow a row and are compared with it.
    """
    groups = places >> np.uint64(64 - kind.group_bits)
    names, owners = np.unique(keys, return_inverse=True)
    found, held = [np.empty((2, 0), np.int64)], 0
    looked_at = 0
    for distance in range(1, min(cap, places.size - 1) + 1):
        row = np.flatnonzero(groups[distance:] == groups[:-distance])
        looked_at += int((places[row] == places[row + distance]).sum())
        row = row[_compare_hashes(kind, places[row], places[row + distance]) & (keys[row] != keys[row + distance])]
        found.append(np.stack([row, row + distance]))
        held += row.size
        if held > HELD:  # pictures that look alike meet at most of their places
            found = [_choose_first(np.concatenate(found, axis=1), owners, names.size)]
            held = 0
    sizes = np.unique(places, return_counts=True)[1]
    excess = int((sizes * (sizes - 1) // 2).sum()) - looked_at
    pairs = _choose_first(np.concatenate(found, axis=1), owners, names.size)
    swapped = keys[pairs[0]] > keys[pairs[1]]
    return np.where(swapped, pairs[1], pairs[0]), np.where(swapped, pairs[0], pairs[1]), excess


def _choose_first(pairs: NDArray[np.int64], owners: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """(2, m): of pairs of rows the first of each pair of keys, sorted by these.

    Args:
        pairs: (2, n), rows.
        owners: Of rows, the rank of their key.
        number: Keys.
    """
    ends = np.sort(owners[pairs], axis=0)
    first = np.unique(ends[0] * number + ends[1], return_index=True)[1]
    chosen: NDArray[np.int64] = pairs[:, first]
    return chosen


def count_neighbours(kind: Kind, places: Places, cap: int) -> float:
    """Rows of its group that follow a row and that it is compared with, `cap` at most, on average; 0 of no rows. Pure.

    It grows with the rows up to `cap`, and so do the candidates of each thing.
    """
    sizes = np.unique(places >> np.uint64(64 - kind.group_bits), return_counts=True)[1]
    following = sum(int(np.maximum(sizes - distance, 0).sum()) for distance in range(1, cap + 1))
    return following / places.size if places.size else 0.0


def grow_pairs(neighbours: float, cap: int, times: float) -> float:
    """How many times as many candidates each thing has among so many times as many things. Pure.

    Args:
        neighbours: Of a row now, see `count_neighbours`.
        cap: As there.
        times: 1 and more.
    """
    return min(times, max(cap / neighbours, 1)) if neighbours else 1.0


def grow_measured(candidates: float, nearest: int, times: float) -> float:
    """How many times as many pairs of each thing are measured when it has so many times as many candidates. Pure.

    Of things that are all candidates of each other, one has between none and twice the average, evenly: those with a
    higher key. At most `nearest` of them are measured.

    Args:
        candidates: Of a thing now, on average, each pair counted once.
        nearest: See `MeasurePairs`.
        times: 1 and more.
    """

    def count_measured(average: float) -> float:
        return average if 2 * average <= nearest else nearest - nearest**2 / (4 * average)

    return count_measured(candidates * times) / count_measured(candidates) if candidates else 1.0


def _compare_hashes(kind: Kind, one: Places, other: Places) -> NDArray[np.bool_]:
    if not kind.hash_bits:
        return np.ones(one.size, bool)
    mask = np.uint64((1 << kind.hash_bits) - 1)
    differing: NDArray[np.uint8] = np.bitwise_count((one ^ other) & mask)
    return differing <= kind.near_bits


@dataclass(frozen=True)
class _Filed:
    """The places of one bucket, and where the evidence on their keys is."""

    places: Places
    keys: NDArray[np.uint64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    files: NDArray[np.int64]


def _make_candidates(filed: _Filed, first: NDArray[np.int64], second: NDArray[np.int64]) -> pa.Table:
    """CANDIDATES of pairs of rows."""
    columns: list[NDArray[Any]] = [filed.keys[first], filed.keys[second]]
    for rows in (first, second):
        columns += [filed.files[rows], filed.starts[rows].astype(np.int64), filed.stops[rows].astype(np.int64)]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=CANDIDATES)


def _read_places(kind: Kind, inputs: Inputs, first: int, last: int) -> _Filed:
    """The rows [first, last] of all partitions, one for each content and place, sorted by place and key."""
    columns, files = _read_columns(kind.name, ("place", "key", "start", "stop"), inputs, first, last)
    places, keys, starts, stops = columns
    order = np.lexsort((files, keys, places))
    new = np.ones(order.size, bool)
    new[1:] = (np.diff(places[order]) != 0) | (np.diff(keys[order]) != 0)
    order = order[new]
    return _Filed(places[order], keys[order], starts[order], stops[order], files[order])


def _read_columns(
    thing: str, names: Sequence[str], inputs: Inputs, first: int, last: int
) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
    """Columns of the rows with a place in [first, last], and the partition of each row.

    Partitions are in the order of their names.
    """
    paths = [inputs[name] for name in sorted(inputs) if name.endswith(f"/{thing}.places.parquet")]
    gathered = FILE in pq.read_schema(paths[0]).names
    parts = [read_span(path, (*names, FILE) if gathered else names, first, last) for path in paths]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    if gathered:
        return columns[:-1], columns[-1]
    return columns, np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])


def split_range(number: int, parts: int, bits: int) -> tuple[int, int]:
    """First and last of the 64-bit values of a part, where `parts` share the leading `bits` evenly."""
    first, stop = (-(-place * (1 << bits) // parts) << (64 - bits) for place in (number, number + 1))
    return first, stop - 1


def read_span(path: Path, names: Sequence[str], first: int, last: int) -> list[NDArray[Any]]:
    """Columns of the rows whose first column, by which the file is sorted, lies in [first, last].

    Reads the row groups that hold them, which lie side by side.
    """
    with pq.ParquetFile(path) as file:
        groups = [number for number in range(file.num_row_groups) if _overlaps_range(file, number, first, last)]
        table = file.read_row_groups(groups, columns=list(names))
    columns = [table.column(name).to_numpy() for name in names]
    start = np.searchsorted(columns[0], np.uint64(first), side="left")
    stop = np.searchsorted(columns[0], np.uint64(last), side="right")
    return [column[start:stop] for column in columns]


def _overlaps_range(file: pq.ParquetFile, number: int, first: int, last: int) -> bool:
    held = file.metadata.row_group(number).column(0).statistics
    return held is not None and held.has_min_max and held.min <= last and held.max >= first
