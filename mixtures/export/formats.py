"""The formats of exports by name."""

from __future__ import annotations

from vlmill.mixtures.export.base import ExportFormat
from vlmill.mixtures.export.json_files import LlavaExport, MessagesExport
from vlmill.mixtures.export.parquet import ParquetExport
from vlmill.mixtures.export.tars import TarExport

FORMATS: dict[str, ExportFormat] = {
    made.name: made for made in (ParquetExport(), LlavaExport(), MessagesExport(), TarExport())
}
