"""Which image files, of those that the first rows of a source name, are not under its `images`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import read_rows
from vlmill.pipeline.reports.image_places import explain_outside, find_image_place

LOST = frozenset({Reason.MISSING_FILE, Reason.FORBIDDEN_ADDRESS})


@dataclass(frozen=True)
class LostFiles:
    """What there is to say of them."""

    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def find_lost_files(table: Path, source: str, images: str) -> LostFiles:
    """A fault where none of several files is there, a warning where some are not.

    Args:
        table: The image table of these rows.
        source: Its name, in the recipe.
        images: Where paths of image files start.
    """
    rows = list(read_rows(table, ["url", "reason"]))
    lost = [row["url"] for row in rows if row["reason"] in LOST and row["url"]]
    if not lost:
        return LostFiles()
    outside = [row["url"] for row in rows if row["reason"] == Reason.FORBIDDEN_ADDRESS and row["url"]]
    why = f" ({outside[0]}: {explain_outside(outside[0])})" if outside else ""
    if len(lost) == len(rows) > 1:
        there = find_image_place(images, lost, len(lost) // 2 + 1)
        say = f"--set sources.{source}.images={there or 'FOLDER'}"
        found = f"they are in {there}" if there else "say where they are"
        told = f"none of {len(lost):,} image files that rows name, such as {lost[0]}, is under {images}"
        return LostFiles(faults=(f"source {source!r}: {told}; {found}: {say}{'' if there else why}",))
    count = f"{len(lost):,} of the first {len(rows):,} images"
    return LostFiles(warnings=(f"{source}: {count} are not there, such as {lost[0]} under {images}{why}",))
