"""Which column of a table holds ids that image files are called by, as `image_id` does; for `vlmill new`.

The name of a file is an id and a suffix, or a number with something in front and zeros, as in
COCO_val2014_000000000139.jpg. Files are looked for in the root, and in folders at most two below it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from vlmill.pipeline.sources.file_names import fill_template
from vlmill.pipeline.sources.image_places import list_folders
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

NUMBERED = re.compile(r"((?:.*[^0-9])?)([0-9]{1,18})(\.\w+)")

SUFFIXES = tuple(f".{spelt}" for name in sorted(PICTURES) for spelt in (name, name.upper()))


MOST = 200_000
"""Names of files of a folder that are looked at for numbers."""


@dataclass(frozen=True)
class ImageIds:
    """A column with ids, and what the files are called."""

    column: str
    file: str  # as the option `file` has it


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
            number, file = found
            if number > len(columns[name]) / 2:
                return ImageIds(name, file)
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
    """Files that are called so, in folders with one of the first, by what `file` is then."""
    for folder in folders:
        for file in _list_templates(folder, ids[:FIRST]):
            yield sum((folder / fill_template(file, {"image": one})).is_file() for one in ids), file


def _list_templates(folder: Path, ids: Sequence[str]) -> Iterator[str]:
    """What files of a folder may be called by one of these ids, the simplest first."""
    simple = [f"{{image}}{suffix}" for suffix in SUFFIXES if any((folder / f"{one}{suffix}").is_file() for one in ids)]
    yield from simple
    numbers = [int(one) for one in ids if one.isascii() and one.isdigit()]
    if simple or not numbers:
        return
    with os.scandir(folder) as names:
        for entry in islice(names, MOST):
            found = NUMBERED.fullmatch(entry.name)
            if found and found[3] in SUFFIXES and int(found[2]) in numbers:
                zeros = f":0{len(found[2])}" if found[2].startswith("0") else ""
                yield f"{found[1]}{{image{zeros}}}{found[3]}"
