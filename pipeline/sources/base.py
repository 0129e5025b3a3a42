"""The contract of a source: rows of pages with nodes and pictures, read from an input file.

A row shape implements it through the file format that it comes in: `parquet.ParquetSource`, `json_rows.JsonSource`,
`csv_rows.SeparatedSource`, `tars.TarSource` or `documents.DocumentSource` read the rows, and the source says what a row
becomes.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import ClassVar, Literal, Protocol, TypeVar

from vlmill.pipeline.core.errors import VlmillError
from vlmill.pipeline.core.excerpt import make_excerpt
from vlmill.pipeline.core.names import OWN_MODULE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import NO_PAGE, Node

Raw = TypeVar("Raw")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that a row names or carries: an address to fetch, bytes, a file, or the reason why there are none.

    It has one of `data`, `path` and `reason`; `url` alone is fetched, and beside them says where it was.
    """

    url: str | None = None
    data: bytes | None = None
    path: str | None = None  # of a file, relative to where the source's images lie
    media_type: str | None = None
    reason: Reason | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """What becomes one sample. `Node.image` of its nodes indexes `pictures` here."""

    nodes: tuple[Node, ...]
    pictures: tuple[Picture, ...] = ()
    page: int = NO_PAGE  # of rows that become several samples, each its own from 0
    group: str = ""  # samples of one name are held out together; else, of pages, what the document's id says
    url: str = ""  # of the document, or what names it upstream: `trace` shows it, a takedown finds it
    licence: str = ""  # of this sample alone; else the source's
    signals: Mapping[str, float | None] = field(default_factory=dict)  # what is None or NaN is left out
    unread: tuple[str, ...] = ()  # keys of its row that say something and were not read


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of the input file: the pages made of it, and what could not be made, by reason with a detail."""

    row: int
    pages: tuple[Page, ...] = ()
    failed: tuple[tuple[Reason, str], ...] = ()  # one entry per lost page, or one for a whole row
    failed_pages: tuple[int, ...] = ()  # the page of each of these; empty where the row has none
    excerpt: str = ""  # how the row begins, where something failed
    upstream_id: str = ""  # the id of the row in the input file: `trace` finds its samples by it, and exports have it


class UnreadableRow(Exception):  # noqa: N818 - a verdict about a row
    """No sample can be made of a row, for a `reason`; the message is its detail.

    `raw` is the row where no other object has it.
    """

    def __init__(self, detail: str, reason: Reason = Reason.BAD_ROW, raw: object = None) -> None:
        super().__init__(detail)
        self.reason, self.raw = reason, raw


def pick_items(items: Iterable[Item], numbers: Sequence[int]) -> Iterator[tuple[int, Item]]:
    """(number, item) of the items of these numbers, which rise; nothing behind the last of them is asked for."""
    remaining = iter(numbers)
    wanted = next(remaining, None)
    for number, item in enumerate(items) if wanted is not None else ():
        if number == wanted:
            yield number, item
            wanted = next(remaining, None)
            if wanted is None:
                return


def read_pages(
    rows: Iterable[tuple[int, Raw | UnreadableRow]],
    page: Callable[[Raw], Page],
    name: Callable[[Raw], str] = lambda _: "",
) -> Iterator[SourceRow]:
    """One page per row, or why there is none; `rows` holds an UnreadableRow in place of a row that cannot be read.

    A row that `page` breaks on is BAD_ROW; the errors of MACHINE are raised. `name` gives a row's `upstream_id`.
    """
    for given in rows:
        if not (isinstance(given, tuple) and len(given) == 2):
            raise TypeError(
                f"read_pages is given a {type(given).__name__}, expected (number, row), as pick_items gives it"
            )
        number, row = given
        made, upstream_id = (row, "") if isinstance(row, UnreadableRow) else (try_row(page, row), name(row))
        if isinstance(made, UnreadableRow):
            raw = row.raw if isinstance(row, UnreadableRow) else row
            excerpt = "" if raw is None else make_excerpt(raw)
            yield SourceRow(number, failed=((made.reason, str(made)),), excerpt=excerpt, upstream_id=upstream_id)
        else:
            nothing = not getattr(made, "nodes", None)  # which a check after this one says
            yield SourceRow(number, (made,), excerpt=make_excerpt(row) if nothing else "", upstream_id=upstream_id)


MACHINE = (VlmillError, OSError, MemoryError, ImportError)
"""What no row is at fault for."""

READ_REASONS = (
    Reason.BAD_ROW,
    Reason.EMPTY_ROW,
    Reason.BAD_PAGE,
    Reason.TOO_MANY_CHARACTERS,
    Reason.TOO_MANY_BYTES,
    Reason.UNSUPPORTED_MEDIA,
    Reason.UNSUPPORTED_CONTENT,
    Reason.UNDECODABLE,
    Reason.MISSING_FILE,
    Reason.TIMED_OUT,
)
"""For which a row may be lost where it is read; the others are those of other steps, which say what they mean."""

Made = TypeVar("Made")


def try_row(make: Callable[[Raw], Made], row: Raw) -> Made | UnreadableRow:
    """What `make` makes of a row, or why it makes nothing: the source says so, or its code breaks on the row.

    Of broken code the detail names the place and the exception. Raises what MACHINE lists.
    """
    try:
        return make(row)
    except UnreadableRow as unfit:
        return _check_reason(unfit)
    except MACHINE:
        raise
    except Exception as error:  # noqa: BLE001 - one row that the code was not written for must not end a build
        return UnreadableRow(f"{_find_place(error)}: {type(error).__name__}: {error}".removesuffix(": "))


def _check_reason(unfit: UnreadableRow) -> UnreadableRow:
    """The verdict, or why it is none: code of a user may give any word as its reason, or one of another step."""
    if unfit.reason not in READ_REASONS:
        return UnreadableRow(
            f"{_find_place(unfit)}: {str(unfit.reason)!r} is no reason of a row; allowed: {', '.join(READ_REASONS)}; "
            f"its message is: {unfit}"
        )
    unfit.reason = Reason(unfit.reason)
    return unfit


def _find_place(error: Exception) -> str:
    """`module:line` of the innermost frame that is not of Python's own library; of code of a user `file:line`."""
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    ours = [place for place in frames if _name_module(place[0]).partition(".")[0] not in sys.stdlib_module_names]
    frame, line = (ours or frames)[-1]
    module = _name_module(frame)
    return f"{frame.f_code.co_filename if module.startswith(OWN_MODULE) else module}:{line}"


def _name_module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))


OnBadFile = Literal["error", "skip"]
"""What a build does about an input file that is cut, damaged or of another form."""


class Source(Protocol):
    """A frozen dataclass with the options of a row shape."""

    kind: ClassVar[str]
    fetches: ClassVar[bool] = False  # whether its pictures are addresses
    opens: ClassVar[bool] = False  # whether its pictures are files that rows name (so reading is impure)
    captions: ClassVar[bool] = False  # whether a row is an image with its caption
    isolated: ClassVar[bool] = False  # whether rows are read in a child process under a time limit (impure as well)

    def ranged(self, name: str) -> bool:
        """Whether it only opens a file of this name, and reads parts of it: one on the Hub is then not copied."""
        del name
        return False

    def survey(self, path: Path) -> list[int]:
        """Bytes of each row of an input file, in order, without decoding it. Raises BadFileError on a wrong form."""
        ...

    def rows(self, path: Path, numbers: Sequence[int]) -> Iterator[SourceRow]:
        """The rows of these numbers, which rise, each exactly once. Bad rows are yielded with `failed`, never raised.

        Numbers behind the last row of the file give nothing. Of the others as little is read as the format allows.
        Raises BadFileError where the file is damaged: no row from there on can be told from another.
        """
        ...
