"""What is planted in the quickstart data, and what should become of it.

Rows carry their plants; `generate.py` names them once every row has its place, and writes `manifest.json`. Whatever
the manifest does not name has to come through a build whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["failed", "dropped", "kept"]


@dataclass(frozen=True, slots=True)
class Plant:
    """One thing in a row.

    `node` is the place in a web document's lists, `turn` and `page` count from 0; none means all of it.
    """

    outcome: Outcome
    reason: str  # a code of pipeline/core/reasons.py; empty where it is kept
    why: str
    node: int | None = None
    turn: int | None = None
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """One of several rows, or places in rows, that say or show the same."""

    row: str
    node: int | None = None
    turn: int | None = None
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Twins:
    """Duplicates: the member with the lowest source priority, then the smallest id, is kept, others are dropped."""

    reason: str
    why: str
    members: tuple[Member, ...]


@dataclass(slots=True)
class Row:
    """One row of an input file before it has a place: content in the source's own form, and what was planted in it."""

    name: str
    content: Any
    plants: list[Plant] = field(default_factory=list)
