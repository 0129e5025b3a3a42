"""Interleaved documents of any making whose texts and images are two lists of one length, as OBELICS has them.

OmniCorpus (arXiv 2406.08418) and MINT-1T's HTML (arXiv 2406.11271), in Parquet, Arrow, JSON or JSON Lines:

    {"images": [null, "http://..."], "texts": ["Before", null], "url": "http://..."}

In each place stands a text or an image; a place in which neither stands is passed over, since OmniCorpus leaves the
places of images that it dropped. The lists may be written as JSON, as OmniCorpus-YT has them. `url` says where the
document's own address is, in dotted keys: `general_metadata.url` in OmniCorpus, `url` in MINT-1T. Dotted keys name the
lists of a document that is one list of objects, too: `parts.image` and `parts.text` are as long as `parts`. Where some
parts have another key, `images` names several: `[parts.path, parts.base64]`.

Images of `web_documents` are addresses. Those of `file_documents` are files, from the source's `images`: `file` makes
a path of what stands in the list and of columns, so that `{id}/{image}.jpg` names a frame of OmniCorpus-YT.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import pyarrow as pa
from pydantic import model_validator
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.sources.base import Page, Picture, UnreadableRow
from vlmill.pipeline.sources.conversation import WEB, read_picture
from vlmill.pipeline.sources.document_parts import check_parts
from vlmill.pipeline.sources.file_names import fill_template, list_fields
from vlmill.pipeline.sources.formats.parquet import Columns
from vlmill.pipeline.sources.formats.records import RecordSource
from vlmill.pipeline.sources.names import Names, list_names
from vlmill.pipeline.sources.nested import (
    find_place,
    lift_places,
    list_beside,
    list_heads,
    parse_object,
)

PARAGRAPH_BREAK = "\n\n"

ADDRESS = re.compile(r"https?://|data:", re.IGNORECASE)
SHOWN = 200  # characters of what is no address


@dataclass(frozen=True, config=STRICT)
class WebDocuments(RecordSource):
    """Interleaved documents whose images have to be fetched."""

    kind: ClassVar[str] = "web_documents"
    fetches: ClassVar[bool] = True

    images: Names = "images"  # the list of images, in dotted keys, as long as that of texts; null where a text stands
    texts: Names = "texts"  # the list of texts, in dotted keys; null where an image stands
    url: str = "url"  # where the document's address is, in dotted keys; a row may lack it
    id: str = ""  # the column with the id of each row, also in dotted keys: samples keep it; else id, uuid or key
    signals: tuple[str, ...] = ()  # dotted keys of numbers that travel with the sample, by the last of the keys
    paragraphs: bool = True  # whether each paragraph is a node; else each text between two images is one

    @model_validator(mode="after")
    def _check_lists(self) -> Self:
        """Refuse options that name no list."""
        for option, names in (("images", self.images), ("texts", self.texts)):
            if not list_names(names):
                raise ValueError(f"{option} names no column: give one, such as {option}: content.{option[:-1]}")
        return self

    def columns(self) -> Columns:
        """The two lists, of any type; but for dotted keys, of which files decide what they are."""
        return {name: pa.null() for name in self._lists if "." not in name}

    def optional(self) -> Columns:
        """Where the address and the numbers are, and what dotted keys may mean."""
        named = (place.partition(".")[0] for place in (self.url, *self.signals) if place)
        found = dict.fromkeys((*named, *list_heads(self._lists)))
        return {name: pa.null() for name in found if name not in self.columns()}

    def keys(self) -> tuple[tuple[str, ...], ...]:
        """The two lists."""
        return tuple(
            (*names, *(head for head in list_heads(names) if head not in names))
            for names in (list_names(self.images), list_names(self.texts))
        )

    def reads(self) -> Collection[str]:
        """All of these."""
        return frozenset({*self.columns(), *self.optional()})

    def shows(self) -> Collection[str]:
        """The list of images."""
        return list_names(self.images)

    def unread(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """See KeyedSource; also what stands beside dotted keys within the same objects."""
        left = super().unread(lift_places(row, self._lists))
        if list_heads(self._lists):
            left += tuple(one for one in list_beside(row, self._lists, pictured=True) if one != self.id)
            check_parts(row, list_names(self.images), list_names(self.texts))
        return tuple(one for one in left if one not in {*self._lists, self.url, *self.signals})

    @property
    def _lists(self) -> tuple[str, ...]:
        """The names of all lists."""
        return (*list_names(self.images), *list_names(self.texts))

    def read_image(self, place: int, value: Any, row: Mapping[str, Any]) -> Picture:
        """The image in a place; lost alone where it is no address. Raises UnreadableRow where it is no text."""
        del row
        if not isinstance(value, str):
            raise UnreadableRow(f"image {place} is {type(value).__name__}, expected an address")
        if not ADDRESS.match(value.strip()):
            return Picture(reason=Reason.BAD_URL, detail=f"image {place} is no address: {value[:SHOWN]}")
        return Picture(url=value.strip())

    def page(self, row: Mapping[str, Any]) -> Page:
        """The document: BAD_ROW where the lists do not match, EMPTY_ROW where nothing is in them."""
        row = lift_places(row, self._lists)
        images, texts = read_lists(row, list_names(self.images), list_names(self.texts))
        nodes, pictures = list[Node](), list[Picture]()
        for place, (image, text) in enumerate(zip(images, texts, strict=True)):
            if image is not None:
                picture = self.read_image(place, image, row)
                nodes.append(Node("image", image=len(pictures), url=picture.url or picture.path))
                pictures.append(picture)
            elif text is not None:
                nodes += make_paragraphs(text, split=self.paragraphs)
        if not nodes:
            raise UnreadableRow("neither text nor image", Reason.EMPTY_ROW)
        address = find_place(row, self.url)
        return Page(
            tuple(nodes),
            tuple(pictures),
            url=address if isinstance(address, str) else "",
            signals={place.rpartition(".")[2]: number for place, number in _list_numbers(row, self.signals)},
        )


@dataclass(frozen=True, config=STRICT)
class FileDocuments(WebDocuments):
    """Interleaved documents whose images are files."""

    kind: ClassVar[str] = "file_documents"
    fetches: ClassVar[bool] = False
    opens: ClassVar[bool] = True

    file: str = "{image}"  # the path of an image: {image} is what the list holds, {COLUMN} the row's value there

    @model_validator(mode="after")
    def _check_file(self) -> Self:
        """Refuse a path that is the same for all images."""
        if "image" not in list_fields(self.file):
            raise ValueError(
                f"file is {self.file!r}, expected a path with {{image}} in it, such as {{id}}/{{image}}.jpg"
            )
        return self

    def columns(self) -> Columns:
        """The two lists, and the columns that paths are made of."""
        named = [name for name in list_fields(self.file) if name != "image"]
        return {**super().columns(), **dict.fromkeys(named, pa.null())}

    def read_image(self, place: int, value: Any, row: Mapping[str, Any]) -> Picture:
        """The image in a place; lost alone where it lies on the web. Raises UnreadableRow where it makes no path."""
        given = {**row, "image": value}
        for name in list_fields(self.file):
            if isinstance(given.get(name), bool) or not isinstance(given.get(name), str | int | float):
                raise UnreadableRow(f"{name} of image {place} is {given.get(name)!r}, expected a part of a path")
        path = fill_template(self.file, given)
        if path.lower().startswith(WEB):
            why = f"image {place} lies on the web, and this kind fetches nothing; web_documents does"
            return Picture(url=path, reason=Reason.UNSUPPORTED_MEDIA, detail=f"{why}: {path[:SHOWN]}")
        return read_picture(f"image {place}", path).picture


def read_lists(
    row: Mapping[str, Any], images: Sequence[str], texts: Sequence[str]
) -> tuple[list[Any], list[str | None]]:
    """The two lists of a row; in each place is an image, a text, or nothing where both are None.

    Of several columns of images, or of texts, the first counts that has something in a place.

    Raises:
        UnreadableRow: they are no lists of one length, or a place holds both, or what is no text.
    """
    shown, said = (_merge_lists(names, row) for names in (images, texts))
    if len(shown) != len(said):
        raise UnreadableRow(f"{len(shown)} {' or '.join(images)} beside {len(said)} {' or '.join(texts)}")
    for place, (image, text) in enumerate(zip(shown, said, strict=True)):
        if image is not None and text is not None:
            raise UnreadableRow(f"place {place} holds an image and a text")
        if not isinstance(text, str | None):
            raise UnreadableRow(f"text {place} is {type(text).__name__}, expected a text")
    return shown, said


def make_paragraphs(text: str, *, split: bool) -> Iterator[Node]:
    """The paragraphs of a text, or the whole of it; blank ones are left out."""
    for part in text.split(PARAGRAPH_BREAK) if split else [text]:
        if part.strip():
            yield Node("text", supervised=True, text=part.strip())


def _list_numbers(row: Mapping[str, Any], places: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """Those of these places that hold a number."""
    for place in places:
        value = find_place(row, place)
        if isinstance(value, int | float) and math.isfinite(value):
            yield place, float(value)


def _merge_lists(names: Sequence[str], row: Mapping[str, Any]) -> list[Any]:
    """One list of several columns, of which a row may lack all but one; blank texts are None. Raises UnreadableRow."""
    there = [name for name in names if row.get(name) is not None] or names[:1]
    lists = [[None if item == "" else item for item in _read_list(name, row)] for name in there]
    for name, one in zip(there, lists, strict=True):
        if len(one) != len(lists[0]):
            raise UnreadableRow(f"{len(lists[0])} {there[0]} beside {len(one)} {name}")
    return [next((item for item in items if item is not None), None) for items in zip(*lists, strict=True)]


def _read_list(name: str, row: Mapping[str, Any]) -> list[Any]:
    """A list in a column. Raises UnreadableRow."""
    found = parse_object(row.get(name))
    if not isinstance(found, list):
        raise UnreadableRow(f"{name} is {type(found).__name__}, expected a list")
    return found
