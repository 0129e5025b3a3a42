"""OBELICS: Parquet of web documents, paragraphs and image addresses in their order (HuggingFaceM4/OBELICS, arXiv 2306.16527).

`images` and `texts` are lists of one length; in each place one of them is null. `general_metadata` is JSON with the document's
address. The column `metadata`, JSON with alt texts and sizes per image, is not read: nothing later asks for it.
"""

from __future__ import annotations

import json
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

COLUMNS = {"images": pa.list_(pa.string()), "texts": pa.list_(pa.string()), "general_metadata": pa.string()}

END_OF_DOCUMENT = "END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED"
"""What OBELICS' own filters put between parts of a page and did not take out everywhere."""


@dataclass(frozen=True, config=STRICT)
class Obelics:
    """Interleaved documents whose images have to be fetched."""

    kind: ClassVar[str] = "obelics"
    fetches: ClassVar[bool] = True
    isolated: ClassVar[bool] = False
    ranged: ClassVar[bool] = True

    def survey(self, path: Path) -> list[int]:
        """Mean bytes per row of each row group. Raises SourceError."""
        return parquet.survey(path, COLUMNS)

    def rows(self, path: Path, start: int, stop: int) -> Iterator[Row]:
        """One document per row: BAD_ROW where the lists do not match, EMPTY_ROW where nothing is in them."""
        for number, row in parquet.rows(path, COLUMNS, start, stop):
            try:
                yield _document(number, row)
            except ValueError as error:
                yield Row(number, failed=((Reason.BAD_ROW, str(error)),))


def _document(number: int, row: dict[str, Any] | None) -> Row:
    """The document of a row. Raises ValueError where it has not the form."""
    if row is None:
        raise ValueError("a string that is no UTF-8")
    images, texts = row["images"], row["texts"]
    if images is None or texts is None or len(images) != len(texts):
        raise ValueError("images and texts are not lists of one length")
    nodes, pictures = list[Node](), list[Picture]()
    for place, (url, text) in enumerate(zip(images, texts, strict=True)):
        if (url is None) == (text is None):
            raise ValueError(f"place {place} holds {'nothing' if text is None else 'an image and a text'}")
        if text is None:
            nodes.append(Node("image", image=len(pictures), url=url))
            pictures.append(Picture(url=url))
        else:
            nodes += [
                Node("text", supervised=True, text=part.strip()) for part in text.split(END_OF_DOCUMENT) if part.strip()
            ]
    if not nodes:
        return Row(number, failed=((Reason.EMPTY_ROW, "neither text nor image"),))
    return Row(number, (Page(tuple(nodes), tuple(pictures), url=_address(row["general_metadata"])),))


def _address(metadata: str | None) -> str:
    """The document's address; empty where upstream left its metadata out. Raises ValueError where it is no JSON object."""
    if not metadata:
        return ""
    try:
        found = json.loads(metadata)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("general_metadata is no JSON object")  # noqa: TRY004 - as all that is wrong with a row
    url = found.get("url")
    return url if isinstance(url, str) else ""
