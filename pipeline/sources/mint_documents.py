"""MINT-1T's PDFs and ArXiv papers: tars of documents with their images in one TIFF (arXiv 2406.11271).

Per key `.json`, and `.tiff` where it has images, a frame for each:

    {"texts": ["Before", null], "images": [null, "page_0_image_7"], "url": "http://...",
     "image_metadata": [{"page": 0, "xref": 7, "width": 640, "height": 480}]}

Texts and images are lists of one length, as in `web_documents`. An image's frame is that of its page and xref in
`image_metadata`; where no image is named so, the first image has the first frame, and so on. Frames are read in a child
process; one that cannot be read is lost alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, Amount
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.core.sandbox import MEMORY, ChildCrashed, ChildTimedOut, Sandbox
from vlmill.pipeline.core.step import RUNTIME
from vlmill.pipeline.sources.base import Page, Picture, Source, SourceRow, UnreadableRow, pick_items, read_pages
from vlmill.pipeline.sources.formats import tars
from vlmill.pipeline.sources.formats.pdf_pages import Form, render_pages
from vlmill.pipeline.sources.known_keys import list_unread
from vlmill.pipeline.sources.pairs import parse_json_object
from vlmill.pipeline.sources.web_documents import make_paragraphs, read_lists

FRAMES = ("tiff", "tif")
"""Suffixes of the member that holds the images."""

NAMED = re.compile(r"page_(\d+)_image_(\d+)")
"""What an image is called: its page, and its number among the objects of the PDF."""


@dataclass(frozen=True, config=STRICT)
class MintDocuments(Source):
    """Interleaved documents of PDFs and papers, with their images."""

    kind: ClassVar[str] = "mint_documents"
    isolated: ClassVar[bool] = True

    paragraphs: bool = True  # whether each paragraph is a node; else each text between two images is one
    max_bytes: Amount = 1 << 28  # bytes of the files of one document at most
    seconds: Annotated[float, Field(gt=0, le=86_400)] = field(
        default=30.0, metadata=RUNTIME
    )  # seconds that one image may take to decode

    def needs(self) -> tars.Needs:
        """The texts. A document of text alone has no TIFF."""
        return (("json",),)

    def survey(self, path: Path) -> list[int]:
        """Bytes of each document's members. Raises BadFileError as `tars.index_rows`."""
        return [entry.size for entry in tars.index_rows(path, self.needs())]

    def rows(self, path: Path, numbers: Sequence[int]) -> Iterator[SourceRow]:
        """One sample for each of the documents of these numbers. Raises BadFileError as `tars.index_rows`."""
        entries = pick_items(tars.index_rows(path, self.needs()), numbers)
        with path.open("rb") as file, Sandbox(render_pages, self.seconds, MEMORY) as worker:
            yield from read_pages(
                entries, partial(self._make_page, file, _FrameReader(worker)), lambda entry: entry.key
            )

    def _make_page(self, file: BinaryIO, frames: _FrameReader, entry: tars.TarRow) -> Page:
        """The document: BAD_ROW where the lists do not match, EMPTY_ROW where nothing is in them."""
        tars.choose_members(entry, self.needs())
        if entry.size > self.max_bytes:
            raise UnreadableRow(f"{entry.key} has {entry.size} bytes, allowed {self.max_bytes}", Reason.TOO_MANY_BYTES)
        about = parse_json_object(entry.key, tars.read_member(file, entry.members["json"]))
        images, texts = read_lists(about, ["images"], ["texts"])
        names = [image for image in images if image is not None]
        left = list_unread(about, ("images", "texts", "image_metadata", "url"), pictured=bool(names))
        suffix = next((suffix for suffix in FRAMES if suffix in entry.members), "")
        data = tars.read_member(file, entry.members[suffix]) if suffix and names else b""
        pictures = frames.read(f"{entry.key}.{suffix or 'tiff'}", data, names, about.get("image_metadata"))
        nodes, shown = list[Node](), 0
        for image, text in zip(images, texts, strict=True):
            if image is not None:
                nodes.append(Node("image", image=shown, url=f"{entry.key}.{suffix}#{image}"))
                shown += 1
            elif text is not None:
                nodes += make_paragraphs(text, split=self.paragraphs)
        if not nodes:
            raise UnreadableRow("neither text nor image", Reason.EMPTY_ROW)
        others = sorted({*entry.members}.difference(FRAMES, {"json"}))
        unread = (*(f".{suffix}" for suffix in others), *(f"json.{name}" for name in left))
        url = about.get("url")
        return Page(tuple(nodes), pictures, url=url if isinstance(url, str) else "", unread=unread)


@plain_dataclass(frozen=True, slots=True)
class _FrameReader:
    """The child that reads frames."""

    worker: Sandbox[[Form, bytes, int, Sequence[int], int], bytes | str]

    def read(self, name: str, data: bytes, images: Sequence[Any], metadata: Any) -> tuple[Picture, ...]:
        """A picture for each image, or why there is none; `data` is a TIFF of this name, empty where there is none."""
        if not data:
            return tuple(Picture(reason=Reason.MISSING_FILE, detail=f"there is no {name}") for _ in images)
        placed = list(_place_frames(images, metadata))
        wanted = sorted({frame for frame in placed if frame is not None})
        count = len(metadata) if isinstance(metadata, list) and metadata else len(images)
        found = dict(zip(wanted, self._ask(data, count, wanted), strict=True))
        lost = Picture(reason=Reason.UNDECODABLE, detail=f"image_metadata has no frame of {name} for it")
        return tuple(lost if frame is None else found[frame] for frame in placed)

    def _ask(self, data: bytes, count: int, wanted: list[int]) -> Iterator[Picture]:
        """One item per wanted frame."""
        given = 0
        try:
            for answer in self.worker.run("tif", data, count, wanted, 0) if wanted else ():
                given += 1
                if isinstance(answer, bytes):
                    yield Picture(data=answer)
                else:
                    yield Picture(reason=Reason.UNDECODABLE, detail=f"frames of the TIFF: {answer}")
        except (ChildCrashed, ChildTimedOut) as error:
            for _ in wanted[given:]:
                yield Picture(reason=error.reason, detail=str(error))


def _place_frames(images: Sequence[Any], metadata: Any) -> Iterator[int | None]:
    """The number of each image's frame; None where `metadata` names others and not this one."""
    listed = [one if isinstance(one, Mapping) else {} for one in metadata] if isinstance(metadata, list) else []
    named: dict[tuple[str | Any, ...], int] = {
        (str(one.get("page")), str(one.get("xref"))): place for place, one in enumerate(listed)
    }
    marks = [NAMED.fullmatch(image) if isinstance(image, str) else None for image in images]
    found = [named.get(mark.groups()) if mark else None for mark in marks]
    by_name = any(frame is not None for frame in found)
    for place, frame in enumerate(found):
        yield frame if by_name else place
