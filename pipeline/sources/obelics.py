"""OBELICS: Parquet of web documents, paragraphs and image addresses in order.

HuggingFaceM4/OBELICS, arXiv 2306.16527.

`images` and `texts` are lists of one length; in each place one of them is null. `general_metadata` is JSON with the
document's address. The column `metadata`, JSON with alt texts and sizes per image, is not read: nothing later asks for
it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.sources.base import Page, Picture, UnreadableRow
from vlmill.pipeline.sources.formats.parquet import Columns, ParquetSource

END_OF_DOCUMENT = "END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED"
"""What OBELICS' own filters put between parts of a page and did not take out everywhere."""
PARAGRAPH_BREAK = "\n\n"


@dataclass(frozen=True, config=STRICT)
class Obelics(ParquetSource):
    """Interleaved documents whose images have to be fetched."""

    paragraphs: bool = True  # whether each paragraph is a node; else each text between two images is one

    kind: ClassVar[str] = "obelics"
    fetches: ClassVar[bool] = True

    def columns(self) -> Columns:
        """Three of upstream's four."""
        strings = pa.list_(pa.string())
        return {"images": strings, "texts": strings, "general_metadata": pa.string()}

    def page(self, row: Mapping[str, Any]) -> Page:
        """The document: BAD_ROW where the lists do not match, EMPTY_ROW where nothing is in them."""
        images, texts = row["images"], row["texts"]
        if images is None or texts is None or len(images) != len(texts):
            raise UnreadableRow("images and texts are not lists of one length")
        nodes, pictures = list[Node](), list[Picture]()
        for place, (url, text) in enumerate(zip(images, texts, strict=True)):
            if (url is None) == (text is None):
                raise UnreadableRow(f"place {place} holds {'nothing' if text is None else 'an image and a text'}")
            if text is None:
                nodes.append(Node("image", image=len(pictures), url=url))
                pictures.append(Picture(url=url))
            else:
                split = PARAGRAPH_BREAK if self.paragraphs else END_OF_DOCUMENT
                parts = [part.strip() for part in text.replace(END_OF_DOCUMENT, split).split(split)]
                nodes += [Node("text", supervised=True, text=part) for part in parts if part]
        if not nodes:
            raise UnreadableRow("neither text nor image", Reason.EMPTY_ROW)
        return Page(tuple(nodes), tuple(pictures), url=_read_address(row["general_metadata"]))


def _read_address(metadata: str | None) -> str:
    """The document's address; empty where upstream left its metadata out.

    Raises UnreadableRow where it is no JSON object.
    """
    if not metadata:
        return ""
    try:
        found = json.loads(metadata)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UnreadableRow("general_metadata is no JSON object")
    url = found.get("url")
    return url if isinstance(url, str) else ""
