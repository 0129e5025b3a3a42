"""Makes rows of pages, with texts and images in order: of HTML and Markdown files, WARC files, columns of tables.

    python examples/pages_to_rows.py crawl/ rows.jsonl
    python examples/pages_to_rows.py crawl/pages.parquet rows.jsonl --column markdown
    vlmill new rows.jsonl

A page becomes `texts` and `images` in reading order, with its address as `url`. Of HTML what stands in `nav`, `footer`
and `aside` is left out, as are scripts; filters and dedupe find more of what is no content. Addresses
of images are made absolute by the page's own: that of the WARC record, of `<link rel="canonical">` or `<base>`, or of a
column `url`. An image that lies on disk beside its page, as in a saved crawl, becomes its path below the folder of the
rows (or of the pages, where these lie elsewhere): rows with paths are of kind `file_documents`, others of
`web_documents`, and `vlmill new` tells them apart. A row of a file names it as `file`.

What gives no row (no text and no image, bytes that are no text, an answer of a server that is no page) is printed.
An image that is not there, in a folder that is (or in one that ends in `_files`, as browsers save them), becomes a path
as well, and other images that are neither at an absolute address nor a file stay as they stand, so that a build loses
them with a reason.

A page or record is read at a time. Extractors such as trafilatura and resiliparse know more of what the main text of a
page is; what they return as HTML or Markdown can be given to `--column`.
"""

from __future__ import annotations

import argparse
import codecs
import gzip
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from posixpath import normpath
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pyarrow.parquet as pq

_BLOCKS = (
    "address article blockquote br dd div dl dt figcaption figure h1 h2 h3 h4 h5 h6 header hr li main ol p pre section "
    "table td th tr ul"
)
BLOCKS = frozenset(_BLOCKS.split())
"""Elements that end a paragraph."""

PASSED_OVER = frozenset(
    {"aside", "button", "footer", "nav", "noscript", "script", "select", "style", "svg", "template", "title"}
)
"""Elements whose contents are left out."""

_IMAGE = r"!\[[^\]\n]*\]\(<?([^)\s>]+)>?[^)\n]*\)"
MARKDOWN_IMAGE = re.compile(
    rf"\[{_IMAGE}\]\([^)\n]*\)|{_IMAGE}|<img\b[^>]*?\ssrc\s*=\s*[\"']?([^\"'\s>]+)[^>]*>", re.IGNORECASE
)
"""An image that is a link, an image, an element of HTML; each with its address."""
Part = tuple[str, str]  # "text" or "image", and what it is


MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class PageReader(HTMLParser):
    """The parts of a page of HTML, and the address that it gives itself."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts = list[Part]()
        self.address = self.base = ""
        self._words = list[str]()
        self._passed_over = list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a paragraph, an image, or what is left out."""
        named = {name: value or "" for name, value in attrs}
        if tag == "link" and named.get("rel") == "canonical":
            self.address = named.get("href", "")
        if tag == "base":
            self.base = self.base or named.get("href", "")
        if tag in PASSED_OVER:
            self._passed_over.append(tag)
        elif not self._passed_over and (tag == "img" or tag in BLOCKS):
            self.end_paragraph()
            several = (named.get("srcset") or named.get("data-srcset") or "").split()
            if tag == "img" and (image := named.get("data-src") or named.get("src") or "".join(several[:1])):
                self.parts.append(("image", image.strip().removesuffix(",")))

    def handle_endtag(self, tag: str) -> None:
        """End a paragraph, or what is left out; an end without a beginning is none."""
        if tag in self._passed_over:
            del self._passed_over[self._passed_over.index(tag) :]
        elif tag in BLOCKS and not self._passed_over:
            self.end_paragraph()

    def handle_data(self, data: str) -> None:
        """Add words."""
        if not self._passed_over:
            self._words.append(data)

    def end_paragraph(self) -> None:
        """Add the words so far as a text."""
        if text := " ".join("".join(self._words).split()):
            self.parts.append(("text", text))
        self._words.clear()


def read_html(page: str) -> tuple[list[Part], str, str]:
    """The parts of a page, the address that it gives itself, and the one that its links start from, where it says."""
    reader = PageReader()
    reader.feed(page)
    reader.close()
    reader.end_paragraph()
    return reader.parts, reader.address, reader.base


def read_markdown(page: str) -> list[Part]:
    """The parts of a text in Markdown; its other marks stay."""
    parts, start = list[Part](), 0
    for found in MARKDOWN_IMAGE.finditer(page):
        address = next(group for group in found.groups() if group)
        parts += [("text", page[start : found.start()].strip()), ("image", address)]
        start = found.end()
    return [(kind, piece) for kind, piece in [*parts, ("text", page[start:].strip())] if piece]


def make_row(
    page: str, address: str, *, markdown: bool = False, file: str = "", site: Path = Path(), top: Path = Path()
) -> dict[str, Any]:
    """The row of a page: `url`, and `texts` and `images` of one length, one of both empty in each place.

    Args:
        page: HTML or Markdown.
        address: of the page, where it is known.
        markdown: whether it is that.
        file: the path of the page below `top`, if it is a file.
        site: the folder of the pages, where addresses begin that begin with `/`.
        top: the folder that paths of images start from.
    """
    parts, own, base = (read_markdown(page), "", "") if markdown else read_html(page)
    address = address or own

    def name_image(what: str) -> str:
        if file and ":" not in what:
            named = unquote(urlsplit(what).path)
            path = Path(normpath(top / file / ".." / named if named[:1] != "/" else f"{site}{named}"))
            saved = not base and named[:1] != "/" and (path.parent.is_dir() or path.parent.name.endswith("_files"))
            if path.is_relative_to(top) and path != top and (path.is_file() or (saved and "/" in named)):
                return path.relative_to(top).as_posix()
        return urljoin(urljoin(address, base), what)

    return {
        **({"file": file} if file else {}),
        "url": address,
        "texts": [what if kind == "text" else None for kind, what in parts],
        "images": [name_image(what) if kind == "image" else None for kind, what in parts],
    }


