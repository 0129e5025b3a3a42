"""Of which files of a source a few rows are measured, and how many of each: from all over the list, always the same.

One file may be unlike the others, so what a source costs does not rest on it alone; see estimate.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

from vlmill.pipeline.core.errors import BadFileError
from vlmill.pipeline.inputs.files import InputFile, open_input
from vlmill.pipeline.proposal.looked_files import FILES, choose_files
from vlmill.pipeline.proposal.place_names import get_suffix
from vlmill.pipeline.recipe.schema import Recipe

ENOUGH = 100
"""Rows from which no more files than FILES are opened."""


class LookedFile(NamedTuple):
    """A file of which rows are measured."""

    name: str  # relative to the source's root
    path: Path  # as `open_input` gives it
    rows: int  # that it has, or that are taken of it
    size: int  # in bytes


@contextmanager
def open_looked(
    recipe: Recipe, name: str, files: Sequence[InputFile], first: InputFile, path: Path, rows: int
) -> Iterator[list[LookedFile]]:
    """One file that is open already, and others from all over the list as far as they may be read.

    Bad files that the recipe skips are passed over.

    Raises:
        SourceError: one of them cannot be read.
    """
    source, looked = recipe.source(name), [LookedFile(first.name, path, rows, first.size)]
    listed = [first, *(file for file in files if file is not first)]
    with ExitStack() as opened:
        for file in choose_files(listed, get_suffix(first.name)):
            if len(looked) >= FILES and sum(one.rows for one in looked) >= ENOUGH:
                break
            if file is first:
                continue
            try:
                other = opened.enter_context(open_input(file))
                looked.append(LookedFile(file.name, other, len(source.survey(other)), file.size))
            except BadFileError:
                if recipe.sources[name].on_bad_file == "error":
                    raise
        yield looked


def share_rows(looked: Sequence[LookedFile], wanted: int) -> list[LookedFile]:
    """The files with so many of their rows as are taken: `wanted` in all, or all there are, in proportion. Pure.

    Files of which none is taken are left out; where none is wanted the first stands alone.
    """
    total = sum(one.rows for one in looked)
    wanted = min(wanted, total)
    if not wanted:
        return [looked[0]._replace(rows=0)]
    ends = ((2 * wanted * end + total) // (2 * total) for end in accumulate((one.rows for one in looked), initial=0))
    taken = [one._replace(rows=last - start) for one, (start, last) in zip(looked, pairwise(ends), strict=True)]
    return [one for one in taken if one.rows]
