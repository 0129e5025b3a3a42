"""The beginning of whatever a row holds, for people: bounded, in one line, the same everywhere, and safe to print."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date, time, timedelta
from numbers import Number
from typing import Any
from uuid import UUID

LONGEST = 240
"""Characters of an excerpt or a message, the dots at its end not counted."""

DEPTH = 8
"""How far an excerpt goes into lists and mappings."""

HIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\ud800-\uf8ff\ufeff\ufff0-\uffff\U000e0000-\U0010ffff]"
)
"""What a terminal obeys or does not show: controls, marks of direction, half surrogate pairs, private use. A list of
our own: what Python calls printable differs between its versions."""

PLAIN = (Number, date, time, timedelta, UUID)
"""Types whose text is the same in every process."""

CUT_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*:(?:\\?/){1,2}[^\s\"'<>]*\Z")
"""An address that the end of an excerpt cuts. It goes, so that every address in an excerpt is whole, and a takedown
finds its host."""

ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://[^\s\"'<>\\]+")


def escape_text(text: str) -> str:
    r"""A text in one line, cut to LONGEST characters; what is not to be seen stands as its escape, such as `\x1b`."""
    line = HIDDEN.sub(_escape_match, text[: LONGEST + 1])
    return line if len(line) <= LONGEST else CUT_ADDRESS.sub("", line[:LONGEST]) + "..."


def make_excerpt(raw: Any) -> str:
    """How a row begins, whatever its input file made of it: bytes of a line, values by name, a list.

    Work and memory are bounded.

    Bytes within a row are shown where they are text, else by their number. What is null is left out of mappings, since
    readers of tables give columns that a file does not have as null.
    """
    if isinstance(raw, bytes):
        return escape_text(raw[: 4 * LONGEST].decode("utf-8", "backslashreplace"))
    if isinstance(raw, str):
        return escape_text(raw)
    text = ""
    for piece in _write_value(raw, DEPTH):
        text += piece
        if len(text) > LONGEST:
            break
    return escape_text(text)


def find_addresses(text: str) -> list[str]:
    """The addresses in an excerpt or a message."""
    found = ADDRESS.findall(text.replace("\\/", "/"))
    return [*found, *(address.rstrip(".,;:!?)]}") for address in found)]


def _escape_match(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _write_value(value: Any, depth: int) -> Iterator[str]:
    """A value much as JSON has it, piece by piece."""
    if isinstance(value, Mapping):
        told = ((name, item) for name, item in value.items() if item is not None)
        yield "{"
        for place, (name, item) in enumerate(told if depth else ()):
            yield f"{', ' if place else ''}{_quote_text(str(name))}: "
            yield from _write_value(item, depth - 1)
        yield "}" if depth or not value else "...}"
    elif isinstance(value, list | tuple):
        yield "["
        for place, item in enumerate(value if depth else ()):
            yield ", " if place else ""
            yield from _write_value(item, depth - 1)
        yield "]" if depth or not value else "...]"
    elif isinstance(value, bytes):
        text = _decode_text(value[: 4 * LONGEST])
        yield f"({len(value):,} bytes)" if text is None else _quote_text(text)
    elif isinstance(value, str):
        yield _quote_text(value)
    elif value is None or isinstance(value, bool):
        yield json.dumps(value)
    else:  # what an object of other code says may be its place in memory, or a path of this machine
        yield str(value) if isinstance(value, PLAIN) else f"({type(value).__name__})"


def _quote_text(text: str) -> str:
    return json.dumps(text[: LONGEST + 1], ensure_ascii=False)


def _decode_text(data: bytes) -> str | None:
    """The text that bytes are, whose last character may be cut off; None where they are none."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if error.start < max(len(data) - 3, 1):
            return None
        text = data[: error.start].decode()
    return None if "\0" in text else text
