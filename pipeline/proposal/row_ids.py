"""Which column has the id of each row, where it is none of the usual keys, for `vlmill new` (proposal.py).

Samples, losses and exports keep the id, and `trace` and `takedown` find rows by it. A column is taken for it that is
called so (`ticket_no`), and in which each of the rows that were looked at has a value of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vlmill.pipeline.proposal.attempts import Attempt
from vlmill.pipeline.proposal.column_names import split_words
from vlmill.pipeline.sources import SOURCES
from vlmill.pipeline.sources.formats.keyed import has_id_option
from vlmill.pipeline.sources.known_keys import format_id, read_upstream_id
from vlmill.pipeline.sources.nested import find_place

NAMING = (
    frozenset({"id", "uid", "uuid", "guid", "key"}),
    frozenset({"no", "nr", "num", "number", "ref", "reference", "ticket", "case", "code", "sku", "asin"}),
)
"""Last words in the name of a column that may be the id of a row, the surer first."""
OF_OTHERS = frozenset(
    {
        *("image", "img", "picture", "photo", "video", "user", "customer", "client", "author", "agent", "parent"),
        *("category", "class", "label", "type", "group", "model", "page", "turn", "line", "account", "session"),
        *("phone", "zip", "postal", "country", "language", "lang", "status", "error", "product", "store", "shop"),
    }
)
"""Words in the name of a column that names or counts something else, of which several rows may speak."""
LONGEST = 200
"""Characters of an id."""


def add_row_id(best: Attempt, rows: Sequence[Mapping[str, Any]]) -> Attempt:
    """The same attempt, with the option `id` where its kind has one and a column among these rows is their id."""
    if not has_id_option(SOURCES[best.kind]) or "id" in best.options or any(map(read_upstream_id, rows)):
        return best
    column = next(_list_ids(sorted(best.unread), rows), "")
    if not column:
        return best
    pages = (replace(page, unread=tuple(key for key in page.unread if key != column)) for page in best.pages)
    return replace(best, options={**best.options, "id": column}, pages=tuple(pages))


def _list_ids(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Those of the columns that may be the id of rows, the surer first."""
    for words in NAMING:
        for column in columns:
            said = split_words(column.rpartition(".")[2])
            if said and said[-1] in words and not OF_OTHERS.intersection(said) and _is_unique(column, rows):
                yield column


def _is_unique(column: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each of several rows has an id there that no other has."""
    found = [format_id(find_place(row, column)) for row in rows]
    return len(found) > 1 and all(found) and len({*found}) == len(found) and max(map(len, found)) <= LONGEST
