"""IDL: tars of scanned documents with the lines that Textract read (pixparse/idl-wds).

Per key `.json` (`{"pages": [{"text": [line, ...], ...}]}`), `.tif`, mostly `.pdf`, and `.ocr`, which is not read.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.sources.formats.documents import DocumentSource


@dataclass(frozen=True, config=STRICT)
class Idl(DocumentSource):
    """Scans; a document without a TIFF is rendered from its PDF."""

    kind: ClassVar[str] = "idl"
    suffixes: ClassVar[tuple[str, ...]] = ("tif", "tiff", "pdf")
