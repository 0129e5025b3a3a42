"""Pairs of an image and a caption.

Parquet of addresses, as LAION and PMD are published, and WebDataset tars, as img2dataset writes them.

The caption has no role and is supervised: Idefics2 reads a pair as a short document, LLaVA's first stage leaves its
question out, and in both every token of the caption is supervised. The image is required; a caption alone says nothing
of what is seen.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pyarrow as pa
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.sources.base import Page, Picture, UnreadableRow
from vlmill.pipeline.sources.formats.parquet import Columns, ParquetSource
from vlmill.pipeline.sources.formats.tars import Needs, TarSource
from vlmill.pipeline.sources.known_keys import PICTURES, list_unread

NO_LICENCE = frozenset({"", "?"})
"""What stands in LAION's LICENSE where none is known."""

NUMBER = re.compile(r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?")
"""A number that is written as a text."""

SAME = frozenset({"image", "images"})
"""Keys of the picture that a pair has anyway."""

IMG2DATASET = frozenset(
    {
        "caption",
        "status",
        "error_message",
        "width",
        "height",
        "original_width",
        "original_height",
        "exif",
        "sha256",
        "md5",
    }
)
"""What img2dataset notes besides."""


@dataclass(frozen=True, config=STRICT)
class PairsSource(ParquetSource):
    """Addresses of images with captions; the options name the columns."""

    kind: ClassVar[str] = "pairs"
    captions: ClassVar[bool] = True
    fetches: ClassVar[bool] = True

    url: str = "url"  # the column with the address of the image
    caption: str = "caption"  # the column with what the image shows
    licence: str | None = None  # of each image; else all have the source's
    signals: tuple[str, ...] = ()  # columns of numbers that travel with the sample, such as similarity

    def columns(self) -> Columns:
        """Those that the options name."""
        named = {name: pa.string() for name in (self.url, self.caption, self.licence) if name}
        return {**named, **dict.fromkeys(self.signals, pa.float64())}

    def reads(self) -> Collection[str]:
        """These; a picture in the row is the one at the address."""
        return frozenset({*self.columns(), *SAME})

    def shows(self) -> Collection[str]:
        """The address."""
        return (self.url,)

    def page(self, row: Mapping[str, Any]) -> Page:
        """The image, then its caption; BAD_ROW without the one, EMPTY_ROW without the other."""
        if not (url := row[self.url]):
            raise UnreadableRow(f"no {self.url}")
        licence = row[self.licence] if self.licence else None
        return make_pair_page(Picture(url=url), row[self.caption], url, licence, select_numbers(row, self.signals))


@dataclass(frozen=True, config=STRICT)
class PairsWdsSource(TarSource):
    """Images with captions in tars: per key a picture, `.txt`, and perhaps `.json`, whose keys the options name."""

    kind: ClassVar[str] = "pairs_wds"
    captions: ClassVar[bool] = True

    url: str = "url"  # the key with the address that the image came from
    licence: str | None = None  # of each image; else all have the source's
    signals: tuple[str, ...] = ()  # numbers that travel with the sample

    def needs(self) -> Needs:
        """A picture and its caption."""
        return (PICTURES, ("txt",))

    def reads(self) -> Collection[str]:
        """These, and what is noted of them."""
        return (*PICTURES, "txt", "json")

    def page(self, key: str, members: Mapping[str, bytes]) -> Page:
        """The image, then its caption.

        EMPTY_ROW where that is blank, BAD_ROW where it is no UTF-8 or the JSON is no object.
        """
        about = parse_json_object(key, members["json"]) if "json" in members else {}
        left = list_unread(about, {self.url, self.licence or "", *self.signals, *SAME, *IMG2DATASET}, pictured=True)
        try:
            caption = members["txt"].decode()
        except UnicodeDecodeError as error:
            raise UnreadableRow(f"{key}.txt is no UTF-8: {error}") from error
        suffix = next(suffix for suffix in PICTURES if suffix in members)
        url, licence = about.get(self.url), about.get(self.licence) if self.licence else None
        page = make_pair_page(
            Picture(data=members[suffix]),
            caption,
            url or f"{key}.{suffix}",
            licence,
            select_numbers(about, self.signals),
        )
        return replace(page, unread=tuple(f"json.{name}" for name in left))


def make_pair_page(
    picture: Picture, text: Any, url: Any = None, licence: Any = None, signals: Mapping[str, float] | None = None
) -> Page:
    """The page of an image and what is to be said of it. Raises UnreadableRow where nothing is."""
    if not isinstance(text, str) or not text.strip():
        raise UnreadableRow("no text", Reason.EMPTY_ROW)
    image = Node("image", image=0, required=True, url=url if isinstance(url, str) else None)
    nodes = (image, Node("text", supervised=True, text=text.strip()))
    known = isinstance(licence, str) and licence.strip() not in NO_LICENCE
    return Page(nodes, (picture,), licence=licence.strip() if known else "", signals=signals or {})


def select_numbers(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    """The numbers among the values of these names, also those written as texts, as CSV has them; NaN is none."""
    values = {name: row.get(name) for name in names}
    found = {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) or (isinstance(value, str) and NUMBER.fullmatch(value.strip()))
    }
    return {name: number for name, number in found.items() if math.isfinite(number)}


def parse_json_object(key: str, data: bytes) -> dict[str, Any]:
    """The object in a member `.json`. Raises UnreadableRow."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnreadableRow(f"{key}.json is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UnreadableRow(f"{key}.json holds no object")
    return found
