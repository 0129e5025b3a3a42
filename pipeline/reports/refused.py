"""Rows and pages that no sample was made of: what `read` wrote down of each. Reads tables alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.excerpt import escape_text
from vlmill.pipeline.core.names import REFUSED_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import NO_PAGE, SampleId, read_refused
from vlmill.pipeline.engine.partition_tables import PartitionTables, list_raw_tables
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.holding import find_holders
from vlmill.pipeline.takedown.steps import read_record


@dataclass(frozen=True, slots=True)
class Refused:
    """A row of which no sample was made, or such a page of one."""

    id: SampleId  # of the row or page
    partition: str  # that holds it
    reason: Reason  # as the funnel counts it
    detail: str  # what the source said
    excerpt: str  # how the row begins
    upstream_id: str = ""  # of the row in the input file
    taken_down: str = ""  # the rule under which message and excerpt went

    @property
    def kind(self) -> str:
        """What was lost."""
        return "row" if self.id.page == NO_PAGE else "page"


def read_refused_rows(root: Path, recipe: Recipe, source: str) -> Iterator[Refused]:
    """Those of a source, in the order of its rows.

    Raises:
        StoreError: the source was not read to its end, or by a version that wrote nothing down.
    """
    for tables in list_raw_tables(root, recipe, source):
        yield from read_refused_of_partition(root, tables)


def read_refused_of_partition(root: Path, tables: PartitionTables) -> Iterator[Refused]:
    """Those of one partition. Raises StoreError as `read_refused_rows`."""
    paths = tables.paths(root)
    if REFUSED_FILE not in paths:
        raise StoreError(
            f"{tables} was read by an earlier version, which did not keep why rows were refused; "
            f"build again: vlmill build RECIPE --out {root}"
        )
    gone = read_record(paths, "refused")
    for number, row in enumerate(read_refused(paths[REFUSED_FILE])):
        name = SampleId(row["source"], row["file"], row["row"], row["page"])
        said = Reason(row["reason"]), row["detail"], row["excerpt"], row["upstream_id"]
        yield Refused(name, tables.partition, *said, gone.get(number, ""))


def find_refused(root: Path, recipe: Recipe, wanted: SampleId) -> list[Refused]:
    """What was refused under an id: the row or page itself, the row of a page, or all such pages of a row."""
    return [
        one
        for tables in find_holders(root, list_raw_tables(root, recipe, wanted.source), wanted)
        for one in read_refused_of_partition(root, tables)
        if one.id[:3] == wanted[:3] and (one.id.page == wanted.page or NO_PAGE in {one.id.page, wanted.page})
    ]


def describe_refused(found: list[Refused]) -> Iterator[str]:
    """The story of what was refused, for people."""
    for one in found:
        yield str(one.id)
        page = f", page {one.id.page}" if one.id.page != NO_PAGE else ""
        yield f"  input file    {one.id.file}, row {one.id.row}{page} (partition {one.partition})"
        if one.upstream_id:
            yield f"  upstream id   {escape_text(one.upstream_id)}"
        if one.taken_down:
            yield f"  taken down by {one.taken_down}: its message and its beginning are gone from this folder"
        yield f"  lost: {one.reason} (read): {one.detail}".removesuffix(": ")
        if one.excerpt:
            yield f"  the row begins: {one.excerpt}"
