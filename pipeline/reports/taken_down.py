"""Which samples of a run were taken down: those of which no table has a text any more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlmill.pipeline.core.names import SAMPLES_FILE
from vlmill.pipeline.core.sample import SampleId, read_rows
from vlmill.pipeline.engine.partition_tables import list_raw_tables
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.takedown.steps import read_record


def list_taken_down(root: Path, recipe: Recipe) -> Iterator[str]:
    """The ids of these samples."""
    for source in recipe.sources:
        for at in list_raw_tables(root, recipe, source):
            paths = at.paths(root)
            if gone := read_record(paths, "samples"):
                rows = enumerate(read_rows(paths[SAMPLES_FILE], list(SampleId._fields)))
                yield from (str(SampleId(**row)) for number, row in rows if number in gone)
