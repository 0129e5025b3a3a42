"""A scaled run: which rows of the surveyed partitions are read, and what fraction of a source these are.

Benchmarks are never scaled: a scaled run is held against all of each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate, groupby
from pathlib import Path

from vlmill.pipeline.core.names import CUTS_FILE
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.survey import PlannedPartition
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.steps.row_sample import find_bound, has_chosen_rows


def scale_rows(partitions: list[PlannedPartition], scale: float) -> list[PlannedPartition]:
    """The partitions of one source at a scale.

    As many neighbours of a file become one as hold the rows of one partition together; those without a chosen row go.
    """
    if scale == 1:
        return partitions
    source = partitions[0].input_file.source
    merged = _merge_neighbours(partitions, int(1 / scale))
    bound = find_bound(source, ((found.input_file.name, found.start, found.stop) for found in merged), scale)
    return [
        replace(found, bound=bound)
        for found in merged
        if has_chosen_rows(source, found.input_file.name, found.start, found.stop, bound)
    ]


def _merge_neighbours(partitions: list[PlannedPartition], number: int) -> list[PlannedPartition]:
    """Up to `number` neighbouring partitions of an input file in one, numbered anew from 0."""
    merged = list[PlannedPartition]()
    for _, found in groupby(partitions, key=lambda partition: partition.input_file.number):
        chunks = list(found)
        for chunk, first in enumerate(range(0, len(chunks), number)):
            members = chunks[first : first + number]
            merged.append(replace(members[0], chunk=chunk, stop=members[-1].stop))
    return merged


def count_source_rows(root: Path, recipe: Recipe, source: str) -> int:
    """Rows of a source's input files that its recipe takes in without a scale.

    Raises:
        StoreError: the source was not surveyed to its end.
    """
    rows = sum(_list_partition_rows(root, source))
    return rows if recipe.limit is None else min(rows, recipe.limit)


def count_source_partitions(root: Path, recipe: Recipe, source: str) -> int:
    """The partitions that these rows are cut into. Raises StoreError as `count_source_rows`."""
    rows = _list_partition_rows(root, source)
    before = accumulate(rows, initial=0)
    return sum(recipe.limit is None or first < recipe.limit for first, _ in zip(before, rows, strict=False))


def _list_partition_rows(root: Path, source: str) -> list[int]:
    """The rows of each surveyed partition of a source, in the order of its files."""
    found = list[int]()
    for receipt in read_manifest(root, f"steps/{source}/survey"):
        (cuts,) = (file for file in receipt.files if file.name == CUTS_FILE)
        found += [stop - start for start, stop in json.loads((root / cuts.path).read_bytes())]
    return found


def compute_read_fraction(root: Path, recipe: Recipe, sources: Iterable[str]) -> float:
    """The fraction of the rows of some sources together that a run read.

    Raises:
        StoreError: a source was not read to its end.
    """
    read = rows = 0
    for source in sources:
        read += sum(receipt.counts["rows"]["in"] for receipt in read_manifest(root, f"steps/{source}/read"))
        rows += count_source_rows(root, recipe, source)
    return read / rows
