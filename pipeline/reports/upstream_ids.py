"""Which sample, or row that was refused, has an id in its input file: for `trace`. Reads columns of the raw tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.names import REFUSED_FILE, SAMPLES_FILE
from vlmill.pipeline.core.sample import SampleId
from vlmill.pipeline.core.shown import describe_more
from vlmill.pipeline.engine.partition_tables import list_raw_tables
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.mapping import LOCK

NAMED = 3
"""Ids that an error names, of those of one id upstream."""


def find_by_upstream_id(root: Path, upstream_id: str) -> SampleId | None:
    """The sample or refused row whose row has this id in its input file; None where none has.

    Ids upstream need not be unique: several sources may have one, and a row of several pages gives it to all of them.

    Raises:
        StoreError: several have it, or a source was not read to its end.
    """
    if not (root / LOCK).is_file():
        return None
    found = list(dict.fromkeys(_list_named(root, upstream_id)))
    if len(found) > 1:
        raise StoreError(
            f"{len(found):,} samples or lost rows have the id {upstream_id!r} in their input files; name one by its id "
            f"here: {', '.join(map(str, found[:NAMED]))}{describe_more(len(found) - NAMED, 'id')}"
        )
    return found[0] if found else None


def _list_named(root: Path, upstream_id: str) -> Iterator[SampleId]:
    recipe = read_locked_recipe(root)
    for source in recipe.sources:
        for tables in list_raw_tables(root, recipe, source):
            for name in (SAMPLES_FILE, REFUSED_FILE):
                path = root / tables.files[name].path
                if "upstream_id" not in pq.read_schema(path).names:  # of an earlier version of `read`
                    continue
                wanted = [("upstream_id", "==", upstream_id)]
                rows = pq.read_table(path, columns=[*SampleId._fields], filters=wanted)
                yield from (SampleId(**row) for row in rows.to_pylist())
