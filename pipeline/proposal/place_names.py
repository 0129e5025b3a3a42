"""Names of the files in a place, for `vlmill new`: which are of which split, and a pattern that means them."""

from __future__ import annotations

import glob
import json
import posixpath
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.utils import glob_translate

from vlmill.pipeline.proposal.page_texts import is_one_page
from vlmill.pipeline.sources.formats.packed import find_ending

TRAIN = frozenset({"train", "training"})
HELD_OUT = frozenset({"test", "testing", "val", "valid", "validation", "dev", "eval", "evaluation"})
"""What folders and files are called by the split that they are of."""

PACKED: Mapping[str, str] = {
    ".gz": "gunzip -k",
    ".bz2": "bunzip2 -k",
    ".xz": "unxz -k",
    ".zst": "unzstd -k",
    ".tgz": "tar -xf",
}
"""How packed files end, and what unpacks those that are not read as they are."""

LARGEST = 1 << 29
"""Bytes of a file that is read whole."""

WHOLE = "the whole file is one row, and what seem to be its rows lie within"
UNWRAP = "to read these, make a file of them: {command} > {rows} && vlmill new {rows}"
KEYED = "to_entries[] | {key} + .value"
"""What jq takes rows at keys of their own by, with the key, which often names the image."""
NAMED = 3
"""Files that a command names one by one."""

PART = frozenset({"type", "text", "image", "image_url", "content", "value", "name"})
"""What a part of a message may have, and a turn without a role."""


def get_suffix(name: str) -> str:
    """How a name ends, in small letters; of rows that are read packed with both endings, as `.jsonl.gz`."""
    return find_ending(name)


def split_names(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names to train on, and those of other splits: these only where others say that they are of `train`."""
    splits = {name: find_split(name) for name in names}
    if not TRAIN.intersection(splits.values()):
        return list(names), []
    held_out = [name for name in names if splits[name] in HELD_OUT]
    return [name for name in names if splits[name] not in HELD_OUT], held_out


def find_split(name: str) -> str:
    """The split that a name says, by its file or its innermost folder that says one; empty where none does."""
    for part in reversed(name.split("/")):
        first = re.split(r"[-_.]", part.lower(), maxsplit=1)[0]
        if first in TRAIN | HELD_OUT:
            return first
    return ""


def describe_left(names: Sequence[str]) -> str:
    """What a person should know of files of other splits."""
    splits = sorted({find_split(name) for name in names})
    files = "1 file" if len(names) == 1 else f"{len(names):,} files"
    return f"left out, so that it stays unseen: {files} of {', '.join(splits)}"


def find_split_column(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The column that says of rows which split each is of, if only of one; None where there is none."""
    return next((column for column in (rows[0] if rows else ()) if _list_splits(row.get(column) for row in rows)), None)


def describe_splits(column: str, values: Iterable[Any]) -> list[str]:
    """What a person should know of a column that says which split a row is of; nothing without one of other splits."""
    said = _list_splits(values)
    if len(said) < 2:
        return []
    return [f"column {column} says of rows that they are of {', '.join(said)}; all are trained on: make a file of each"]


def _list_splits(values: Iterable[Any]) -> list[str]:
    """The splits that values name; none where one of them is something else."""
    said = {str(value).strip().lower() for value in values} - {"none", ""}
    return sorted(said) if said <= TRAIN | HELD_OUT else []


@dataclass(frozen=True)
class Wrapped:
    """Rows that lie within the single row of a file: a list of objects, or objects alone."""

    key: str  # of the list; empty where they are at keys of their own
    message: str  # what a person should know

    def holds(self, options: Mapping[str, Any], unread: Collection[str]) -> bool:
        """Whether a kind with these options, which leaves these columns unread, misses them or takes them for one."""
        named = [name for value in options.values() for name in (value if isinstance(value, list) else [value])]
        return any(str(one).startswith(f"{self.key}." if self.key else "") for one in [*named, *unread]) or (
            self.key in unread
        )


def find_wrapped(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], folder: str = "", *, whole: bool = False
) -> Wrapped | None:
    """The rows within the single row of the first file of these names; None where these rows are rows.

    Turns of a conversation are no rows, nor are the words that OCR read on a page. The file that
    is to be made of them is in this folder, where images are looked for; `whole` says whether the files are all of it
    that end in `.json`.
    """
    if len(rows) != 1 or is_one_page(rows[0]):
        return None
    for key, value in rows[0].items():
        listed = isinstance(value, list) and len(value) > 1 and all(map(_is_record, value))
        if listed or (isinstance(value, Mapping) and _are_alike(list(value.values()))):
            inside = f".{key}" if key.isascii() and key.isidentifier() else f".[{json.dumps(key)}]"
            inside = f"{inside}[]" if listed else f"{inside} | {KEYED}"
            unwrap = _tell_unwrapping(inside, names, folder, whole=whole)
            where = f"in its list {key}" if listed else f"at keys of {key}"
            return Wrapped(key, f"{WHOLE}: {len(value):,} {where}; {unwrap}")
    if len(rows[0]) > 1 and all(map(_is_record, rows[0].values())):
        unwrap = _tell_unwrapping(KEYED, names, folder, whole=whole)
        return Wrapped("", f"{WHOLE}: {len(rows[0]):,} at keys of their own; {unwrap}")
    return None


