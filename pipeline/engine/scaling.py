"""A scaled run: which rows of the surveyed partitions are read, and what fraction of a source these are.

Benchmarks are never scaled: a scaled run is held against all of each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate, groupby
from pathlib import Path

from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.survey import PlannedPartition, read_chunks
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.steps.row_sample import find_bound, has_chosen_rows
from vlmill.pipeline.steps.survey import group_chunks


def scale_rows(partitions: list[PlannedPartition], scale: float) -> list[PlannedPartition]:
    """The partitions of one source at a scale.

    As many neighbours of a file become one as hold the rows of one partition together. Files and partitions without a
    chosen row go.
    """
    if scale == 1:
        return partitions
    source = partitions[0].source
    merged = _merge_neighbours(partitions, int(1 / scale))
    bound = find_bound(source, (found for partition in merged for found in partition.ranges), scale)
    chosen = (
        replace(
            partition,
            bound=bound,
            inputs=tuple(found for found in partition.inputs if has_chosen_rows(source, *found.range, bound)),
        )
        for partition in merged
    )
    return [partition for partition in chosen if partition.inputs]


def _merge_neighbours(partitions: list[PlannedPartition], number: int) -> list[PlannedPartition]:
    """Up to `number` neighbouring chunks of an input file in one, numbered anew from 0; partitions of others stay."""
    merged = list[PlannedPartition]()
    for _, found in groupby(partitions, key=lambda partition: partition.number):
        chunks = list(found)
        if len(chunks) == 1:
            merged += chunks
            continue
        for chunk, first in enumerate(range(0, len(chunks), number)):
            (begin,), (*_, (end,)) = chunks[first].inputs, (one.inputs for one in chunks[first : first + number])
            merged.append(replace(chunks[first], chunk=chunk, inputs=(replace(begin, stop=end.stop),)))
    return merged


def count_source_rows(root: Path, recipe: Recipe, source: str) -> int:
    """Rows of a source's input files that its recipe takes in without a scale.

    Raises:
        StoreError: the source was not surveyed to its end.
    """
    rows = sum(_list_partition_rows(root, recipe, source))
    return rows if recipe.limit is None else min(rows, recipe.limit)


def count_source_partitions(root: Path, recipe: Recipe, source: str) -> int:
    """The partitions that these rows are cut into. Raises StoreError as `count_source_rows`."""
    rows = _list_partition_rows(root, recipe, source)
    before = accumulate(rows, initial=0)
    return sum(recipe.limit is None or first < recipe.limit for first, _ in zip(before, rows, strict=False))


def _list_partition_rows(root: Path, recipe: Recipe, source: str) -> list[int]:
    """The rows of each partition that a surveyed source has without limit and scale, in the order of its files."""
    surveyed = read_manifest(root, f"steps/{source}/survey")
    files = [chunks for receipt in surveyed for chunks in read_chunks(root, receipt)]
    groups = group_chunks(files, recipe.partition.rows, recipe.partition.bytes)
    rows = [[stop - start for start, stop, _ in chunks] for chunks in files]
    return [sum(rows[number][chunk] for number, chunk in group) for group in groups]


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
