"""What a page has to be. Code of a user, or of a new source, that makes another one loses the row and not the build."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Real
from types import NoneType
from typing import Any, get_args

from vlmill.pipeline.core.excerpt import make_excerpt
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import NO_PAGE, Kind, Node, Role
from vlmill.pipeline.sources.base import Page, Picture, SourceRow

ROLES = frozenset(get_args(Role))

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


def lose_faulty_pages(row: SourceRow, *, empty: bool = False) -> SourceRow:
    """The row without the pages that no sample can be made of, each of them lost with what is wrong.

    With `empty`, which our own sources see to themselves, also without those that have nothing in them to learn.
    """
    if type(row.upstream_id) is not str:
        said = f"its upstream_id is {describe_value(row.upstream_id)}, expected a text"
        excerpt = row.excerpt or make_excerpt([_list_texts(page) for page in row.pages])
        return SourceRow(row.row, failed=((Reason.BAD_ROW, said),), excerpt=excerpt)
    sound, failed = list[Page](), list[tuple[Reason, str]]()
    for page in row.pages:
        fault = find_page_fault(page)
        if fault is None and any(page.page == other.page for other in sound):
            fault = f"two of its pages have the number {page.page}, expected each its own, from 0"
        if fault is not None:
            failed.append((Reason.BAD_ROW, fault))
        elif lack := find_lack(page) if empty else None:
            failed.append((Reason.EMPTY_ROW, lack))
        else:
            sound.append(page)
    if not failed:
        return row
    return replace(
        row,
        pages=tuple(sound),
        failed=(*row.failed, *failed),
        failed_pages=(*(row.failed_pages or [NO_PAGE] * len(row.failed)), *[NO_PAGE] * len(failed)),
        excerpt=row.excerpt or make_excerpt([_list_texts(page) for page in row.pages]),
    )


def find_page_fault(page: Any) -> str | None:
    """Why no sample can be made of what a source gives as a page; None where it can."""
    return None if _is_plainly_sound(page) else next(_list_faults(page), None)


def find_lack(page: Page) -> str | None:
    """Why there is nothing to learn in a page; None where there is. A model may yet write about an image."""
    told = [node.text.strip() for node in page.nodes if node.text is not None]
    answers = [(node.text or "").strip() for node in page.nodes if node.role == "assistant" and node.kind == "text"]
    if not any(told) and not page.pictures:
        return "neither a text that is not blank nor an image"
    return "its answers are blank" if answers and not any(answers) else None


def describe_value(value: object) -> str:
    """What a value is, in a message: None or a number as it stands, else its type."""
    return repr(value) if value is None or isinstance(value, int | float) else type(value).__name__


def _list_texts(page: object) -> list[Any]:
    """The texts of what may be no page."""
    nodes = getattr(page, "nodes", None)
    return [getattr(node, "text", None) for node in nodes] if isinstance(nodes, tuple | list) else []


def _is_plainly_sound(page: Any) -> bool:
    """Whether a page is what nearly all are; of others, `_list_faults` tells. It takes a twentieth of the time."""
    if type(page) is not Page or type(page.nodes) is not tuple or type(page.pictures) is not tuple or page.signals:
        return False
    said = (page.group, page.url, page.licence)
    if not all(type(text) is str for text in said) or type(page.page) is not int or type(page.unread) is not tuple:
        return False
    return all(_is_plain_node(node, len(page.pictures)) for node in page.nodes) and all(
        map(_is_plain_picture, page.pictures)
    )


def _is_plain_node(node: Any, pictures: int) -> bool:
    if type(node) is not Node or node.role not in ROLES or not (node.url is None or type(node.url) is str):
        return False
    if node.kind == "text":
        return type(node.text) is str and node.image is None
    return node.kind == "image" and node.text is None and type(node.image) is int and 0 <= node.image < pictures


def _is_plain_picture(picture: Any) -> bool:
    if type(picture) is not Picture or not (picture.url is None or type(picture.url) is str):
        return False
    held = (type(picture.data) is bytes) + (type(picture.path) is str)
    held += type(picture.reason) is Reason and picture.reason.failed
    lacking = (picture.data is None) + (picture.path is None) + (picture.reason is None)
    return held + lacking == 3 and (held == 1 or (held == 0 and picture.url is not None))


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
        elif isinstance(number, int) and abs(number) > sys.float_info.max:
            yield f"signals[{signal!r}] is a whole number that is too large, expected {sys.float_info.max:.2g} at most"


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
    if picture.reason is not None and not picture.reason.failed:
        yield f"{place}.reason is {str(picture.reason)!r}, which another step decides; say missing_file"
    if not said and picture.url is None:
        yield f"{place} has no url, data, path or reason; where there is none: Picture(reason=Reason.MISSING_FILE)"
