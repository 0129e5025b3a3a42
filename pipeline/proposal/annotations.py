"""Annotations beside pictures as COCO and VQA have them, for `vlmill new`: lists that name each other by number.

A file has `images` with names and `annotations` with captions; or one file has `questions`, and another one
`annotations` with their answers. Boxes and classes make no texts, so files that have nothing else are left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vlmill.pipeline.inputs.files import InputFile, open_input
from vlmill.pipeline.proposal.place_names import get_suffix
from vlmill.pipeline.sources.known_keys import PICTURES

LARGEST = 1 << 29
"""Bytes of a file that is read whole."""
SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?![a-z])")
HELD_OUT = {"val", "test"}
"""Splits that names say, as in `captions_train2017.json`."""
NUMBER = re.compile(r"(\d+)\D*\Z")


@dataclass(frozen=True)
class Annotated:
    """Rows of a picture with a caption, or with a question and its answer."""

    rows: Sequence[dict[str, Any]] = ()
    unplaced: int = 0  # annotations with a text that name no picture here
    silent: int = 0  # pictures of which no annotation says anything
    left: Sequence[str] = ()  # files of other splits

    def list_notes(self) -> list[str]:
        """What a person should know."""
        notes = [f"annotations were joined with their pictures: the list has {len(self.rows):,} rows"]
        notes += [f"annotations of a picture that is not here: {self.unplaced:,}"] if self.unplaced else []
        notes += [f"pictures without an annotation, which are left out: {self.silent:,}"] if self.silent else []
        return notes + ([f"left out, so that it stays unseen: {', '.join(self.left)}"] if self.left else [])


def list_annotated(files: Sequence[InputFile]) -> Annotated:
    """The rows of a folder; none where its files say no such thing."""
    known = {file.name: file for file in files if get_suffix(file.name) == ".json" and _may_hold_lists(file)}
    splits = {name: find_word_of_split(name) for name in known}
    left = [name for name in known if "train" in splits.values() and splits[name] in HELD_OUT]
    taken = [name for name in known if name not in left]
    told = [_read_lists(known[name]) for name in taken]
    pictures = [file.name for file in files if get_suffix(file.name).removeprefix(".") in PICTURES]
    images = {one.get("id"): one.get("file_name") for lists in told for one in lists.get("images", ())}
    named = _find_files(images, pictures)
    notes = [one for lists in told for one in lists.get("annotations", ())]
    questions = {one.get("question_id"): one for lists in told for one in lists.get("questions", ())}
    said = [*_read_captions(notes), *_read_answers(notes, questions)]
    rows = [{"image": named[image], **texts} for image, texts in said if image in named]
    shown = {row["image"] for row in rows}
    return Annotated(rows, len(said) - len(rows), len(pictures) - len(shown), left) if rows else Annotated()


def find_word_of_split(name: str) -> str:
    """The split that the name of a file says; empty where it says none."""
    found = SPLIT.search(PurePosixPath(name).name.lower())
    return found[1] if found else ""


def _may_hold_lists(file: InputFile) -> bool:
    """Whether a file here begins as an object."""
    if not file.on_disk or file.size > LARGEST:
        return False
    with open_input(file) as path, path.open("rb") as opened:
        return opened.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def _read_lists(file: InputFile) -> dict[str, list[Mapping[str, Any]]]:
    """The lists of objects in a file, by key."""
    try:
        with open_input(file) as path:
            held = json.loads(path.read_bytes())  # in UTF-8, UTF-16 or UTF-32
    except (ValueError, RecursionError):
        return {}
    lists = {key: value for key, value in held.items() if isinstance(value, list)}
    return {key: [one for one in value if isinstance(one, Mapping)] for key, value in lists.items()}


def _find_files(images: Mapping[Any, Any], pictures: Sequence[str]) -> dict[Any, str]:
    """Number of an image -> its picture: by the name that a file gives it, else by the number that ends the name."""
    by_name = {PurePosixPath(name).name: name for name in pictures}
    by_number = {int(match[1]): name for name in pictures if (match := NUMBER.search(PurePosixPath(name).stem))}
    given = {number: by_name[PurePosixPath(name).name] for number, name in images.items() if _is_there(name, by_name)}
    return {**({} if images else by_number), **given}


def _is_there(name: Any, by_name: Mapping[str, str]) -> bool:
    return isinstance(name, str) and PurePosixPath(name).name in by_name


def _read_captions(notes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Any, dict[str, str]]]:
    for one in notes:
        if isinstance(one.get("caption"), str):
            yield one.get("image_id"), {"caption": one["caption"]}


def _read_answers(
    notes: Sequence[Mapping[str, Any]], questions: Mapping[Any, Mapping[str, Any]]
) -> Iterator[tuple[Any, dict[str, str]]]:
    """Of several answers that people gave, the one that most of them did."""
    for one in notes:
        asked = questions.get(one.get("question_id"), {})
        answer = one.get("multiple_choice_answer") or one.get("answer")
        if isinstance(asked.get("question"), str) and isinstance(answer, str):
            yield asked.get("image_id"), {"question": asked["question"], "answer": answer}
