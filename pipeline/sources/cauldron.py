"""The Cauldron: Parquet of images and question-answer turns (HuggingFaceM4/the_cauldron, arXiv 2405.02246).

`images` is a list of structs of bytes and path, `texts` a list of turns. No text says where an image belongs: they
stand before the first question, where nanoVLM and torchtune put them. The options read other tables of this shape: LNQA
(vikhyatk/lnqa) has one `image`, and `qa` of `question` and `answer`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.sources.base import Page
from vlmill.pipeline.sources.conversation import read_answers
from vlmill.pipeline.sources.formats.parquet import IMAGE, Columns, ParquetSource, read_picture


@dataclass(frozen=True, config=STRICT)
class Cauldron(ParquetSource):
    """Question-answer rows that carry their images."""

    kind: ClassVar[str] = "cauldron"

    images: str = "images"  # a list of images or one
    turns: str = "texts"  # the column with a list of turns
    question: str = "user"  # the key of a turn with its question
    answer: str = "assistant"  # the key of a turn with its answer

    def columns(self) -> Columns:
        """Those that the options name. A turn of The Cauldron also has `source`, the set that it was taken from."""
        turn = pa.struct({self.question: pa.string(), self.answer: pa.string()})
        return {self.images: (pa.list_(IMAGE), IMAGE), self.turns: pa.list_(turn)}

    def shows(self) -> Collection[str]:
        """The column of images, whatever it is called."""
        return (self.images,)

    def page(self, row: Mapping[str, Any]) -> Page:
        """One sample of several turns; BAD_ROW for an image without bytes or a turn without an answer."""
        found = row[self.images] or []
        images = [found] if isinstance(found, dict) else found
        pictures = tuple(read_picture(place, image) for place, image in enumerate(images))
        names = {self.question: "user", self.answer: "assistant"}
        turns = [turn and {names.get(key, key): value for key, value in turn.items()} for turn in row[self.turns] or []]
        return Page(read_answers(turns, [image["path"] for image in images]), pictures)
