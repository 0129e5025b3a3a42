"""Which sample, or row that was refused, has an id, an address or an image in its input file: for `trace`.

Reads columns of the raw tables.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.names import REFUSED_FILE, SAMPLES_FILE
from vlmill.pipeline.core.sample import SampleId
from vlmill.pipeline.core.shown import describe_more
from vlmill.pipeline.engine.partition_tables import list_raw_tables
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.mapping import LOCK

NAMED = 20
"""Ids that an error names, of those of one id upstream."""
ALL = "; vlmill takedown {root} --row-id {name} takes all of them down"


def find_named_sample(root: Path, name: str) -> SampleId | None:
    """The sample or refused row with this id in its input file, else the sample of this address, or with this image.

    None of these need be unique: several sources may have an id, a row of several pages gives it to all of them, and an
    image, named by its address or path, may stand in several samples.

    Args:
        root: The run's folder.
        name: As the input file has it.

    Returns:
        The sample's id; None where there is none.

    Raises:
        StoreError: several have the name, or a source was not read to its end.
    """
    if not (root / LOCK).is_file():
        return None
    for what, listed in (("the id", list_by_row_id), ("the address or image", _list_by_address)):
        found = list(dict.fromkeys(listed(root, name)))
        if len(found) > 1:
            raise StoreError(
                f"{len(found):,} samples or lost rows have {what} {name!r} in their input files; name one by its id "
                f"here: {', '.join(map(str, found[:NAMED]))}{describe_more(len(found) - NAMED, 'id')}"
                f"{ALL.format(root=root, name=shlex.quote(name)) if listed is list_by_row_id else ''}"
            )
        if found:
            return found[0]
    return None


def list_by_row_id(root: Path, upstream_id: str) -> Iterator[SampleId]:
    """The samples and refused rows of all rows with this id in their input file.

    Raises:
        StoreError: a source was not read to its end.
    """
    for path in _list_tables(root, SAMPLES_FILE, REFUSED_FILE):
        if "upstream_id" not in pq.read_schema(path).names:  # of an earlier version of `read`
            continue
        wanted = [("upstream_id", "==", upstream_id)]
        rows = pq.read_table(path, columns=[*SampleId._fields], filters=wanted)
        yield from (SampleId(**row) for row in rows.to_pylist())


def _list_by_address(root: Path, address: str) -> Iterator[SampleId]:
    for path in _list_tables(root, SAMPLES_FILE):
        table = pq.ParquetFile(path).read(columns=[*SampleId._fields, "url", "nodes.list.element.url"])
        nodes = table["nodes"].combine_chunks()
        shown = pc.equal(pc.struct_field(pc.list_flatten(nodes), "url"), address)
        rows = pc.list_parent_indices(nodes).filter(shown)
        places = {*rows.to_pylist(), *pc.indices_nonzero(pc.equal(table["url"], address)).to_pylist()}
        for place in sorted(places):
            yield SampleId(*(table[name][place].as_py() for name in SampleId._fields))


def _list_tables(root: Path, *names: str) -> Iterator[Path]:
    """The raw tables of these names, of all sources."""
    recipe = read_locked_recipe(root)
    for source in recipe.sources:
        for tables in list_raw_tables(root, recipe, source):
            yield from (root / tables.files[name].path for name in names)
