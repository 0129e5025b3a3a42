"""The contract of a source: rows of pages with nodes and pictures, read from an origin file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from pipeline.reasons import Reason
from pipeline.sample import NO_PAGE, Node


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that a row names or carries: an address to fetch, bytes, or the reason why there are none."""

    url: str | None = None
    data: bytes | None = None
    media_type: str | None = None
    reason: Reason | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """What becomes one sample. `Node.image` of its nodes indexes `pictures` here."""

    nodes: tuple[Node, ...]
    pictures: tuple[Picture, ...] = ()
    page: int = NO_PAGE
    group: str = ""  # else, of pages, what the document's id says
    url: str = ""
    licence: str = ""  # of this sample alone; else the source's
    signals: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the origin: the pages made of it, and what could not be made, by reason with a detail."""

    row: int
    pages: tuple[Page, ...] = ()
    failed: tuple[tuple[Reason, str], ...] = ()  # one entry per lost page, or one for a whole row


class Source(Protocol):
    """A frozen dataclass with the options of a row shape."""

    kind: ClassVar[str]
    fetches: ClassVar[bool]  # whether its pictures are addresses
    isolated: ClassVar[bool]  # whether rows are read in a child process under a time limit (so the step is impure)
    ranged: ClassVar[bool]  # whether `path` is only ever opened, and read in parts: one on the Hub is then not copied

    def survey(self, path: Path) -> list[int]:
        """Bytes of each row of an origin file, in order, without decoding it. Raises SourceError on a wrong form."""
        ...

    def rows(self, path: Path, start: int, stop: int) -> Iterator[Row]:
        """Rows [start, stop) in order, each exactly once. Bad rows are yielded with `failed`, never raised."""
        ...
