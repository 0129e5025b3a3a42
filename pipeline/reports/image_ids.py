"""Which column of a table holds the names of image files without their suffix, as `image_id` does; for `vlmill new`.

Files are looked for in the root, and in folders at most two below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmill.pipeline.reports.image_places import list_folders
from vlmill.pipeline.sources.known_keys import PICTURES

SHOWING = frozenset({"image", "images", "img", "picture", "pic", "photo", "figure", "bild", "imagen", "imagem"})
"""Words in the name of a column that names images."""

NAMING = frozenset({"id", "uid", "uuid", "guid", "key", "hash", "sha256", "md5", "name", "file", "filename", "stem"})
"""What a column is called that names its row, and may name the image of it so."""

WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

FIRST = 2
"""Ids by which a folder is told from others."""

LONGEST = 200
"""Characters of an id: the names of files have 255 bytes at most."""

SUFFIXES = tuple(f".{spelt}" for name in sorted(PICTURES) for spelt in (name, name.upper()))


@dataclass(frozen=True)
class ImageIds:
    """A column with ids, and what the files end with that are called so."""

    column: str
    suffix: str  # as the option `suffix` has it


def find_image_ids(root: str, rows: Sequence[Mapping[str, Any]]) -> ImageIds | None:
    """The column whose ids are the names of files in one folder, most of them; None where there is none."""
    start = Path(root)
    if not rows or not start.is_dir():
        return None
    columns = {name: ids for name in rows[0] if (ids := _list_ids(name, rows))}
    if not columns:
        return None
    folders = list_folders(start)
    for name in sorted(columns, key=lambda one: not _shows_image(one)):
        if found := max(_count_files(folders, columns[name]), default=None):
            number, suffix = found
            if number > len(columns[name]) / 2:
                return ImageIds(name, suffix)
    return None


def _shows_image(column: str) -> bool:
    return bool(SHOWING.intersection(word.lower() for word in WORD.findall(column)))


def _list_ids(column: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The different ids in a column; none where it holds something else."""
    if not _shows_image(column) and column.lower() not in NAMING:
        return []
    values = [row.get(column) for row in rows]
    if not all(value is None or (isinstance(value, str | int) and not isinstance(value, bool)) for value in values):
        return []
    ids = dict.fromkeys(said for value in values if value is not None and (said := str(value).strip()))
    return list(ids) if all(len(one) <= LONGEST and "." not in one for one in ids) else []


def _count_files(folders: Sequence[Path], ids: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Files that are called so, in folders with one of the first, by what they end with."""
    for folder in folders:
        for suffix in SUFFIXES:
            if any((folder / f"{one}{suffix}").is_file() for one in ids[:FIRST]):
                yield sum((folder / f"{one}{suffix}").is_file() for one in ids), suffix
