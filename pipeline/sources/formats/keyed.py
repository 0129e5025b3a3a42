"""Sources whose rows have keys: each row is searched for keys that would be left unread before it is used."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

from vlmill.pipeline.sources.base import Page, Source, SourceRow, UnreadableRow, read_pages
from vlmill.pipeline.sources.known_keys import classify_key, has_value, list_unread, read_upstream_id
from vlmill.pipeline.sources.page_faults import find_page_fault


class KeyedSource(Source, Protocol):
    """A source of rows by key, or by column: it says which it reads, and what a row becomes."""

    def reads(self) -> Collection[str]:
        """The keys that `page` looks at. Of the others, those that carry meaning fail the row (`known_keys.py`)."""
        ...

    def shows(self) -> Collection[str]:
        """Those of them that hold pictures."""
        return [name for name in self.reads() if classify_key(name) in {"image", "address"}]

    def page(self, row: Mapping[str, Any]) -> Page:
        """The sample, or the losses, of a row. Raises UnreadableRow."""
        ...

    def unread(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The keys that say something and are not read.

        Raises UnreadableRow for one that the row would be another without.
        """
        return list_unread(row, self.reads(), pictured=any(has_value(row.get(name)) for name in self.shows()))

    def made(
        self, rows: Iterable[tuple[int, Mapping[str, Any] | UnreadableRow]], also: Iterable[str] = ()
    ) -> Iterator[SourceRow]:
        """A page for each of the rows, or why there is none; `also` are columns that were not even looked at."""

        def page(row: Mapping[str, Any]) -> Page:
            left = self.unread(row)
            made = self.page(row)
            if not isinstance(made, Page):
                raise UnreadableRow(find_page_fault(made) or "")
            return replace(made, unread=tuple(sorted({*made.unread, *left, *also})))

        return read_pages(rows, page, read_upstream_id)
