"""Rows that are interleaved documents, in columns of any names: one list of parts, or two lists of one length.

For `vlmill new` (proposal.py). A page of a crawl has an address and a title beside its parts, which look like an image
and a caption; so documents are looked for wherever nothing but captions was found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.proposal.attempts import Attempt
from vlmill.pipeline.proposal.cell_kinds import IN_ROW, LINKED, hold_mostly
from vlmill.pipeline.proposal.columns import Cells
from vlmill.pipeline.proposal.nested_columns import measure_texts, read_list, recognise_parts, stand_together
from vlmill.pipeline.sources.base import Page
from vlmill.pipeline.sources.known_keys import has_value
from vlmill.pipeline.sources.nested import find_place

NAMEABLE = ("images", "texts", "url", "id")
"""Options of kind `web_documents` that name columns, or what lies within objects."""

KINDS = (("web_documents", LINKED), ("file_documents", IN_ROW))
"""Kinds of documents, and what their images are."""

MARKED = re.compile(r"!\[[^\]\n]*\]\([^)\s]+|<img\s", re.IGNORECASE)
"""How an image stands in a text of Markdown or HTML."""

MIXED = " holds texts and images of documents under one key"
"""What a message about such a key begins with, behind its name."""
IMAGE, WORDS = re.compile(r"(https?://|data:image/)\S+|\S+\.(jpe?g|png|webp|gif)", re.IGNORECASE), 3
"""A value that is an image's, and how many words make a text."""

PAGES = "docs/web-documents.md, Pages of a crawl, has how they become rows"
OWN = "what is in another form is read by a file of yours: docs/adding.md, A custom source"
SCANS = "docs/documents.md, Scans, has how programs and servers write the texts of scanned pages"


def recognise_documents(cells: Cells) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kinds and options that rows could be read with as documents, the likeliest first."""
    for kind, shown in KINDS:
        shows = partial(hold_mostly, kinds=shown)
        if found := recognise_parts(cells.rows, shows, _hold_images) or _find_lists(cells, shows):
            yield kind, {**found, **_find_address(cells, found)}


def recognise_with_id(cells: Cells, column: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same, of rows of which somebody names nothing but the column of their id."""
    for kind, options in recognise_documents(cells):
        yield kind, {**options, "id": column}


def describe_mixed_parts(best: Attempt | None, cells: Cells) -> str:
    """Why rows are not to be read as `best` reads them: parts of a document beside it, of which one key holds both.

    Empty where a kind reads documents or a conversation of them, or there are no such parts.
    """
    if best and (
        best.kind.endswith("documents") or any(node.role == "user" for page in best.pages for node in page.nodes)
    ):
        return ""
    for name in cells.columns:
        parts = [part for value in cells.list_values(name) for part in read_list(value) if isinstance(part, Mapping)]
        for key in dict.fromkeys(key for part in parts for key in part):
            said = [value for part in parts if isinstance(value := part.get(key), str)]
            shown = [value for value in said if IMAGE.fullmatch(value)]
            if shown and any(len(value.split()) >= WORDS for value in said):
                return (
                    f"{name}.{key}{MIXED}, such as {shown[0]}: no kind reads that; make two lists of it, one of texts "
                    "and one of images (docs/web-documents.md, Parts of other forms)"
                )
    return ""


def name_lists(cells: Cells, named: Mapping[str, Sequence[str]]) -> tuple[str, dict[str, Any]]:
    """The kind and the options of documents whose lists somebody names.

    Args:
        cells: the first rows.
        named: options of kind `web_documents` -> columns; `texts` or `url` is among them.

    Raises:
        SourceError: an option is none of documents, is named twice, or names what is in no row; or no texts are found.
    """
    for option, columns in named.items():
        if option not in NAMEABLE or (option in {"url", "id"} and len(columns) > 1):
            raise SourceError(
                f"--column {option}={columns[-1]}: beside texts, which are a list of a document, stand images, url and "
                "id, the last two of them once"
            )
        for column in columns:
            cells.check_column(option, column)
    given: dict[str, Any] = {name: found[0] if len(found) == 1 else list(found) for name, found in named.items()}
    found = next(iter(recognise_documents(cells)), ("", {}))[1]
    if "texts" not in given:
        if not found:
            raise SourceError(
                f"--column url={given['url']}: it is of documents, and no list of texts was found beside it; name the "
                "lists: --column texts=COLUMN --column images=COLUMN"
            )
        given["texts"] = found["texts"]
    if "images" not in given:
        given |= {"images": found["images"]} if found.get("texts") == given["texts"] else {}
    images = _list_named({"images": given.get("images", "images")})
    shown = [find_place(row, image) for row in cells.rows for image in images]
    kind = "web_documents" if hold_mostly(shown, LINKED) else "file_documents"
    return kind, {**_find_address(cells, given), **given}


def hold_marked_images(pages: Sequence[Page]) -> bool:
    """Whether texts hold images as Markdown or HTML writes them."""
    return any(MARKED.search(node.text or "") for page in pages for node in page.nodes)


def _find_lists(cells: Cells, shows: Any) -> dict[str, str]:
    """Two lists of one length in each row, of images and texts in different places; the longest texts count."""
    held = {name: [read_list(value) for value in cells.list_values(name)] for name in (*cells.columns, *cells.dotted)}
    held = {name: lists for name, lists in held.items() if any(map(has_value, lists))}
    for images, shown in held.items():
        if not shows(shown):
            continue
        beside = [
            name
            for name, said in held.items()
            if name != images
            and not _hold_images(said)
            and all(len(one) == len(other) for one, other in zip(shown, said, strict=True))
            and not stand_together(shown, said)
        ]
        texts = max(beside, key=lambda name: measure_texts(held[name]), default="")
        if texts and measure_texts(held[texts]):
            return {"images": images, "texts": texts}
    return {}


def _list_named(options: Mapping[str, str | list[str]]) -> list[str]:
    """The columns that options of documents name."""
    return [name for value in options.values() for name in ([value] if isinstance(value, str) else value)]


def _hold_images(values: Sequence[Any]) -> bool:
    """Whether most of what stands in cells is images of any form."""
    return any(map(has_value, values)) and hold_mostly(values, (*IN_ROW, *LINKED))


def _find_address(cells: Cells, found: Mapping[str, Any]) -> dict[str, str]:
    """Where the address of a document is, if not at `url`: in a column of its own, else within an object."""
    places = (*cells.columns, *cells.dotted)
    names = [name for name in places if cells.hold(name, "address") and name not in _list_named(found)]
    return {} if not names or "url" in names else {"url": names[0]}