def read_warc(path: Path) -> Iterator[tuple[str, str]]:
    """Address and text of each page of HTML in a WARC file (ISO 28500), compressed or not.

    Other answers than a page are printed and left out: errors and redirects, which show text of their own, and pages
    that are packed as only a browser unpacks them.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while line := file.readline():
            if not line.startswith(b"WARC/"):
                continue
            head = dict[str, str]()
            while (field := file.readline().decode("utf-8", "replace").strip()) and ":" in field:
                name, _, value = field.partition(":")
                head[name.lower()] = value.strip()
            body = file.read(int(head.get("content-length", "0")))
            said, _, page = body.partition(b"\r\n\r\n")
            if head.get("warc-type") != "response" or b"html" not in said.lower():
                continue
            address = head.get("warc-target-uri", "").strip("<>")
            status = re.match(rb"HTTP/\S+ (\d+)", said)
            if status is not None and not 200 <= int(status[1]) < 300:
                print(f"status {int(status[1])}, no page: {address}")
                continue
            if re.search(rb"(?im)^transfer-encoding:\s*chunked", said):
                page = join_chunks(page)
            if page.startswith(b"\x1f\x8b"):  # many crawlers unpack it, whatever the header says
                page = gzip.decompress(page)
            packed = re.search(rb"(?im)^content-encoding:\s*([\w, -]+)", said)
            if packed is not None and not page.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
                print(f"packed as {packed[1].decode().strip()}, not read: {address}")
                continue
            found = re.search(rb"(?i)charset=[\"']?([\w-]+)", said + page[:2048])
            yield address, decode_page(page, found[1].decode() if found else "utf-8")


def join_chunks(body: bytes) -> bytes:
    """A body without the sizes of its chunks (RFC 9112, section 7.1); one without, as most crawlers store it, as is."""
    pieces, rest = list[bytes](), body
    while found := re.match(rb"([0-9a-fA-F]+)[^\r\n]*\r\n", rest):
        size = int(found[1], 16)
        pieces.append(rest[found.end() : found.end() + size])
        rest = rest[found.end() + size + 2 :]
    return b"".join(pieces) if pieces else body


def decode_page(page: bytes, charset: str) -> str:
    """The text of a page; of an unknown character set as UTF-8, and as its byte order mark says, where it has one."""
    charset = next((name for mark, name in MARKS.items() if page.startswith(mark)), charset)
    try:
        return page.decode(charset, "replace")
    except LookupError:
        return page.decode("utf-8", "replace")


def read_column(path: Path, column: str) -> Iterator[dict[str, Any]]:
    """Rows of the texts in a column of JSON Lines or Parquet, whatever of HTML or Markdown they are."""
    if path.suffix == ".parquet":
        rows = (row for batch in pq.ParquetFile(path).iter_batches(1000) for row in batch.to_pylist())
    else:
        rows = map(json.loads, path.open(encoding="utf-8"))
    for row in rows:
        if isinstance(page := row.get(column), str):
            address = row.get("url")
            marked = re.search(r"</\w+>", page) is None
            yield make_row(page, address if isinstance(address, str) else "", markdown=marked)


def list_rows(place: Path, column: str | None, site: Path, top: Path) -> Iterator[dict[str, Any]]:
    """The rows of all files at a place, in the order of their names; paths in them start from `top`."""
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        name = path.name.lower()
        if column and name.endswith((".jsonl", ".parquet")):
            yield from read_column(path, column)
        elif name.endswith((".html", ".htm", ".xhtml", ".md")):
            page = path.read_bytes()
            found = re.search(rb"(?i)charset=[\"']?([\w-]+)", page[:2048])
            text = decode_page(page, found[1].decode() if found else "utf-8")
            text = "" if "\0" in text else text
            file = path.relative_to(top).as_posix()
            yield make_row(text, "", markdown=name.endswith(".md"), file=file, site=site, top=top)
        elif name.endswith((".warc", ".warc.gz")):
            yield from (make_row(page, address) for address, page in read_warc(path))


def write_rows(place: Path, out: Path, column: str | None = None) -> int:
    """Write the rows of a place as JSON Lines; how many there are. Pages without text and image are printed."""
    count, folder = 0, place if place.is_dir() else place.parent
    top = out.parent if folder.resolve().is_relative_to(out.parent.resolve()) else folder
    with out.open("x", encoding="utf-8") as file:
        for row in list_rows(place.resolve(), column, folder.resolve(), top.resolve()):
            if any(row["texts"]) or any(row["images"]):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
            else:
                print(f"no text and no image: {row.get('file') or row['url'] or 'a page'}")
    if top != out.parent:
        print(f"paths of images start from {top}: `images: {top}` beside the kind in the recipe")
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make rows of kind web_documents of HTML, Markdown and WARC.")
    parser.add_argument("place", type=Path, help="a file, or a folder whose files are read")
    parser.add_argument("out", type=Path, help="the JSON Lines to write")
    parser.add_argument("--column", help="of JSON Lines or Parquet: the column that holds HTML or Markdown")
    given = parser.parse_args()
    if not given.place.exists():
        parser.error(f"there is no {given.place}")
    if given.out.exists():
        parser.error(f"{given.out} is there already: delete it, or give another name")
    print(f"{write_rows(given.place, given.out, given.column)} rows are in {given.out}")
