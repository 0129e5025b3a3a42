"""Conversations with several images in Parquet: Mantis-Instruct (arXiv 2405.01483), and LLaVA-NeXT and OneVision as the Hub has them.

`images` is a list of images or one image, with bytes or the path of a file; the turns have `role` and `content`, or `from` and `value`, in
which `<image>` says where an image stands. Paths start from the source's `root`, or from its `images` if that is set: a folder, or the
archive that upstream ships (`zip://::/data/nlvr2/train_images.zip`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic.dataclasses import dataclass

from pipeline.settings import STRICT
from pipeline.sources.conversation import marked
from pipeline.sources.parquet import IMAGE, Columns, ParquetSource, picture
from pipeline.sources.source import Page

MESSAGES = (
    pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
    pa.list_(pa.struct({"from": pa.string(), "value": pa.string()})),
)


@dataclass(frozen=True, config=STRICT)
class Interleaved(ParquetSource):
    """Conversations with images in their places; the options name the columns."""

    kind: ClassVar[str] = "interleaved"
    opens: ClassVar[bool] = True

    images: str = "images"
    turns: str = "conversation"

    def columns(self) -> Columns:
        """Those that the options name."""
        return {self.images: (pa.list_(IMAGE), IMAGE), self.turns: MESSAGES}

    def page(self, row: Mapping[str, Any]) -> Page:
        """One sample of several turns. BAD_ROW as `conversation.marked`, and for an image of which nothing is there."""
        found = row[self.images] or []
        images = [found] if isinstance(found, dict) else found
        pictures = tuple(picture(place, image, paths=True) for place, image in enumerate(images))
        return Page(marked(row[self.turns], [image["path"] or None for image in images]), pictures)
