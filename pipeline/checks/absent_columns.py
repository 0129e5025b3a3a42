"""For `check`: columns that options name, that rows may lack, and that no row has.

Files without a column that a kind needs are refused where they are read. Numbers that travel with samples are looked
for among these (sample_warnings.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlmill.pipeline.checks.looked_rows import LookedFile
from vlmill.pipeline.core.config import suggest_nearest
from vlmill.pipeline.core.errors import BadFileError
from vlmill.pipeline.sources import Source
from vlmill.pipeline.sources.formats.keyed import has_id_option
from vlmill.pipeline.sources.formats.records import read_places
from vlmill.pipeline.sources.known_keys import format_id, has_value, is_number
from vlmill.pipeline.sources.names import list_names
from vlmill.pipeline.sources.nested import find_place, list_objects

OPTIONAL = ("url", "id", "licence", "system", "choices", "ocr_boxes")
"""Options that name what a row may lack."""
HELD = {"url": "an address", "id": "an id"}
"""What has to stand there; else anything."""


def warn_of_absent_columns(looked: Sequence[LookedFile], name: str, source: Source) -> tuple[str, ...]:
    """A line for each option that names a place where no row holds anything: a misspelt one would be noticed by nobody.

    Args:
        looked: Files, with as many of their rows as are looked at.
        name: Of the source, in the recipe.
        source: How its files are read.
    """
    named = list(_list_named(source)) if has_id_option(type(source)) else []  # others have fixed columns
    rows = list(_read_rows(looked, [place for _, place in named])) if named else []
    absent = [(option, place) for option, place in named if _is_absent(option, place, rows)]
    return tuple(_describe_absence(name, option, place, rows) for option, place in absent)


def _list_named(source: Source) -> Iterator[tuple[str, str]]:
    """(option, dotted name) of what a row may lack; not the default of one, which nobody wrote."""
    for option in OPTIONAL:
        named = getattr(source, option, "")
        if named != getattr(type(source), option, ""):
            yield from ((option, place) for place in list_names(named))


def _read_rows(looked: Sequence[LookedFile], places: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for one in looked:
        try:
            yield from read_places(one.path, places, range(one.rows))
        except BadFileError:  # which the build says, or passes over
            continue


def _is_absent(option: str, place: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    return bool(rows) and not any(_holds_value(option, find_place(row, place)) for row in rows)


def _holds_value(option: str, value: Any) -> bool:
    """Whether a value is what an option reads."""
    return bool(format_id(value)) if option == "id" else has_value(value) or is_number(value)


def _describe_absence(name: str, option: str, place: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong, with the nearest name that the rows have in the object that the place lies in."""
    within, _, _ = place.rpartition(".")
    objects = [held for row in rows for held in (list_objects(find_place(row, within)) if within else [row])]
    names = dict.fromkeys(f"{within}.{key}" if within else key for held in objects for key in held)
    near = suggest_nearest([place], [one for one in names if one != place])
    rows_said = f"none of the {len(rows)} rows that were looked at"
    said = f"source {name}: options.{option} names {place!r}, and {rows_said} has {HELD.get(option, 'anything')} there"
    return f"{said}; {near.strip()}" if near else said
