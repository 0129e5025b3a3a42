"""Whether a source in code of the user gives the same rows when it is asked again: the first of a file, three times.

Partitions are planned from one reading and read in another, in any order and by any worker, and a build that goes on
after a crash reads again. What differs only between processes, or after a while, is not seen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.recipe.custom_sources import CustomSource
from vlmill.pipeline.sources import Page, SourceRow

COMPARED = 20
"""Rows of a file that are compared."""

SURVEYED_BYTES = 16 << 20
"""Bytes of a file that is surveyed twice as well, at most."""

REMEDY = (
    "; what it gives has to follow from the bytes of the file alone, and not from the time, random numbers without a "
    "seed, or what was read before"
)


def refuse_other_rows(source: CustomSource, path: Path) -> None:
    """Read the first rows of a file, again, and the second half of them alone, and compare them.

    Of broken rows the reasons are compared and not the messages. The file is surveyed twice where it is small.

    Raises:
        SourceError: they differ; or as the source raises.
    """
    what = f"source {source.entry!r} of kind {source.kind!r} ({source.file})"
    if path.stat().st_size <= SURVEYED_BYTES:
        first, second = source.survey(path), source.survey(path)
        if first != second:
            raise SourceError(
                f"{what}: survey gives {len(first):,} rows of {sum(first):,} bytes for {path}, and asked again "
                f"{len(second):,} rows of {sum(second):,} bytes{REMEDY}"
            )
    rows = list(source.rows(path, range(COMPARED)))
    half = len(rows) // 2
    _compare_rows(what, path, rows, list(source.rows(path, range(COMPARED))), "asked again")
    _compare_rows(what, path, rows[half:], list(source.rows(path, range(half, COMPARED))), f"asked from row {half} on")


def _compare_rows(what: str, path: Path, rows: Sequence[SourceRow], again: Sequence[SourceRow], how: str) -> None:
    """Raises SourceError that names the first row which differs, and what of it."""
    if len(rows) != len(again):
        raise SourceError(f"{what}: rows gives {len(rows)} of {path}, and {how} {len(again)} of the same{REMEDY}")
    for one, other in zip(rows, again, strict=True):
        if difference := _find_difference(one, other):
            raise SourceError(f"{what}: row {one.row} of {path} has {difference} when it is {how}{REMEDY}")


def _find_difference(one: SourceRow, other: SourceRow) -> str:
    """What of a row is another in a second reading; empty where nothing is."""
    if one.row != other.row:
        return f"the number {other.row}"
    if [reason for reason, _ in one.failed] != [reason for reason, _ in other.failed]:
        return "other reasons"
    if len(one.pages) != len(other.pages):
        return "more or fewer pages"
    for page, again in zip(one.pages, other.pages, strict=True):
        for part in fields(Page):
            if repr(getattr(page, part.name)) != repr(getattr(again, part.name)):  # as text, NaN is NaN
                return f"other {part.name}"
    return ""
