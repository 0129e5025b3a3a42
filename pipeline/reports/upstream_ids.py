"""Which sample, or row that was refused, has an id upstream: for `trace`. Reads one column of the raw tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.names import REFUSED_FILE, SAMPLES_FILE
from vlmill.pipeline.core.sample import SampleId
from vlmill.pipeline.engine.partition_tables import list_raw_tables
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.mapping import LOCK

NAMED = 3
"""Samples that an error names, of those that have one id upstream."""


def find_upstream_id(root: Path, upstream_id: str) -> SampleId | None:
    """The sample or refused row whose row has this id in its input file; None where none has.

    Ids upstream need not be unique: several sources may have one, and a row of several pages gives it to all of them.

    Raises:
        StoreError: several have it, or a source was not read to its end.
    """
    if not (root / LOCK).is_file():
        return None
    found = list(dict.fromkeys(_list_named(root, upstream_id)))
    if len(found) > 1:
        others = f" and {len(found) - NAMED:,} other samples" if len(found) > NAMED else ""
        raise StoreError(
            f"{len(found):,} samples have the id {upstream_id!r} upstream; name one of them by its id here: "
            f"{', '.join(map(str, found[:NAMED]))}{others}"
        )
    return found[0] if found else None


def _list_named(root: Path, upstream_id: str) -> Iterator[SampleId]:
    recipe = read_locked_recipe(root)
    for source in recipe.sources:
        for tables in list_raw_tables(root, recipe, source):
            for name in (SAMPLES_FILE, REFUSED_FILE):
                wanted = [("upstream_id", "==", upstream_id)]
                rows = pq.read_table(root / tables.files[name].path, columns=[*SampleId._fields], filters=wanted)
                yield from (SampleId(**row) for row in rows.to_pylist())
