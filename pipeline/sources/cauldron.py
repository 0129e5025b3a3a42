"""The Cauldron: Parquet of images and question-answer turns (HuggingFaceM4/the_cauldron, arXiv 2405.02246).

`images` is a list of structs of bytes and path, `texts` a list of turns. No text says where an image belongs: they
stand before the first question, where nanoVLM and torchtune put them.
"""

from __future__ import annotations

from collections.abc import Mapping
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

    def columns(self) -> Columns:
        """`source` is the set that The Cauldron took a turn from."""
        turn = pa.struct({"user": pa.string(), "assistant": pa.string(), "source": pa.string()})
        return {"images": pa.list_(IMAGE), "texts": pa.list_(turn)}

    def page(self, row: Mapping[str, Any]) -> Page:
        """One sample of several turns; BAD_ROW for an image without bytes or a turn without an answer."""
        pictures = tuple(read_picture(place, image) for place, image in enumerate(row["images"] or []))
        return Page(read_answers(row["texts"], [image["path"] for image in row["images"] or []]), pictures)
