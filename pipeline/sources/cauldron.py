"""The Cauldron: Parquet of images and question-answer turns (HuggingFaceM4/the_cauldron, arXiv 2405.02246).

`images` is a list of structs of bytes and path, `texts` a list of turns. The images stand before the first question and are
required: an answer about an image that is not there teaches to make things up.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pydantic.dataclasses import dataclass

from pipeline.reasons import Reason
from pipeline.sample import Node
from pipeline.settings import STRICT
from pipeline.sources import parquet
from pipeline.sources.source import Page, Picture, Row

COLUMNS = {
    "images": pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()})),
    "texts": pa.list_(pa.struct({"user": pa.string(), "assistant": pa.string(), "source": pa.string()})),
}


@dataclass(frozen=True, config=STRICT)
class Cauldron:
    """Question-answer rows that carry their images."""

    kind: ClassVar[str] = "cauldron"
    fetches: ClassVar[bool] = False
    isolated: ClassVar[bool] = False
    ranged: ClassVar[bool] = True

    def survey(self, path: Path) -> list[int]:
        """Mean bytes per row of each row group. Raises SourceError."""
        return parquet.survey(path, COLUMNS)

    def rows(self, path: Path, start: int, stop: int) -> Iterator[Row]:
        """One sample of several turns per row; BAD_ROW for an image without bytes or a turn without an answer."""
        for number, row in parquet.rows(path, COLUMNS, start, stop):
            try:
                yield _conversation(number, row)
            except ValueError as error:
                yield Row(number, failed=((Reason.BAD_ROW, str(error)),))


def _conversation(number: int, row: dict[str, Any] | None) -> Row:
    """The sample of a row. Raises ValueError where it has not the form."""
    if row is None:
        raise ValueError("a string that is no UTF-8")
    pictures = [_picture(place, image) for place, image in enumerate(row["images"] or [])]
    nodes = [
        Node("image", "user", image=place, required=True, url=(row["images"][place]["path"] or None))
        for place in range(len(pictures))
    ]
    turns = row["texts"] or []
    for turn, text in enumerate(turns):
        nodes += _turn(turn, text)
    if not turns:
        return Row(number, failed=((Reason.EMPTY_ROW, "no turns"),))
    return Row(number, (Page(tuple(nodes), tuple(pictures)),))


def _picture(place: int, image: dict[str, Any] | None) -> Picture:
    if not image or not image["bytes"]:
        raise ValueError(f"image {place} has no bytes")
    return Picture(data=image["bytes"])


def _turn(turn: int, text: dict[str, Any] | None) -> list[Node]:
    """Question and answer; their `url` is the set that The Cauldron took them from."""
    if not text or text["user"] is None or not (text["assistant"] or "").strip():
        raise ValueError(f"turn {turn} has no question or no answer")
    origin = text["source"] or None
    return [
        Node("text", "user", turn, text=text["user"], url=origin),
        Node("text", "assistant", turn, supervised=True, text=text["assistant"], url=origin),
    ]
