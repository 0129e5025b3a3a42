"""How results look in a notebook: a line where they stand in a list, their command's text where one is printed."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from io import StringIO

from rich.console import RenderableType

from vlmill.pipeline.core.terminal import SafeConsole

WIDE = 160
"""Columns of a table in a text, as in a pipe."""


class Shown:
    """A result with a short repr, whose text is what its command prints.

    A dataclass of it has `repr=False`.
    """

    def say_short(self) -> str:
        """What matters of it, in a few words."""
        raise NotImplementedError

    def list_parts(self) -> Iterator[RenderableType]:
        """The tables and lines that the command prints, in order."""
        yield self.say_short()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.say_short()}>"

    def __str__(self) -> str:
        file = StringIO()
        console = SafeConsole(file=file, width=WIDE, highlight=False, force_jupyter=False, force_terminal=False)
        for part in self.list_parts():
            line = isinstance(part, str)
            console.print(part, markup=not line, soft_wrap=line)
        return "\n".join(line.rstrip() for line in file.getvalue().splitlines())

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def count_things(number: int, thing: str) -> str:
    """`1 fault`, `2 faults`."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def describe_more(left: int, thing: str) -> str:
    """` and 19 more rows`: how much of what a list leaves out; nothing where it leaves out none."""
    return f" and {count_things(left, f'more {thing}')}" if left > 0 else ""
