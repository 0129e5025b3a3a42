"""Sources whose rows have keys: each row is searched for keys that would be left unread before it is used."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Protocol

from vlmill.pipeline.sources.base import Page, Source, SourceRow, UnreadableRow, read_pages
from vlmill.pipeline.sources.known_keys import classify_key, format_id, has_value, list_unread, read_upstream_id
from vlmill.pipeline.sources.nested import find_place, list_beside, list_heads
from vlmill.pipeline.sources.page_faults import find_page_fault


def has_id_option(source: type[Source]) -> bool:
    """Whether a kind of source has the option `id`, the column with the id of each row."""
    return any(field.name == "id" for field in fields(source))  # type: ignore[arg-type]


class KeyedSource(Source, Protocol):
    """A source of rows by key, or by column: it says which it reads, and what a row becomes."""

    id: str = ""
    """The column with the id of each row, or where it is in dotted keys; without one a usual key has it. A dataclass
    that has this field has the option."""

    def id_columns(self) -> tuple[str, ...]:
        """The column of the id, which a table has to have; none of dotted keys."""
        return (self.id,) if self.id and "." not in self.id else ()

    def id_heads(self) -> tuple[str, ...]:
        """What dotted keys of the id may mean in a table."""
        return list_heads((self.id,))

    def reads(self) -> Collection[str]:
        """The keys that `page` looks at. Of the others, those that carry meaning fail the row (`known_keys.py`)."""
        ...

    def shows(self) -> Collection[str]:
        """Those of them that hold pictures."""
        return [name for name in self.reads() if classify_key(name) in {"image", "address"}]

    def page(self, row: Mapping[str, Any]) -> Page:
        """The sample, or the losses, of a row. Raises UnreadableRow."""
        ...

    def name_row(self, row: Mapping[str, Any]) -> str:
        """The id that a row has in the input file; empty where it has none."""
        return format_id(find_place(row, self.id)) if self.id else read_upstream_id(row)

    def explain_absence(self, row: Mapping[str, Any]) -> str:
        """What to add to the reason why there is no sample, where a row may lack a key that is needed; or nothing."""
        del row
        return ""

    def unread(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The keys that say something and are not read.

        Raises UnreadableRow for one that the row would be another without.
        """
        pictured, kept = any(has_value(row.get(name)) for name in self.shows()), self.name_row(row)
        reads = (*self.reads(), *self.id_columns(), *self.id_heads())
        left = list_unread(row, reads, pictured=pictured, kept=kept)
        unfit = (self.id,) if self.id and not kept and has_value(find_place(row, self.id)) else ()
        return (*left, *unfit, *list_beside(row, (self.id,), pictured=True))

    def made(
        self, rows: Iterable[tuple[int, Mapping[str, Any] | UnreadableRow]], also: Iterable[str] = ()
    ) -> Iterator[SourceRow]:
        """A page for each of the rows, or why there is none; `also` are columns that were not even looked at."""

        def page(row: Mapping[str, Any]) -> Page:
            left = self.unread(row)
            try:
                made = self.page(row)
            except UnreadableRow as unfit:
                if more := self.explain_absence(row):
                    raise UnreadableRow(f"{unfit}{more}", unfit.reason, unfit.raw) from unfit
                raise
            if not isinstance(made, Page):
                raise UnreadableRow(find_page_fault(made) or "")
            return replace(made, unread=tuple(sorted({*made.unread, *left, *also})))

        return read_pages(rows, page, self.name_row)
