"""Which images of the first rows of a source are lost: files that are not under its `images`, and what is no image."""

from __future__ import annotations

import filecmp
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import read_image_stats, read_rows
from vlmill.pipeline.inputs.files import InputFile, open_input
from vlmill.pipeline.reports.unread import count_unread_pages
from vlmill.pipeline.sources import Source
from vlmill.pipeline.sources.files import spell_path
from vlmill.pipeline.sources.image_places import (
    CUT,
    ON_WEB,
    explain_outside,
    find_image_place,
    find_tail,
    tell_unpacking,
)

LOST = frozenset({Reason.MISSING_FILE, Reason.FORBIDDEN_ADDRESS})
UNKNOWN = frozenset({Reason.FETCH_ERROR, Reason.NOT_FETCHED})
"""Reasons that stand for images that nobody has asked for."""
MOST = 0.5
"""The share of images from which their loss is worth a line, as after a build."""

APART = (
    "{0}: {1} names {2}, which lies beside it, and paths start from {3}: its texts have pictures of another folder, or "
    "none; vlmill new FOLDER writes one list of such folders"
)

FOLDERS, ROWS = 5, 3
"""Folders of a source of which a file is looked at, and rows of it."""


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
    web = [row["url"] for row in rows if row["reason"] == Reason.UNSUPPORTED_MEDIA and row["url"]]
    told = f"{len(web):,} of {len(rows):,} images are lost, such as {web[0]}: {ON_WEB}" if web else ""
    warned = (f"{source}: {told}",) if told else ()
    lost = [row["url"] for row in rows if row["reason"] in LOST and row["url"]]
    if not lost:
        return LostFiles(warnings=warned)
    outside = [row["url"] for row in rows if row["reason"] == Reason.FORBIDDEN_ADDRESS and row["url"]]
    tail = find_tail(images, outside[0]) if outside else None
    told = CUT.format(path=outside[0], begin=tail[0], folder=tail[1]) if tail else ""
    why = f" ({told or f'{outside[0]}: {explain_outside(outside[0])}'})" if outside else ""
    if len(lost) == len(rows) > 1:
        there = find_image_place(images, lost, len(lost) // 2 + 1)
        say = f"--set sources.{source}.images={there or 'FOLDER'}"
        unpack = "" if there else tell_unpacking(images, lost)
        found = f"they are in {there}" if there else "say where they are"
        found = f"a tar there has some: {unpack}, and say where they are then" if unpack else found
        told = f"none of {len(lost):,} image files that rows name, such as {lost[0]}, is under {images}"
        return LostFiles((f"source {source!r}: {told}; {found}: {say}{'' if there else why}",), warned)
    count = f"{len(lost):,} of {len(rows):,} images that were looked for"
    missing = f"{source}: {count} are not there, such as {lost[0]} under {images}{why}"
    return LostFiles(warnings=(missing, *warned))


def warn_of_lost_images(table: Path, source: str, *, opens: bool) -> tuple[str, ...]:
    """A line where most images are lost, of those whose bytes are known; one where pages of TIFFs are not read.

    Args:
        table: The image stats of these rows.
        source: Its name, in the recipe.
        opens: Whether `find_lost_files` tells of images that are not there.
    """
    told_elsewhere = UNKNOWN | LOST if opens else UNKNOWN
    found = [stats for stats in read_image_stats(table, ("format", "frames")) if stats.reason not in told_elsewhere]
    pages = count_unread_pages(source, found)
    paged = (f"{pages} (docs/documents.md, Scans)",) if pages.images else ()
    had = [stats.reason for stats in found]
    lost = Counter(str(reason) for reason in had if reason is not None)
    if lost.total() <= MOST * len(had):
        return paged
    causes = ", ".join(f"{reason} {number:,}" for reason, number in lost.most_common())
    told = f"{lost.total():,} of {len(had):,} images that were looked at are lost ({causes})"
    return (f"{source}: {told}; vlmill preview RECIPE shows them", *paged)


def warn_of_other_folders(name: str, source: Source, files: Sequence[InputFile], images: str) -> tuple[str, ...]:
    """A line where a file names a picture that lies beside it, while paths start from another folder.

    Args:
        name: Of the source, in the recipe.
        source: How its files are read.
        files: All of them.
        images: Where paths of image files start.
    """
    if not source.opens or not Path(images).is_dir():
        return ()
    local = {Path(file.url.rpartition("://")[2]).parent: file for file in reversed(files) if file.on_disk}
    for folder, file in sorted(local.items())[-FOLDERS:] if len(local) > 1 else ():
        for path in _list_paths(source, file):
            beside, meant = folder / path, Path(images) / path
            if beside.is_file() and not (meant.is_file() and filecmp.cmp(beside, meant, shallow=False)):
                return (APART.format(name, file.name, path, images),)
    return ()


def _list_paths(source: Source, file: InputFile) -> list[str]:
    """Relative paths of pictures that the first rows of a file name; none of one that cannot be read."""
    try:
        with open_input(file) as path:
            rows = source.rows(path, range(min(ROWS, len(source.survey(path)))))
            named = [picture.path for row in rows for page in row.pages for picture in page.pictures if picture.path]
    except SourceError:
        return []
    return [one for path in named if "://" not in (one := spell_path(path)[-1]) and not one.startswith("/")]
