"""How many rows, and partitions of them, the files of a source have, as far as it is cheap to know before a build."""

from __future__ import annotations

from collections.abc import Sequence

from vlmill.pipeline.checks.looked_rows import LookedFile
from vlmill.pipeline.core.errors import BadFileError
from vlmill.pipeline.inputs.files import InputFile, open_input
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.sources.formats.packed import ROWS, find_ending, strip_packing
from vlmill.pipeline.steps.row_sample import LEAST_ROWS
from vlmill.pipeline.steps.survey import SHARED_BYTES

COUNTED = 100
"""Parquet files whose footers are read to count rows; those of others follow by their bytes."""


def count_rows(
    recipe: Recipe, name: str, files: Sequence[InputFile], first: InputFile, looked: Sequence[LookedFile]
) -> int:
    """The rows of all files, where those that were looked at have so many: counted where that is cheap, else by bytes.

    Of Parquet files here it is, since their footers know. Where the file is one row, as a PDF is, each is taken for
    one.
    """
    known = looked[0].rows
    if len(files) == 1:
        return known
    source = recipe.source(name)
    ending = find_ending(first.name)
    if known == 1 and not source.ranged(first.name) and ending != ".tar" and strip_packing(ending) not in ROWS:
        return len(files)
    if all(file.on_disk and source.ranged(file.name) for file in files[:COUNTED]):
        head = {first, *files[:COUNTED]}
        counted = known + sum(_survey_rows(recipe, name, file) for file in files[:COUNTED] if file is not first)
        sizes = sum(file.size for file in files), sum(file.size for file in head)
        return counted if len(files) <= COUNTED else round(counted * sizes[0] / max(sizes[1], 1))
    rows, size = sum(one.rows for one in looked), sum(one.size for one in looked)
    alike = len(looked) > 1 and len({one.rows for one in looked}) == 1  # as files of one row are, or shards of 10,000
    if alike or len(looked) == len(files) or not size:
        return round(rows * len(files) / len(looked))
    return round(rows * sum(file.size for file in files) / size)


def _survey_rows(recipe: Recipe, name: str, file: InputFile) -> int:
    """The rows of a file; none of a bad one that the recipe skips."""
    try:
        with open_input(file) as path:
            return len(recipe.source(name).survey(path))
    except BadFileError:
        if recipe.sources[name].on_bad_file == "error":
            raise
        return 0


def count_partitions(recipe: Recipe, files: Sequence[InputFile], rows: int) -> int:
    """About how many partitions so many rows of files make, if these are alike: small ones share a partition."""
    rows_of_file, bytes_of_file = (-(-total // len(files)) for total in (rows, sum(file.size for file in files)))
    chunks = -(-rows_of_file // recipe.partition.rows)
    if chunks > 1:
        return len(files) * chunks
    sharing = min(
        recipe.partition.rows // max(rows_of_file, 1),
        min(recipe.partition.bytes, SHARED_BYTES) // max(bytes_of_file, 1),
    )
    return -(-len(files) // max(sharing, 1))


def count_taken(recipe: Recipe, rows: int) -> int:
    """How many of a source's rows its limit and scale leave; a scale decides by hash, so about as many."""
    limited = rows if recipe.limit is None else min(rows, recipe.limit)
    return limited if recipe.scale == 1 else min(limited, max(round(limited * recipe.scale), LEAST_ROWS))
