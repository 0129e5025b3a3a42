"""IDL: tars of scanned documents with the lines that Textract read (pixparse/idl-wds).

Per key `.json` (`{"pages": [{"text": [line, ...], ...}]}`), `.tif`, mostly `.pdf`, and `.ocr`, which is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import ClassVar

from pydantic.dataclasses import dataclass

from pipeline.settings import STRICT
from pipeline.sources import documents
from pipeline.sources.source import Row
from pipeline.step import RUNTIME


@dataclass(frozen=True, config=STRICT)
class Idl:
    """Scans; a document without a TIFF is rendered from its PDF."""

    kind: ClassVar[str] = "idl"
    fetches: ClassVar[bool] = False
    isolated: ClassVar[bool] = True
    ranged: ClassVar[bool] = False

    long_side: int = 1280  # pixels of a rendered page: 116 dpi on A4, where 8 point print can be read
    max_pages: int = 256  # the pages of one document are held in memory together, 0.1 to 2 MB each
    max_bytes: int = 1 << 28  # of a document's members
    seconds: float = field(default=30.0, metadata=RUNTIME)  # for one page; 0.05 are usual

    def survey(self, path: Path) -> list[int]:
        """Bytes of each document. Raises SourceError."""
        return documents.survey(path)

    def rows(self, path: Path, start: int, stop: int) -> Iterator[Row]:
        """One sample per page: the image, then its text."""
        return documents.rows(path, start, stop, suffixes=("tif", "tiff", "pdf"), options=self)
