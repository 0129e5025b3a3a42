"""Conversations with several images in Parquet.

Mantis-Instruct (arXiv 2405.01483), and LLaVA-NeXT and OneVision as the Hub has them.

`images` is a list of images or one image, with bytes or the path of a file; the turns have `role` and `content`, or
`from` and `value`, in which `<image>`, or a part of type image as TRL's sets have it, says where an image stands. Paths
start from the source's `root`, or from its `images` if that is set: a folder, or the archive that upstream ships
(`zip://::/data/nlvr2/train_images.zip`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.sources.base import Page
from vlmill.pipeline.sources.conversation import SYSTEM, TURNS, ConversationImage, get_turns, read_marked_page
from vlmill.pipeline.sources.formats.parquet import IMAGE, Columns, ParquetSource, read_picture
from vlmill.pipeline.sources.known_keys import get_given
from vlmill.pipeline.sources.marks import MARK, Mark

MESSAGES = (
    pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
    pa.list_(pa.struct({"from": pa.string(), "value": pa.string()})),
    pa.list_(pa.struct({"role": pa.string(), "content": pa.list_(pa.struct({"type": pa.string()}))})),
)


OTHERS = ("conversation", *TURNS)
"""What else turns are called: a table that unites sets has several of these columns."""


@dataclass(frozen=True, config=STRICT)
class Interleaved(ParquetSource):
    """Conversations with images in their places; the options name the columns."""

    kind: ClassVar[str] = "interleaved"
    opens: ClassVar[bool] = True

    images: str = "images"  # the column with a list of images, in the order of `<image>` in the turns
    turns: str = "conversation"  # the column with a list of turns
    mark: Mark = MARK  # where an image stands in a text, beside <image>; with a number <image {number}>
    id: str = ""  # the column with the id of each row, also in dotted keys: samples keep it; else id, uuid or key

    def columns(self) -> Columns:
        """Those that the options name."""
        return {self.images: (pa.list_(IMAGE), IMAGE), self.turns: MESSAGES}

    def optional(self) -> Columns:
        """A system prompt beside the turns, and other turns where a row has none in the column that is named."""
        return dict.fromkeys((*SYSTEM, *(name for name in OTHERS if name != self.turns)), pa.null())

    def shows(self) -> Collection[str]:
        """The column of images, under any of its names."""
        return (self.images,)

    def page(self, row: Mapping[str, Any]) -> Page:
        """One sample of several turns.

        Raises UnreadableRow as `conversation.read_marked_page`, and for an image of which nothing is there.
        """
        found = row[self.images] or []
        images = [found] if isinstance(found, dict) else found
        beside = [
            ConversationImage(read_picture(place, image, paths=True), image["path"] or None)
            for place, image in enumerate(images)
        ]
        said = row[self.turns] or get_turns(row, [name for name in OTHERS if name != self.turns])
        return read_marked_page(said, beside, get_given(row, SYSTEM), mark=self.mark)
