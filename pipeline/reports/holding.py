"""Which partitions may hold a row of an input file, without reading the others: for `trace`.

Partitions follow each other as the names of input files do, and then their rows, so the first samples of a few of them
tell: about the logarithm of their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq

from vlmill.pipeline.core.checked import check_hash
from vlmill.pipeline.core.names import REFUSED_FILE, SAMPLES_FILE
from vlmill.pipeline.core.sample import SampleId, read_rows
from vlmill.pipeline.engine.partition_tables import PartitionTables

SEEN = 100
"""Partitions of which the names of input files are read."""

Place = tuple[str, int, int]
"""File, row and page."""


def find_holders(root: Path, tables: Sequence[PartitionTables], wanted: SampleId) -> list[PartitionTables]:
    """The partitions that may hold a sample, or a row or page that was refused, in their order; mostly two.

    Args:
        root: The run's folder.
        tables: Those of a source.
        wanted: An id of it.

    Raises:
        StoreError: a file that is read for it is missing or damaged.
    """
    ordered = sorted(tables, key=lambda at: [int(number) for number in at.partition.split("-")])

    @cache
    def read_first(number: int) -> Place | None:
        file = ordered[number].files[SAMPLES_FILE]
        rows = read_rows(check_hash(root / file.path, file.sha256), ["file", "row", "page"], batch=1)
        return next(((row["file"], row["row"], row["page"]) for row in rows), None)

    behind = _count_before(len(ordered), read_first, wanted[1:])
    stop = _find_next(behind, len(ordered), read_first)
    return ordered[max(behind - 1, 0) : stop + 1]


def list_files(root: Path, tables: Sequence[PartitionTables]) -> set[str]:
    """The input files that some rows of a source come from: of at most SEEN of its partitions, from all over them."""
    found = set[str]()
    for place in range(min(len(tables), SEEN)):
        at = tables[place * len(tables) // min(len(tables), SEEN)]
        for name in {SAMPLES_FILE, REFUSED_FILE} & at.files.keys():
            found |= {*pq.read_table(root / at.files[name].path, columns=["file"])["file"].unique().to_pylist()}
    return found


def _count_before(count: int, read_first: Callable[[int], Place | None], wanted: Place) -> int:
    """How many partitions there are up to the last one that begins at the wanted place or before it."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        at = _find_next(middle, high, read_first)
        first = read_first(at) if at < high else None
        if first is None or first > wanted:
            high = middle
        else:
            low = at + 1
    return low


def _find_next(number: int, stop: int, read_first: Callable[[int], Place | None]) -> int:
    """The first partition from `number` on that holds samples; `stop` where none does."""
    while number < stop and read_first(number) is None:
        number += 1
    return number
