"""What sources say of the rows that they refuse, with alike messages as one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vlmill.pipeline.core.shown import describe_more

CAUSES = 20
"""Causes that a list names."""
SAID = 3
"""Causes that a line names."""

GROUPS = 1000
"""Causes that are told apart: messages beyond them are told by what stands before their first colon."""

VALUE = re.compile(r"""(?<!\w)'(?:[^'\\]|\\.)*'(?!\w)|"(?:[^"\\]|\\.)*"|\S*[/\\]\S+|\d+""")
"""What of a message is of its row alone: quoted values, paths and addresses, numbers."""


@dataclass(slots=True)
class Cause:
    """Messages that differ in values alone."""

    first: str  # what the first of them is about
    message: str  # of that
    number: int = 0


def group_causes(messages: Iterable[tuple[str, str]]) -> list[Cause]:
    """Messages, each with what it is about, alike ones as one; the most frequent first, of equal ones the earliest."""
    found = dict[str, Cause]()
    for about, message in messages:
        key = VALUE.sub("0", message)
        if len(found) >= GROUPS and key not in found:
            key = VALUE.sub("0", message.partition(": ")[0])
        found.setdefault(key, Cause(about, message)).number += 1
    return sorted(found.values(), key=lambda cause: -cause.number)


def describe_causes(messages: Sequence[tuple[str, str]]) -> str:
    """`row 0: no turns, and 4 more rows; row 7: ...`: the first message of SAID causes. Each is about a row."""
    causes = group_causes(messages)
    more = [describe_more(cause.number - 1, "row") for cause in causes[:SAID]]
    said = [f"{one.first}: {one.message}{',' if rest else ''}{rest}" for one, rest in zip(causes, more, strict=False)]
    return "; ".join([*said, *(["..."] if len(causes) > SAID else [])])
