"""Documents in tars: pages with their text beside them, one sample per page. What IDL and PDFA share.

The texts are read here, the pictures are made by `rendering.py` in a child process. A document that hangs or kills the child loses
the pages that it had not yet given; reading goes on with the next document and a new child.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pipeline.isolate import ChildCrashed, ChildTimedOut, Isolated
from pipeline.reasons import Reason
from pipeline.sample import Node
from pipeline.sources import tars
from pipeline.sources.rendering import Form, render
from pipeline.sources.source import Page, Picture, Row

FORMS: dict[str, Form] = {"tif": "tif", "tiff": "tif", "pdf": "pdf"}
"""What the member of a suffix is."""

VIDEO = frozenset({"avi", "flv", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ogv", "webm", "wmv"})
AUDIO = frozenset({"aac", "flac", "m4a", "mp3", "ogg", "opus", "wav", "wma"})

Loss = tuple[Reason, str]


class Options(Protocol):
    """What a recipe can say about documents."""

    @property
    def long_side(self) -> int:
        """Pixels of the longer side of a rendered page."""
        ...

    @property
    def max_pages(self) -> int:
        """Pages of one document that are read; the others are counted as dropped."""
        ...

    @property
    def max_bytes(self) -> int:
        """Bytes of all members of one document."""
        ...

    @property
    def seconds(self) -> float:
        """Seconds for one page."""
        ...


def survey(path: Path) -> list[int]:
    """Bytes of each document's members. Raises SourceError."""
    return [entry.size for entry in tars.index(path)]


def rows(path: Path, start: int, stop: int, *, suffixes: Sequence[str], options: Options) -> Iterator[Row]:
    """Documents [start, stop) of a tar; the pictures come from the first of `suffixes` that a document has.

    Raises:
        SourceError: see `tars.index`.
    """
    entries = tars.index(path)[start:stop]
    with path.open("rb") as file, Isolated(render, options.seconds) as worker:
        reader = _Reader(file, worker, suffixes, options)
        for number, entry in enumerate(entries, start):
            try:
                yield reader.document(number, entry)
            except _Lost as lost:
                yield Row(number, failed=(lost.loss,))


class _Lost(Exception):  # noqa: N818 - a verdict about a document
    """Nothing of a document can be read."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.loss: Loss = (reason, detail)


@dataclass(frozen=True, slots=True)
class _Reader:
    """An open tar and the child that makes pictures."""

    file: BinaryIO
    worker: Isolated[[Form, bytes, int, Sequence[int], int], bytes | str]
    suffixes: Sequence[str]
    options: Options

    def document(self, number: int, entry: tars.Entry) -> Row:
        """The pages of one document, and the losses of the others. Raises _Lost."""
        suffix = self._check(entry)
        texts = self._texts(entry)
        wanted, failed = _choose(texts, self.options.max_pages)
        data = tars.read(self.file, entry.members[suffix])
        pages = list[Page]()
        for place, picture in zip(wanted, self._pictures(FORMS[suffix], data, len(texts), list(wanted)), strict=True):
            if isinstance(picture, bytes):
                pages.append(_page(place, wanted[place], picture, f"{entry.key}.{suffix}#page={place + 1}"))
            else:
                failed.append((picture[0], f"page {place}: {picture[1]}"))
        return Row(number, tuple(pages), tuple(failed))

    def _check(self, entry: tars.Entry) -> str:
        """The suffix of the member that holds the pictures. Raises _Lost for a document that cannot be read at all."""
        if entry.trouble:
            raise _Lost(Reason.BAD_ROW, entry.trouble)
        if media := sorted((VIDEO | AUDIO).intersection(entry.members)):
            raise _Lost(Reason.UNSUPPORTED_MEDIA, f"{entry.key}.{media[0]}")
        suffix = next((suffix for suffix in self.suffixes if suffix in entry.members), None)
        if suffix is None or "json" not in entry.members:
            found, needed = ", ".join(sorted(entry.members)), " or ".join(self.suffixes)
            raise _Lost(Reason.BAD_ROW, f"{entry.key} has {found}; it needs json and {needed}")
        if entry.size > self.options.max_bytes:
            raise _Lost(Reason.TOO_MANY_BYTES, f"{entry.key} has {entry.size} bytes, allowed {self.options.max_bytes}")
        return suffix

    def _texts(self, entry: tars.Entry) -> list[str | None]:
        """The text of each page, None where it has not the form. Raises _Lost where there are no pages."""
        try:
            pages = json.loads(tars.read(self.file, entry.members["json"]))["pages"]
        except (ValueError, RecursionError, TypeError, KeyError):
            pages = None
        if not isinstance(pages, list):
            raise _Lost(Reason.BAD_ROW, f"{entry.key}.json has no list of pages")
        if not pages:
            raise _Lost(Reason.EMPTY_ROW, f"{entry.key}.json has no pages")
        return [_text(page) for page in pages]

    def _pictures(self, form: Form, data: bytes, count: int, wanted: list[int]) -> Iterator[bytes | Loss]:
        """One item per wanted page: its picture, or the loss of it. The child is not asked for nothing."""
        given = 0
        try:
            for answer in self.worker.run(form, data, count, wanted, self.options.long_side) if wanted else ():
                given += 1
                yield answer if isinstance(answer, bytes) else (Reason.BAD_PAGE, answer)
        except (ChildCrashed, ChildTimedOut) as error:
            for _ in wanted[given:]:
                yield error.reason, str(error)


def _text(page: Any) -> str | None:
    """The lines of a page, which upstream put in reading order, joined by newlines: `text` of IDL, `lines.text` of PDFA."""
    page = page.get("lines", page) if isinstance(page, dict) else None
    lines = page.get("text") if isinstance(page, dict) else None
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        return None
    return "\n".join(lines)


def _choose(texts: list[str | None], max_pages: int) -> tuple[dict[int, str], list[Loss]]:
    """The pages to make pictures of, with their texts, and the losses of the others."""
    wanted, failed = dict[int, str](), list[Loss]()
    for place, text in enumerate(texts):
        if place >= max_pages:
            failed.append((Reason.PAGE_CAP, f"page {place}"))
        elif text is None:
            failed.append((Reason.BAD_PAGE, f"page {place} has no lines of text"))
        elif not text.strip():
            failed.append((Reason.EMPTY_ROW, f"page {place} has no text"))
        else:
            wanted[place] = text
    return wanted, failed


def _page(place: int, text: str, picture: bytes, url: str) -> Page:
    """The picture to read, then the text to say."""
    nodes = (Node("image", image=0, required=True, url=url), Node("text", supervised=True, text=text))
    return Page(nodes, (Picture(data=picture),), page=place)
