"""What a page has to be. Code of a user, or of a new source, that makes another one loses the row and not the build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Real
from types import NoneType
from typing import Any, get_args

from vlmill.pipeline.core.excerpt import make_excerpt
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import NO_PAGE, Kind, Node, Role
from vlmill.pipeline.sources.base import Page, Picture, SourceRow

Types = tuple[type[Any], ...]

FIELDS: Mapping[type[Any], Mapping[str, tuple[Types, str]]] = {
    Page: {
        "nodes": ((tuple, list), "a tuple"),
        "pictures": ((tuple, list), "a tuple"),
        "page": ((int,), "a number"),
        "group": ((str,), "a text"),
        "url": ((str,), "a text"),
        "licence": ((str,), "a text"),
        "signals": ((Mapping,), "numbers by name"),
        "unread": ((tuple, list), "a tuple"),
    },
    Node: {
        "text": ((str, NoneType), "a text or None"),
        "image": ((int, NoneType), "a number or None"),
        "url": ((str, NoneType), "a text or None"),
    },
    Picture: {
        "url": ((str, NoneType), "a text or None"),
        "data": ((bytes, NoneType), "bytes or None"),
        "path": ((str, NoneType), "a text or None"),
        "reason": ((Reason, NoneType), "a Reason or None"),
    },
}
"""The types of fields, and how they are called."""


def lose_faulty_pages(row: SourceRow) -> SourceRow:
    """The row without the pages that no sample can be made of, each of them lost with what is wrong."""
    sound, failed = list[Page](), list[str]()
    for page in row.pages:
        fault = find_page_fault(page)
        if fault is None and any(page.page == other.page for other in sound):
            fault = f"two of its pages have the number {page.page}, expected each its own, from 0"
        if fault is None:
            sound.append(page)
        else:
            failed.append(fault)
    if not failed:
        return row
    return replace(
        row,
        pages=tuple(sound),
        failed=(*row.failed, *((Reason.BAD_ROW, fault) for fault in failed)),
        failed_pages=(*(row.failed_pages or [NO_PAGE] * len(row.failed)), *[NO_PAGE] * len(failed)),
        excerpt=row.excerpt or make_excerpt([_list_texts(page) for page in row.pages]),
    )


def find_page_fault(page: Any) -> str | None:
    """Why no sample can be made of what a source gives as a page; None where it can."""
    return next(_list_faults(page), None)


def describe_value(value: object) -> str:
    """What a value is, in a message: None or a number as it stands, else its type."""
    return repr(value) if value is None or isinstance(value, int | float) else type(value).__name__


def _list_texts(page: object) -> list[Any]:
    """The texts of what may be no page."""
    nodes = getattr(page, "nodes", None)
    return [getattr(node, "text", None) for node in nodes] if isinstance(nodes, tuple | list) else []


def _list_faults(page: Any) -> Iterator[str]:
    """Only the first is ever asked for, so what follows one may rest on its not being there."""
    yield from _list_wrong_types("the page", page, Page)
    for place, node in enumerate(page.nodes):
        yield from _list_node_faults(f"nodes[{place}]", node, len(page.pictures))
    for place, picture in enumerate(page.pictures):
        yield from _list_picture_faults(f"pictures[{place}]", picture)
    for signal, number in page.signals.items():
        if not isinstance(signal, str) or not isinstance(number, (Real, NoneType)):
            yield f"signals[{signal!r}] is {describe_value(number)}, expected a number by its name"


def _list_wrong_types(place: str, value: object, kind: type[Any]) -> Iterator[str]:
    if not isinstance(value, kind):
        yield f"{place} is {describe_value(value)}, expected a {kind.__name__}"
    for name, (types, called) in FIELDS[kind].items():
        if not isinstance(said := getattr(value, name), types):
            yield f"{place}.{name} is {describe_value(said)}, expected {called}"


def _list_node_faults(place: str, node: Any, pictures: int) -> Iterator[str]:
    yield from _list_wrong_types(place, node, Node)
    for name, said, allowed in (("kind", node.kind, get_args(Kind)), ("role", node.role, get_args(Role))):
        if said not in allowed:
            yield f"{place}.{name} is {said!r}; allowed: {', '.join(allowed)}"
    if node.kind == "text" and node.text is None:
        yield f"{place}.text is None, expected a text"
    if node.text is not None and node.image is not None:
        yield f"{place} has a text and an image; give each a node of its own"
    if node.kind == "image" and not 0 <= (-1 if node.image is None else node.image) < pictures:
        yield f"{place}.image is {node.image!r}, expected the place of one of {pictures} pictures, counted from 0"


def _list_picture_faults(place: str, picture: Any) -> Iterator[str]:
    yield from _list_wrong_types(place, picture, Picture)
    said = [name for name in ("data", "path", "reason") if getattr(picture, name) is not None]
    if len(said) > 1:
        yield f"{place} has {' and '.join(said)}; give it one of them"
    if not said and picture.url is None:
        yield f"{place} has no url, data, path or reason; where there is none: Picture(reason=Reason.MISSING_FILE)"
