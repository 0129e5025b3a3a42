"""Documents in tars: pages with their text beside them, one sample per page.

What IDL and PDFA share, down to their options.

The texts are read here, the pictures are made by `pdf_pages.py` in a child process. A document that hangs or kills the
child loses the pages that it had not yet given; reading goes on with the next document and a new child.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar, Protocol

import pydantic.dataclasses
from pydantic import Field

from vlmill.pipeline.core.config import STRICT, Amount
from vlmill.pipeline.core.excerpt import escape_text
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.core.sandbox import MEMORY, ChildCrashed, ChildTimedOut, Sandbox
from vlmill.pipeline.core.step import RUNTIME
from vlmill.pipeline.sources.base import Page, Picture, Source, SourceRow, UnreadableRow, pick_items, try_row
from vlmill.pipeline.sources.formats import tars
from vlmill.pipeline.sources.formats.pdf_pages import Form, render_pages
from vlmill.pipeline.sources.known_keys import list_unread
from vlmill.pipeline.sources.pairs import SAME

FORMS: dict[str, Form] = {"tif": "tif", "tiff": "tif", "pdf": "pdf"}
"""What the member of a suffix is."""

PIXEL_BYTES = 8
"""Bytes that a child may take for each pixel of a rendered page: the bitmap, its channels, and its PNG."""

Loss = tuple[Reason, str]
Losses = dict[int, Loss]  # by page


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class DocumentSource(Source, Protocol):
    """A source whose rows are documents of a tar: it says which members hold their pages."""

    isolated: ClassVar[bool] = True
    suffixes: ClassVar[tuple[str, ...]]  # the pictures come from the first of these that a document has

    long_side: Annotated[int, Field(ge=1, le=16_384)] = (
        1280  # pixels of a rendered page: 116 dpi on A4, where 8 point print can be read
    )
    max_pages: Annotated[int, Field(ge=1, le=100_000)] = (
        256  # the pages of one document are held in memory together, 0.1 to 2 MB each
    )
    max_bytes: Amount = 1 << 28  # bytes of the files of one document at most
    seconds: Annotated[float, Field(gt=0, le=86_400)] = field(
        default=30.0, metadata=RUNTIME
    )  # for one page; 0.05 are usual

    def needs(self) -> tars.Needs:
        """A text and something to look at."""
        return (("json",), self.suffixes)

    def survey(self, path: Path) -> list[int]:
        """Bytes of each document's members. Raises SourceError as `tars.index_rows`."""
        return [entry.size for entry in tars.index_rows(path, self.needs())]

    def rows(self, path: Path, numbers: Sequence[int]) -> Iterator[SourceRow]:
        """One sample per page of the documents of these numbers: the image, then its text.

        Raises SourceError as `tars.index_rows`.
        """
        entries = tars.index_rows(path, self.needs())
        memory = MEMORY + PIXEL_BYTES * self.long_side**2
        with path.open("rb") as file, Sandbox(render_pages, self.seconds, memory) as worker:
            reader = _DocumentReader(file, worker, self)
            for number, entry in pick_items(entries, numbers):
                made = try_row(partial(reader.document, number), entry)
                if isinstance(made, UnreadableRow):
                    made = SourceRow(number, failed=((made.reason, str(made)),), excerpt=_name_document(entry))
                yield replace(made, upstream_id=entry.key)


