"""Pictures with a file beside each that says what it shows, for `vlmill new`: a `.txt` with a caption, or a `.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from vlmill.pipeline.inputs.files import InputFile, open_input
from vlmill.pipeline.reports.place_names import get_suffix
from vlmill.pipeline.sources.known_keys import PICTURES

KNOWN = frozenset(f".{suffix}" for suffix in PICTURES)


def has_sidecars(files: Sequence[InputFile]) -> bool:
    """Whether most JSON files have the name of a picture, and no file holds rows of another form."""
    data = [file.name for file in files if get_suffix(file.name) == ".json"]
    pictures = {drop_suffix(file.name) for file in files if get_suffix(file.name) in KNOWN}
    named = sum(drop_suffix(name) in pictures for name in data)
    others = {get_suffix(file.name) for file in files} - {*KNOWN, ".json", ".txt", ".md", ""}
    return bool(named) and named > len(data) / 2 and not others


def list_described(files: Sequence[InputFile]) -> tuple[list[dict[str, Any]], int]:
    """A row for each picture of which something is said, and how many there are besides.

    A row has `image`, the picture's name, and the keys of its `.json`, or `caption` from its `.txt`.
    """
    beside = {(drop_suffix(file.name), get_suffix(file.name)): file for file in files}
    listed, left = list[dict[str, Any]](), 0
    for name in (file.name for file in files if get_suffix(file.name) in KNOWN):
        stem = drop_suffix(name)
        said = _read_object(beside[stem, ".json"]) if (stem, ".json") in beside else {}
        caption = _read_text(beside[stem, ".txt"]).strip() if (stem, ".txt") in beside else ""
        row = {**said, **({"caption": caption} if caption else {})}
        if row:
            listed.append({"image": name, **{key: value for key, value in row.items() if key != "image"}})
        else:
            left += 1
    return listed, left


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
