"""Rows by key from Parquet, JSON or JSON Lines: Parquet where a file's name ends so, else JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from vlmill.pipeline.sources.base import SourceRow
from vlmill.pipeline.sources.formats.json_rows import JsonSource
from vlmill.pipeline.sources.formats.parquet import ParquetSource


class RecordSource(ParquetSource, JsonSource, Protocol):
    """A source whose rows have the same keys in both formats: it names them, and says what a row becomes."""

    def ranged(self, name: str) -> bool:
        """Where it is Parquet."""
        return is_parquet(name)

    def survey(self, path: Path) -> list[int]:
        """As the format does. Raises SourceError as the format."""
        return ParquetSource.survey(self, path) if is_parquet(str(path)) else JsonSource.survey(self, path)

    def rows(self, path: Path, numbers: Sequence[int]) -> Iterator[SourceRow]:
        """As the format does. Raises SourceError as the format."""
        found = ParquetSource if is_parquet(str(path)) else JsonSource
        return found.rows(self, path, numbers)


def is_parquet(name: str) -> bool:
    """Whether a file is Parquet by its name."""
    return PurePosixPath(name).suffix.lower() == ".parquet"