@dataclass(frozen=True, slots=True)
class _DocumentReader:
    """An open tar and the child that makes pictures."""

    file: BinaryIO
    worker: Sandbox[[Form, bytes, int, Sequence[int], int], bytes | str]
    source: DocumentSource

    def document(self, number: int, entry: tars.TarRow) -> SourceRow:
        """The pages of one document, and the losses of the others. Raises UnreadableRow where none can be read."""
        _, suffix = tars.choose_members(entry, self.source.needs())
        if entry.size > self.source.max_bytes:
            raise UnreadableRow(
                f"{entry.key} has {entry.size} bytes, allowed {self.source.max_bytes}", Reason.TOO_MANY_BYTES
            )
        texts, left = self._texts(entry)
        wanted, failed = _choose_pages(texts, self.source.max_pages)
        data = tars.read_member(self.file, entry.members[suffix])
        pages = list[Page]()
        for place, picture in zip(wanted, self._pictures(FORMS[suffix], data, len(texts), list(wanted)), strict=True):
            if isinstance(picture, bytes):
                pages.append(_make_page(place, wanted[place], picture, f"{entry.key}.{suffix}#page={place + 1}"))
            else:
                failed[place] = picture[0], f"page {place}: {picture[1]}"
        others = sorted({*entry.members}.difference(self.source.suffixes, {"json"}))
        noted = (*(f".{suffix}" for suffix in others), *(f"json.{name}" for name in left))
        shown = tuple(replace(page, unread=noted) for page in pages)
        return SourceRow(number, shown, tuple(failed.values()), tuple(failed), _name_document(entry) if failed else "")

    def _texts(self, entry: tars.TarRow) -> tuple[list[str | None], tuple[str, ...]]:
        """The text of each page, None where it has not the form; and what is not read beside the pages.

        Raises:
            UnreadableRow: there are no pages, or something beside them may not be left unread.
        """
        try:
            about = json.loads(tars.read_member(self.file, entry.members["json"]))
        except (ValueError, RecursionError):
            about = None
        pages = about.get("pages") if isinstance(about, dict) else None
        if not isinstance(pages, list):
            raise UnreadableRow(f"{entry.key}.json has no list of pages")
        if not pages:
            raise UnreadableRow(f"{entry.key}.json has no pages", Reason.EMPTY_ROW)
        return [_read_text(page) for page in pages], list_unread(about, ("pages", *SAME), pictured=True)

    def _pictures(self, form: Form, data: bytes, count: int, wanted: list[int]) -> Iterator[bytes | Loss]:
        """One item per wanted page: its picture, or the loss of it. The child is not asked for nothing."""
        given = 0
        try:
            for answer in self.worker.run(form, data, count, wanted, self.source.long_side) if wanted else ():
                given += 1
                yield answer if isinstance(answer, bytes) else (Reason.BAD_PAGE, answer)
        except (ChildCrashed, ChildTimedOut) as error:
            for _ in wanted[given:]:
                yield error.reason, str(error)


def _read_text(page: Any) -> str | None:
    """The lines of a page, in upstream's reading order, joined by newlines.

    IDL has them in `text`, PDFA in `lines.text`.
    """
    page = (page.get("lines") or page) if isinstance(page, dict) else None
    lines = page.get("text") if isinstance(page, dict) else None
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        return None
    return "\n".join(lines)


def _name_document(entry: tars.TarRow) -> str:
    """What stands for a document where something of it is shown: its members."""
    return escape_text(", ".join(member.name for member in entry.members.values()) or entry.key)


def _choose_pages(texts: list[str | None], max_pages: int) -> tuple[dict[int, str], Losses]:
    """The pages to make pictures of, with their texts, and the losses of the others."""
    wanted, failed = dict[int, str](), Losses()
    for place, text in enumerate(texts):
        if place >= max_pages:
            failed[place] = Reason.PAGE_CAP, f"page {place}"
        elif text is None:
            failed[place] = Reason.BAD_PAGE, f"page {place} has no lines of text"
        elif not text.strip():
            failed[place] = Reason.EMPTY_ROW, f"page {place} has no text"
        else:
            wanted[place] = text
    return wanted, failed


def _make_page(place: int, text: str, picture: bytes, url: str) -> Page:
    """The picture to read, then the text to say."""
    nodes = (Node("image", image=0, required=True, url=url), Node("text", supervised=True, text=text))
    return Page(nodes, (Picture(data=picture),), page=place)
