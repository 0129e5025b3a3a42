"""PDFA: tars of PDFs from the web with the words and lines of their text layer (pixparse/pdfa-eng-wds).

Per key `.pdf` and `.json` (`{"pages": [{"lines": {"text": [line, ...], ...}, ...}]}`).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.sources.formats.documents import DocumentSource


@dataclass(frozen=True, config=STRICT)
class Pdfa(DocumentSource):
    """PDFs, rendered page by page."""

    kind: ClassVar[str] = "pdfa"
    suffixes: ClassVar[tuple[str, ...]] = ("pdf",)
