"""By what the row of a sample is known when it stands at another place of its file, or in another file of its source.

A takedown names a sample by file and row. Where rows are inserted or removed before it, another row stands there. So
the list keeps a mark beside each id:

    id:SHA256     of the id that the row has in its input file, where no other row of the source has it
    text:SHA256   of its texts and images, or of the excerpt of a refused row, where it has no such id

A row with an id of its own is matched by `id:` alone, wherever it stands, however its texts change. Any other is
matched by its place, as well as by `text:` wherever it stands: rather one too many than one that comes back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlmill.pipeline.core.sample import SampleId

MARK = re.compile(r"(?:id|text):[0-9a-f]{64}")


def parse_marked(text: str) -> tuple[SampleId, str]:
    """The id and the mark that an entry of the list holds. Raises ValueError for any other text."""
    name, _, mark = text.rpartition(" ")
    if not MARK.fullmatch(mark):
        raise ValueError(f"{text!r}: expected the id of a sample, a space, and id:SHA256 or text:SHA256")
    return SampleId.parse(name), mark


def list_placed(ids: Sequence[str], rows: Sequence[str]) -> list[str]:
    """Those of the ids on a list that are not known by an id in the input file: what stands in their place later goes.

    Args:
        ids: Of samples.
        rows: The entries of the list that say by what rows are known.
    """
    known = {str(name) for name, mark in map(parse_marked, rows) if mark.startswith("id:")}
    return [name for name in ids if name not in known]


def mark_id(upstream_id: str, page: int) -> str:
    """The mark of a row, or of one of its pages, by the id that it has in its input file."""
    return f"id:{_hash_parts([upstream_id, str(page)])}"


def mark_content(nodes: Sequence[Mapping[str, Any]], digests: Mapping[int, str]) -> str:
    """The mark of a sample by what it shows; empty where it holds no text.

    Args:
        nodes: its nodes, with kind, role, text and image.
        digests: number of an image -> the sha256 of its bytes, of those that there are.
    """
    if not any((node["text"] or "").strip() for node in nodes):
        return ""
    parts = [
        part for node in nodes for part in (node["kind"], node["role"], node["text"] or digests.get(node["image"], ""))
    ]
    return f"text:{_hash_parts(parts)}"


def mark_excerpt(excerpt: str) -> str:
    """The mark of a row of which no sample was made, by its beginning; empty where nothing was kept of it."""
    return f"text:{_hash_parts(['refused', excerpt])}" if excerpt else ""


def match_marks(ids: Sequence[str], rows: Sequence[str]) -> Callable[[SampleId, str, Callable[[], str]], str]:
    """A function that says which id of a list a row falls under, or nothing.

    It takes what the row is called here, the id that it has in its input file, and what gives its mark by content.
    """
    marked = list(map(parse_marked, rows))  # one after the other may have stood in a place
    by_mark = {(name.source, mark): str(name) for name, mark in marked}
    known = {str(name) for name, mark in marked if mark.startswith("id:")}
    places, by_content = {*ids}, any(mark.startswith("text:") for _, mark in marked)

    def match_row(name: SampleId, upstream_id: str, mark: Callable[[], str]) -> str:
        found = by_mark.get((name.source, mark_id(upstream_id, name.page)), "") if upstream_id and known else ""
        found = found or (by_mark.get((name.source, mark()), "") if by_content else "")
        here = str(name) in places and not (upstream_id and str(name) in known)  # else another row stands there now
        return found or (str(name) if here else "")

    return match_row


def find_marked(rows: Sequence[str], upstream_id: str) -> SampleId | None:
    """The sample on a list whose row had this id in its input file; None where it has none."""
    marked = map(parse_marked, rows)
    return next((name for name, mark in marked if mark == mark_id(upstream_id, name.page)), None)


def _hash_parts(parts: Sequence[str]) -> str:
    """The sha256 of texts, each behind its length."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()
