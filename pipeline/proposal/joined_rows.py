"""Rows of several files whose pictures lie beside each file: one list of them all, for `vlmill new`.

A source has one folder that paths of pictures start from. Of two folders that hold a `metadata.csv` and a `000.jpg`
each, it would show the pictures of one beside the texts of both.
"""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.inputs.files import InputFile, open_input
from vlmill.pipeline.proposal.attempts import TRIED, Attempt, try_kind, try_rows
from vlmill.pipeline.sources import SOURCES, Source
from vlmill.pipeline.sources.files import spell_path
from vlmill.pipeline.sources.formats.records import is_table, read_first_records
from vlmill.pipeline.sources.image_places import get_absolute

APART = (
    "{place}: paths of pictures start from the folder of their own file, as {path} of {file}, and a source has one "
    "folder that they start from: pictures of one folder would stand beside texts of another. Make a source of each "
    "folder, or write the folder into the paths"
)


@dataclass(frozen=True)
class JoinedRows:
    """The rows of all files, with paths of pictures that start from the root."""

    rows: tuple[Mapping[str, Any], ...]
    attempt: Attempt  # on some of them, from all over the files
    notes: tuple[str, ...]

    @property
    def samples(self) -> int:
        """About so many they give."""
        return round(self.attempt.share * len(self.rows))


def join_rows(
    place: str, root: str, files: Sequence[InputFile], opened: str, images: str | None, best: Attempt | None
) -> JoinedRows | None:
    """The rows of all files in one list; None where the pictures of all of them start from `images`.

    Args:
        place: what was asked about, for messages.
        root: the folder of the files.
        files: which hold rows.
        opened: the name of the one that `best` was tried on.
        images: where the pictures of that one start.
        best: how rows are read.

    Raises:
        SourceError: pictures start from the folder of each file, and the paths in its rows cannot be written anew.
    """
    own = Path(root, opened).parent
    if best is None or images is None or not Path(images).is_relative_to(own):
        return None
    starts = {file.name: Path(root, file.name).parent / Path(images).relative_to(own) for file in files}
    beside = {file.name: path for file in files if (path := _find_beside(file, starts[file.name], images, best))}
    if not beside:
        return None
    rows, notes = list[Mapping[str, Any]](), list[str]()
    for file in files:
        start = starts[file.name] if file.name in beside else Path(images)
        moved, left = _move_rows(file, start.relative_to(root).as_posix(), best)
        if moved is None:
            name, path = next(iter(beside.items()))
            raise SourceError(APART.format(place=place, path=path, file=name))
        rows += moved
        notes += [f"{left:,} rows of {file.name} cannot be read, and are not in the list"] if left else []
    notes.append(
        f"paths of pictures start from the folder of their own file, so the list has the rows of {len(files):,} files, "
        "with the folder before each path; where these files change, make it anew"
    )
    spread = rows[:: max(1, len(rows) // TRIED)][:TRIED]
    return JoinedRows(tuple(rows), try_rows(spread, best.kind, best.options), tuple(notes))


def _find_beside(file: InputFile, start: Path, images: str, best: Attempt) -> str | None:
    """A path that a file's first rows name and that is there from `start`; None where that is the folder of all."""
    if start == Path(images):
        return None
    with open_input(file) as path:
        named = try_kind(path, best.kind, best.options).paths
    return next((one for one in named if _is_relative(one) and (start / spell_path(one)[-1]).is_file()), None)


def _move_rows(file: InputFile, start: str, best: Attempt) -> tuple[list[Mapping[str, Any]] | None, int]:
    """The rows of a file with `start` before paths of pictures, and how many cannot be read.

    There are none of a table, whose cells may hold what no JSON does, nor where a path is not what a cell holds.
    """
    if is_table(file.name):
        return None, 0
    source: Source = parse_block(SOURCES[best.kind], dict(best.options), f"options of {best.kind}")
    with open_input(file) as path:
        there = len(source.survey(path))
        rows = read_first_records(path, sys.maxsize)
        pages = [page for row in source.rows(path, range(there)) for page in row.pages]
    named = [picture.path for page in pages for picture in page.pictures if picture.path]
    paths = {one: posixpath.join(start, spell_path(one)[-1]) for one in named if _is_relative(one)}
    moved = [_replace_paths(row, paths) for row in rows]
    made = try_rows(moved[:TRIED], best.kind, best.options).paths
    if any(made) and made != [paths.get(one, one) for one in named[: len(made)]]:
        return None, 0
    return moved, there - len(rows)


def _is_relative(path: str) -> bool:
    """Whether a path starts from the folder of images."""
    return "://" not in path and get_absolute(path) is None


def _replace_paths(value: Any, paths: Mapping[str, str]) -> Any:
    """A row with other paths in place of these, wherever one is all that a text holds."""
    if isinstance(value, Mapping):
        return {key: _replace_paths(one, paths) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_paths(one, paths) for one in value]
    return paths.get(value, value) if isinstance(value, str) else value