def read_whole(path: Path) -> Sequence[Mapping[str, Any]]:
    """The one object that a JSON file of several lines is; none where it is none, or too large to be read whole."""
    try:
        if path.stat().st_size > LARGEST:
            return ()
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return ()
    return (found,) if isinstance(found, Mapping) else ()


def _tell_unwrapping(inside: str, names: Sequence[str], folder: str, *, whole: bool) -> str:
    """What takes the rows out of files: of many that are all of a folder they are looked for, else each is named."""
    rows, files = shlex.quote(str(PurePosixPath(folder) / "rows.jsonl")), " ".join(map(shlex.quote, names))
    command = f"jq -c {shlex.quote(inside)} {files}"
    if whole and len(names) > NAMED:
        command = f"find {shlex.quote(folder)} -name '*.json' -exec jq -c {shlex.quote(inside)} {{}} +"
    return UNWRAP.format(command=command, rows=rows)


def _are_alike(values: Sequence[Any]) -> bool:
    """Whether several values are records that have a key in common."""
    records = len(values) > 1 and all(isinstance(value, Mapping) and _is_record(value) for value in values)
    return records and bool(set[str].intersection(*({*value} for value in values)))


def _is_record(value: Any) -> bool:
    """Whether a value is an object that is no turn and no part of a conversation."""
    if not isinstance(value, Mapping) or {"from", "role"} & value.keys():
        return False
    return not (value.keys() <= PART and {"type", "content", "value"} & value.keys())


def list_packed(names: Sequence[str]) -> list[str]:
    """Of these names those of packed files that hold rows, such as `a.jsonl.gz`."""
    ends = {".jsonl", ".json", ".csv", ".tsv", ".parquet", ".tar"}
    found = [name for name in names if get_suffix(name) in PACKED]  # not those that are read as they are
    return [name for name in found if get_suffix(name.rpartition(".")[0]) in ends or get_suffix(name) == ".tgz"]


def spread_names(names: Sequence[Any], number: int) -> list[Any]:
    """So many of these at equal distances, the first among them; all where there are no more."""
    return [names[place * len(names) // number] for place in range(number)] if len(names) > number else list(names)


def make_pattern(names: Sequence[str], left: Sequence[str] = ()) -> str:
    """A pattern that these names match and the others do not, as far as one says it."""
    if len(names) == 1:
        return glob.escape(names[0])
    spelt = {name[len(name) - len(get_suffix(name)) :] for name in names}
    suffix = spelt.pop() if len(spelt) == 1 else "".join(map(_match_letter, get_suffix(names[0])))
    folders = {str(PurePosixPath(name).parent) for name in names}
    start = posixpath.commonprefix(sorted(names))
    folder = glob.escape(start.rpartition("/")[0])
    deep = "**/" if len(folders) > 1 else ""
    inside = f"{folder}/" if folder and folder != "." else ""
    whole = "" if deep else inside
    split = f"**/{find_split(names[0])}*/*{suffix}"
    tried = [f"{whole}{deep}*{suffix}", f"{inside}{deep}*{suffix}", split, f"{glob.escape(start)}*{suffix}"]
    return next((pattern for pattern in tried if _is_apt(pattern, names, left)), tried[0])


def _is_apt(pattern: str, names: Sequence[str], left: Sequence[str]) -> bool:
    matches = re.compile(glob_translate(pattern)).match
    return all(map(matches, names)) and not any(map(matches, left))


def _match_letter(letter: str) -> str:
    """A pattern of a letter, large or small."""
    return f"[{letter.lower()}{letter.upper()}]" if letter.isalpha() else letter
