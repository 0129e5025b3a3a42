"""PDFs as they are: files, or members of tars, with no other text than their own layer.

By default each page is a sample, its picture and then its text, as `pdfa` makes them. With `sample: document` the whole
PDF is one: the texts of its pages, with their embedded images where they stand. A page without a text layer, a scan, is
lost for `empty_row`: recognising text is not done here. PDFs are read in a child process, under a limit of time and
memory. Each PDF that is a file is an input file, and so a partition of its own: put thousands of them into tars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, Amount
from vlmill.pipeline.core.errors import BadFileError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import NO_PAGE, Node
from vlmill.pipeline.core.sandbox import MEMORY, ChildCrashed, ChildTimedOut, borrow_sandbox
from vlmill.pipeline.core.step import RUNTIME
from vlmill.pipeline.sources.base import Page, Picture, Source, SourceRow, UnreadableRow, pick_items, try_row
from vlmill.pipeline.sources.formats import tars
from vlmill.pipeline.sources.formats.documents import PIXEL_BYTES
from vlmill.pipeline.sources.formats.pdf_contents import Item, read_layout, read_pages
from vlmill.pipeline.sources.known_keys import list_unread
from vlmill.pipeline.sources.pairs import SAME, parse_json_object

MARK = b"%PDF-"
HEAD = 1024
"""Bytes in which a PDF has to say that it is one (ISO 32000-1, annex H.3.4.1)."""

Loss = tuple[Reason, str]


@dataclass(frozen=True, config=STRICT)
class Pdf(Source):
    """PDFs with the text that they carry."""

    kind: ClassVar[str] = "pdf"
    isolated: ClassVar[bool] = True

    sample: Literal["page", "document"] = "page"  # what becomes one: a page with its text, or a PDF with its images
    long_side: Annotated[int, Field(ge=1, le=16_384)] = 1280  # pixels of a page: 116 dpi on A4
    max_pages: Annotated[int, Field(ge=1, le=100_000)] = 256  # of one PDF, held in memory together
    max_bytes: Amount = 1 << 28  # bytes of one PDF at most
    seconds: Annotated[float, Field(gt=0, le=86_400)] = field(
        default=30.0, metadata=RUNTIME
    )  # seconds that one page or image may take

    def needs(self) -> tars.Needs:
        """The PDF alone."""
        return (("pdf",),)

    def survey(self, path: Path) -> list[int]:
        """Bytes of each PDF. Raises BadFileError where the name says neither PDF nor tar, or as `tars.index_rows`."""
        if is_tar(path):
            return [entry.size for entry in tars.index_rows(path, self.needs())]
        _check_pdf(path)
        return [path.stat().st_size]

    def rows(self, path: Path, numbers: Sequence[int]) -> Iterator[SourceRow]:
        """The samples of the PDFs of these numbers, and what could not be read. Raises BadFileError as `survey`."""
        memory = MEMORY + PIXEL_BYTES * self.long_side**2
        entries: Iterator[tars.TarRow | None]
        if is_tar(path):
            entries = iter(tars.index_rows(path, self.needs()))
        else:
            _check_pdf(path)
            entries = iter([None])
        read = read_pages if self.sample == "page" else read_layout
        with borrow_sandbox(read, self.seconds, memory) as worker:  # of many small files that share a partition
            ask = partial(worker.run, **({"long_side": self.long_side} if self.sample == "page" else {}))
            for number, entry in pick_items(entries, numbers):
                made = try_row(partial(self._read_row, path, ask, number), entry)
                if isinstance(made, UnreadableRow):
                    name = entry.key if entry else path.name
                    made = SourceRow(number, failed=((made.reason, str(made)),), excerpt=name)
                yield replace(made, upstream_id=entry.key if entry else "")

    def _read_row(
        self, path: Path, ask: Callable[..., Iterator[Item]], number: int, entry: tars.TarRow | None
    ) -> SourceRow:
        """The samples of one PDF. Raises UnreadableRow where there are none, and no page to blame."""
        name, data, unread = self._load(path, entry)
        reader = _Reader(name, ask(data=data, max_pages=self.max_pages))
        count = reader.count_pages()
        pages, failed = reader.read_pages(count, self.max_pages) if self.sample == "page" else ([], {})
        if self.sample == "document":
            page, failed = reader.read_document(count, self.max_pages)
            pages = [page] if page.nodes else []
            if not pages and not failed:
                raise UnreadableRow(f"{name} has neither text nor images", Reason.EMPTY_ROW)
        shown = tuple(replace(page, unread=unread) for page in pages)
        return SourceRow(number, shown, tuple(failed.values()), tuple(failed), name if failed else "")

    def _load(self, path: Path, entry: tars.TarRow | None) -> tuple[str, bytes, tuple[str, ...]]:
        """A PDF's name and bytes, and what is not read beside it. Raises UnreadableRow."""
        if entry is None:
            size, name = path.stat().st_size, path.name
        else:
            tars.choose_members(entry, self.needs())
            size, name = entry.members["pdf"].size, f"{entry.key}.pdf"
        if size > self.max_bytes:
            raise UnreadableRow(f"{name} has {size} bytes, allowed {self.max_bytes}", Reason.TOO_MANY_BYTES)
        if entry is None:
            data = path.read_bytes()
            if MARK not in data[:HEAD]:
                raise UnreadableRow(f"{name} is no PDF: it has {size} bytes, and none of the first {HEAD} begin %PDF-")
            return name, data, ()
        with path.open("rb") as file:
            data = tars.read_member(file, entry.members["pdf"])
            about = tars.read_member(file, entry.members["json"]) if "json" in entry.members else b"{}"
        left = list_unread(parse_json_object(entry.key, about), SAME, pictured=True)
        others = sorted({*entry.members}.difference({"pdf", "json"}))
        return name, data, (*(f".{suffix}" for suffix in others), *(f"json.{key}" for key in left))


