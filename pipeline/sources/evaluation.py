"""Evaluation sets: one question per row, in whatever columns a benchmark has them.

Parquet, TSV, CSV, JSON or JSON Lines.

Training data is compared with it (pipeline/decontaminate); it is never trained on. The recipe says which columns hold
what:

    question   a string
    answers    the references: a string, a number, a list of them, or of structs with `answer` (VQAv2). Where there are
               choices, a letter or a number counts as the choice of that place (A or 0 is the first)
    choices    one column with a list (or a list written as a string, as in MMMU), or several (A, B, C, D in MMBench)
    images     one or several columns (image_1 to image_7 in MMMU): structs of bytes and path, bytes, base64 strings,
               lists of these

An image that cannot be had stays a failed image of its sample: its question can still be looked for. So does a video or
a sound that stands in a separate column; other columns are left to the recipe, for nothing is supervised from them.
"""

from __future__ import annotations

import ast
import base64
import binascii
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.sources.base import Page, Picture, UnreadableRow
from vlmill.pipeline.sources.formats.parquet import Columns
from vlmill.pipeline.sources.formats.records import RecordSource
from vlmill.pipeline.sources.known_keys import classify_key, has_value
from vlmill.pipeline.sources.names import Names, list_names

PLACEHOLDER = re.compile(r"<image(?:[ _]?\d+)?>")
"""Where MMMU and MMStar show an image within the text. Copies seldom have it, or have another."""


@dataclass(frozen=True, config=STRICT)
class Evaluation(RecordSource):
    """Questions with their images, choices and reference answers, from the columns named.

    The format of a file follows from its name.
    """

    kind: ClassVar[str] = "evaluation"

    question: str = "question"  # the column with what is asked
    answers: Names = "answer"  # one column or several with what is right
    choices: Names = ()  # one column with a list, or several, of what may be chosen
    images: Names = "image"  # one column or several with images

    def columns(self) -> Columns:
        """Those that are named, whatever they hold."""
        named = (self.question, *list_names(self.answers), *list_names(self.choices), *list_names(self.images))
        return {name: pa.null() for name in named}

    def keys(self) -> tuple[tuple[str, ...], ...]:
        """The same in JSON. Not every row has them all."""
        return tuple((name,) for name in self.columns())

    def unread(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The columns that are not named. None is refused, since the recipe names what counts."""
        return tuple(name for name in row if name not in self.columns() and has_value(row[name]))

    def page(self, row: Mapping[str, Any]) -> Page:
        """One sample of one turn; BAD_ROW for values of another form, EMPTY_ROW where nothing is asked or shown."""

        def told(columns: Names) -> list[Any]:
            return [value for name in list_names(columns) for value in _flatten_value(row.get(name))]

        pictures = tuple(_read_picture(value) for value in told(self.images))
        pictures += tuple(_fail_media(name) for name in self.unread(row) if classify_key(name) == "media")
        choices = [_read_text(value) for name in list_names(self.choices) for value in _list_places(row.get(name))]
        question = "\n".join(_read_text(value) for value in told(self.question))
        answers = dict.fromkeys(_resolve_answer(value, choices) for value in told(self.answers))
        if not question and not pictures:
            raise UnreadableRow("neither question nor image", Reason.EMPTY_ROW)
        nodes = [Node("image", "user", image=place, required=True) for place in range(len(pictures))]
        nodes += [Node("text", "user", text=text) for text in (question, "\n".join(filter(None, choices))) if text]
        nodes += [Node("text", "assistant", supervised=True, text=answer) for answer in answers]
        return Page(tuple(nodes), pictures)


def _fail_media(name: str) -> Picture:
    """What stands for a video or a sound."""
    return Picture(reason=Reason.UNSUPPORTED_MEDIA, detail=name)


def _flatten_value(value: Any) -> Iterator[Any]:
    """The values in a value: of lists, of lists written as strings, of structs with `answer`.

    Null, empty and NaN give nothing.
    """
    if isinstance(value, str):
        listed = _parse_list(value)
        if listed is not None:
            value = listed
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flatten_value(item)
    elif isinstance(value, dict) and "answer" in value:
        yield from _flatten_value(value["answer"])
    elif not (value is None or value == "" or (isinstance(value, float) and math.isnan(value))):
        yield value


def _list_places(value: Any) -> Iterator[Any]:
    """The choices in a value, as `_flatten_value`; an empty place of a list or a column keeps its letter and number."""
    listed = _parse_list(value) if isinstance(value, str) else value
    for item in listed if isinstance(listed, list | tuple) else [value]:
        yield from [*_flatten_value(item)] or [""]


def _parse_list(value: str) -> list[Any] | None:
    """The list that a string such as "['Yes', 'No']" writes, or None."""
    if not (value.startswith("[") and value.endswith("]")):
        return None
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _read_text(value: Any) -> str:
    """A question, choice or answer as a string. Raises UnreadableRow."""
    if isinstance(value, str | int | float):
        return PLACEHOLDER.sub(" ", str(value)).strip()
    raise UnreadableRow(f"a text is expected, not {type(value).__name__}")


def _resolve_answer(value: Any, choices: Sequence[str]) -> str:
    """An answer, or the choice that it names by letter or by place from 0."""
    text = _read_text(value)
    if text in choices and not isinstance(value, int):
        return text
    if len(text) == 1 and "A" <= text <= "Z":
        place = ord(text) - ord("A")
    else:
        place = int(text) if text.isdecimal() else len(choices)
    return choices[place] if place < len(choices) and choices[place] else text


def _read_picture(value: Any) -> Picture:
    """The picture in a value that is bytes, a struct of them, or base64. Raises UnreadableRow for any other form."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path") or ""
    if isinstance(value, bytes):
        return Picture(data=value)
    if not isinstance(value, str):
        raise UnreadableRow(f"an image is expected, not {type(value).__name__}")
    try:
        data = base64.b64decode(value.rpartition("base64,")[2], validate=True)
    except (binascii.Error, ValueError):
        data = b""
    return Picture(data=data) if data else Picture(reason=Reason.UNDECODABLE, detail="no bytes in the row")
