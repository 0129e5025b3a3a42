"""What an OCR program wrote of a page as hOCR (version 1.2), for `vlmill new` of files beside pictures."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

LINES = frozenset({"ocr_line", "ocrx_line", "ocr_header", "ocr_caption", "ocr_textfloat"})
"""Classes of what is one line, as Tesseract has them."""
EMPTY = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"})
"""Elements without an end."""


class LineReader(HTMLParser):
    """Collects the lines of all pages."""

    def __init__(self) -> None:
        """Begin before the first page."""
        super().__init__()
        self.pages, self.lines = 0, list[str]()
        self._depth, self._ends = 0, 0  # how deep we are, and how deep the line is that is open; 0: none

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a page or a line."""
        if tag in EMPTY:
            return
        self._depth += 1
        classes = {*(dict(attrs).get("class") or "").split()}
        self.pages += "ocr_page" in classes
        if classes & LINES and not self._ends:
            self._ends = self._depth
            self.lines.append("")

    def handle_endtag(self, tag: str) -> None:
        """End the line that began at this depth."""
        if tag in EMPTY:
            return
        if self._depth == self._ends:
            self._ends = 0
        self._depth -= 1

    def handle_data(self, data: str) -> None:
        """A word, or what stands between two."""
        if self._ends:
            self.lines[-1] += data


def read_hocr(said: str) -> dict[str, Any]:
    """The lines of a page, as JSON of OCR has them; nothing of a file of several pages, of which a picture is one."""
    reader = LineReader()
    reader.feed(said)
    reader.close()
    lines = [{"text": text} for line in reader.lines if (text := " ".join(line.split()))]
    return {"lines": lines} if lines and reader.pages <= 1 else {}
