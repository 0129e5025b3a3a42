"""How texts of rows mark images, where it is not `<image>`, for the option `mark` of what `vlmill new` proposes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlmill.pipeline.sources.marks import is_numbered

OWN_MARKS = (
    r"(?i:<\|?(?:(?:photo|pic)[ _-]?\d*|(?:picture|figure)[ _-]?\d+)\|?>"
    r"|\[\[?(?:image|img|photo|picture|pic|figure)[ _-]?\d*\]\]?"
    r"|\{\{(?:image|img|photo|picture|pic|figure)[ _-]?\d*\}\})"
)
"""Marks of no published set: a word for an image in brackets; `<picture>` and `<figure>` alone are words of HTML."""
READABLE = re.compile(
    r"<\|?(?:image|img)[ _-]?\d*\|?>(?<!<image>)(?<!<img>)|<ImageHere>|<start_of_image>|<image_placeholder>"
    rf"|{OWN_MARKS}"
)
"""Marks that the option reads: those that hold no path and are one piece."""
NUMBER = re.compile(r"\d+")

MARKABLE = frozenset({"llava", "web_llava", "interleaved", "table", "web_table"})
"""Kinds that have the option."""

DEPTH = 8
"""Lists and objects that are looked into within each other."""


def find_mark(rows: Sequence[Mapping[str, Any]]) -> str:
    """The mark of most of the images in texts of rows, as the option names it; empty where there is none."""
    marks, zeros = Counter[str](), set[str]()
    for text in (text for row in rows for text in _list_texts(row, DEPTH)):
        for found in READABLE.finditer(text):
            number = NUMBER.search(found[0])
            mark = NUMBER.sub("{number}", found[0])
            marks[mark] += 1
            if number and not int(number[0]):
                zeros.add(mark)
    if not marks:
        return ""
    mark = marks.most_common(1)[0][0]
    return mark.replace("{number}", "{index}") if mark in zeros else mark


def add_mark(kind: str, options: Mapping[str, Any], mark: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A kind with its options, and before it the same with a mark, if it may have one."""
    shows = "caption" not in options and "turn_image" not in options
    if mark and kind in MARKABLE and shows and (kind not in {"table", "web_table"} or "image" in options):
        yield kind, {**options, "mark": mark}
    yield kind, options


def describe_mark(mark: str) -> str:
    """What a person should know of an option `mark`."""
    place = "its number is its place in the list of its row, from "
    told = place + ("1" if "{number}" in mark else "0") if is_numbered(mark) else "the next of its row"
    return f"texts mark an image as {mark}: {told} (docs/conversations.md, Marks of images)"


def _list_texts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth and isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _list_texts(one, depth - 1)
