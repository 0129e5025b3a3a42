"""Pictures with a file beside each that says what it shows, for `vlmill new`: a `.txt` with a caption, or a `.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vlmill.pipeline.inputs.files import InputFile, open_input
from vlmill.pipeline.reports.place_names import get_suffix
from vlmill.pipeline.sources.known_keys import PICTURES

KNOWN = frozenset(f".{suffix}" for suffix in PICTURES)

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "images", "img", "pictures"})
"""Names of folders that say nothing of a picture."""
LETTER = re.compile(r"[^\W\d_]")
WORDS = re.compile(r"[^\W_]+")

NAMED = 3
"""Files that a note names."""


def has_sidecars(files: Sequence[InputFile]) -> bool:
    """Whether most JSON files have the name of a picture, and no file holds rows of another form."""
    data = [file.name for file in files if get_suffix(file.name) == ".json"]
    pictures = {drop_suffix(file.name) for file in files if get_suffix(file.name) in KNOWN}
    named = sum(drop_suffix(name) in pictures for name in data)
    others = {get_suffix(file.name) for file in files} - {*KNOWN, ".json", ".txt", ".md", ""}
    return bool(named) and named > len(data) / 2 and not others


@dataclass(frozen=True)
class Beside:
    """Pictures, and what files beside them say."""

    rows: Sequence[Mapping[str, Any]]
    """Of each picture: `image`, its name, and the keys of its `.json`, or `caption` from its `.txt`. One of which
    nothing is said has no more than its name; a build counts it as failed."""
    alone: Sequence[str]  # names of `.txt` and `.json` files without a picture
    numeric: int = 0  # `.txt` files without a letter, such as boxes for detectors: no captions

    @property
    def described(self) -> list[Mapping[str, Any]]:
        """The rows of which something is said."""
        return [row for row in self.rows if len(row) > 1]

    def list_notes(self) -> Iterator[str]:
        """What a person should know."""
        bare = [str(row["image"]) for row in self.rows if len(row) == 1]
        if bare:
            yield (
                f"{len(bare):,} of {len(self.rows):,} pictures have no .txt or .json file that says anything, and give "
                f"no sample: {_name_some(bare)}"
            )
        if self.numeric:
            yield f"{describe_numeric(self.numeric)}, and are no captions"
        if self.alone:
            yield f"{len(self.alone):,} of .txt and .json files are beside no picture: {_name_some(self.alone)}"


def list_described(files: Sequence[InputFile]) -> Beside:
    """The pictures among files, with what is said beside them."""
    beside = {(drop_suffix(file.name), get_suffix(file.name)): file for file in files}
    pictures = [file.name for file in files if get_suffix(file.name) in KNOWN]
    stems = {drop_suffix(name) for name in pictures}
    rows, numeric = list[Mapping[str, Any]](), 0
    for name in pictures:
        stem = drop_suffix(name)
        said = _read_object(beside[stem, ".json"]) if (stem, ".json") in beside else {}
        caption = _read_text(beside[stem, ".txt"]).strip() if (stem, ".txt") in beside else ""
        if caption and not LETTER.search(caption):
            caption, numeric = "", numeric + 1
        row = {**said, **({"caption": caption} if caption else {})}
        rows.append({"image": name, **{key: value for key, value in row.items() if key != "image"}})
    texts = [file.name for file in files if get_suffix(file.name) in {".txt", ".json"}]
    return Beside(rows, [name for name in texts if drop_suffix(name) not in stems], numeric)


def name_by_folders(files: Sequence[InputFile]) -> list[Mapping[str, Any]]:
    """Pictures in two folders or more, as sets of classes have them, with the name of the folder as their caption."""
    pictures = [PurePosixPath(file.name) for file in files if get_suffix(file.name) in KNOWN]
    folders = {path.parent.name for path in pictures}
    if len(folders) < 2 or "" in folders or folders & SPLITS:
        return []
    return [{"image": str(path), "caption": " ".join(WORDS.findall(path.parent.name))} for path in pictures]


def _name_some(names: Sequence[str]) -> str:
    """The first of these names."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def describe_numeric(count: int) -> str:
    """Files of numbers."""
    return f"{count:,} .txt files hold numbers alone, as labels of detectors do"


def drop_suffix(name: str) -> str:
    """A name without its end."""
    return str(PurePosixPath(name).with_suffix(""))


def _read_text(file: InputFile) -> str:
    """The text in a file."""
    with open_input(file) as path:
        return path.read_text("utf-8", "replace")


def _read_object(file: InputFile) -> Mapping[str, Any]:
    """The object in a file; empty where there is none."""
    try:
        found = json.loads(_read_text(file))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