@plain_dataclass(frozen=True, slots=True)
class _Reader:
    """What a child says of one PDF."""

    name: str
    answers: Iterator[Item]

    def next(self) -> dict[str, Any] | bytes | Loss:
        """The next that the child says, or why it says no more."""
        try:
            return next(self.answers)
        except (ChildCrashed, ChildTimedOut) as error:
            return error.reason, str(error)
        except StopIteration:
            return Reason.CRASHED, "the child said less than it should"

    def count_pages(self) -> int:
        """How many pages there are. Raises UnreadableRow where it is no PDF."""
        said = self.next()
        if isinstance(said, dict) and isinstance(said.get("pages"), int):
            return int(said["pages"])
        reason, why = said if isinstance(said, tuple) else (Reason.BAD_ROW, _find_error(said))
        raise UnreadableRow(f"{self.name}: {why}", reason)

    def read_pages(self, count: int, max_pages: int) -> tuple[list[Page], dict[int, Loss]]:
        """A sample for each page, its picture and then its text; and the losses of the others."""
        pages, failed = list[Page](), dict[int, Loss]()
        for number in range(count):
            if number >= max_pages:
                failed[number] = Reason.PAGE_CAP, f"page {number}"
                continue
            said = self.next()
            text = said.get("text") if isinstance(said, dict) else None
            picture = self.next() if isinstance(text, str) and text else said
            if isinstance(picture, bytes):
                url = f"{self.name}#page={number + 1}"
                nodes = (Node("image", image=0, required=True, url=url), Node("text", supervised=True, text=text))
                pages.append(Page(nodes, (Picture(data=picture),), page=number))
            elif text == "":
                failed[number] = Reason.EMPTY_ROW, f"page {number} has no text layer: a scan, or a picture"
            else:
                failed[number] = _blame_page(number, picture)
                if isinstance(picture, tuple):  # the child is gone
                    failed |= dict.fromkeys(range(number + 1, min(count, max_pages)), failed[number])
                    failed |= {other: (Reason.PAGE_CAP, f"page {other}") for other in range(max_pages, count)}
                    break
        return pages, failed

    def read_document(self, count: int, max_pages: int) -> tuple[Page, dict[int, Loss]]:
        """One sample of all pages that could be read, and the losses of the others, which stand for themselves."""
        nodes, pictures, failed = list[Node](), list[Picture](), dict[int, Loss]()
        for number in range(min(count, max_pages)):
            said = self.next()
            parts = said.get("parts") if isinstance(said, dict) else None
            if not isinstance(said, dict) or not isinstance(parts, list):
                failed[number] = _blame_page(number, said)
                if isinstance(said, tuple):
                    failed |= dict.fromkeys(range(number + 1, min(count, max_pages)), failed[number])
                    break
                continue
            shown = [_make_picture(self.next()) for _ in range(int(said.get("images", 0)))]
            for part in parts:
                if isinstance(part, str):
                    nodes.append(Node("text", supervised=True, text=part))
                elif isinstance(part, int) and 0 <= part < len(shown):
                    url = f"{self.name}#page={number + 1}&image={part}"
                    nodes.append(Node("image", image=len(pictures), url=url))
                    pictures.append(shown[part])
        failed |= {number: (Reason.PAGE_CAP, f"page {number}") for number in range(max_pages, count)}
        return Page(tuple(nodes), tuple(pictures), page=NO_PAGE), failed


def _make_picture(said: dict[str, Any] | bytes | Loss) -> Picture:
    """An embedded image, or why there is none."""
    if isinstance(said, bytes):
        return Picture(data=said)
    reason, why = said if isinstance(said, tuple) else (Reason.UNDECODABLE, str(said.get("lost")))
    return Picture(reason=reason, detail=why)


def _blame_page(number: int, said: dict[str, Any] | bytes | Loss) -> Loss:
    if isinstance(said, tuple):
        return said[0], f"page {number}: {said[1]}"
    return Reason.BAD_PAGE, f"page {number}: {_find_error(said)}"


def _find_error(said: dict[str, Any] | bytes) -> str:
    return str(said.get("error")) if isinstance(said, dict) else "it says what it should not"


def is_tar(path: Path) -> bool:
    """Whether PDFs are members of this file, by its name."""
    return str(path).lower().endswith(".tar")


def _check_pdf(path: Path) -> None:
    """Raise BadFileError where neither a file nor its name says that it is a PDF; one of that name is a row."""
    with path.open("rb") as file:
        if not str(path).lower().endswith(".pdf") and MARK not in file.read(HEAD):
            raise BadFileError(f"{path}: expected a PDF, or a tar of PDFs whose name ends in .tar; found neither")
