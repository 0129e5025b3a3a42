"""FineVision: Parquet of images, question-answer turns and ratings of each turn.

HuggingFaceM4/FineVision, arXiv 2510.17269.

Models rated every turn from 1 to 5 on four axes; `<axis>_ratings` lists them, `<axis>_min` is the lowest. Both travel
as signals, the rating of turn n as `<axis>_ratings.n`, and decide nothing here: in the paper, filtering by them hurt.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.sources.base import Page
from vlmill.pipeline.sources.conversation import read_answers
from vlmill.pipeline.sources.formats.parquet import IMAGE, Columns, ParquetSource, read_picture

AXES = ("relevance", "visual_dependency", "image_correspondence", "formatting")


@dataclass(frozen=True, config=STRICT)
class FineVision(ParquetSource):
    """Question-answer rows that carry their images, with ratings."""

    kind: ClassVar[str] = "finevision"

    def columns(self) -> Columns:
        """As The Cauldron has them, but the set that a row comes from is a column."""
        return {
            "images": pa.list_(IMAGE),
            "texts": pa.list_(pa.struct({"user": pa.string(), "assistant": pa.string()})),
        }

    def optional(self) -> Columns:
        """The ratings, and the set."""
        ratings = {f"{axis}_ratings": pa.list_(pa.float64()) for axis in AXES}
        return {"source": pa.string(), **ratings, **{f"{axis}_min": pa.float64() for axis in AXES}}

    def page(self, row: Mapping[str, Any]) -> Page:
        """One sample of several turns; BAD_ROW for an image without bytes or a turn without an answer."""
        images = row["images"] or []
        pictures = tuple(read_picture(place, image) for place, image in enumerate(images))
        texts = [text and {**text, "source": row["source"]} for text in row["texts"] or []]
        return Page(
            read_answers(texts, [image["path"] for image in images]), pictures, signals=dict(_read_signals(row))
        )


def _read_signals(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The ratings that are there."""
    for axis in AXES:
        rated = {f"{axis}_ratings.{turn}": rating for turn, rating in enumerate(row[f"{axis}_ratings"] or [])}
        for name, rating in {f"{axis}_min": row[f"{axis}_min"], **rated}.items():
            if rating is not None and math.isfinite(rating):
                yield name, float(rating)
