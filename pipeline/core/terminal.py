"""The console of all commands: what data hold is shown and never obeyed.

Addresses, texts, names and messages come from files of anywhere. Every console is made here, and every piece of text
passes `neutralise_text` on its way out; what rich itself says to a terminal (colours, bars) is no text and stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from vlmill.pipeline.core.excerpt import HIDDEN

LAYOUT = re.compile(r"([\n\t]+)")
"""The two controls that texts of ours have."""


def neutralise_text(text: str) -> str:
    r"""A text whose controls and invisible characters stand as their escapes, such as `\x1b`; lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        piece if LAYOUT.fullmatch(piece) else HIDDEN.sub(_escape_match, piece) for piece in LAYOUT.split(text)
    )


def _escape_match(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


class SafeConsole(Console):
    """A console of rich that sends no control character of a text to the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See Console."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(neutralise_text(segment.text), segment.style)


def make_console(*, stderr: bool = False, quiet: bool = False, width: int | None = None, wrap: bool = True) -> Console:
    """A console for people. Without `wrap` lines are as long as they are."""
    return SafeConsole(stderr=stderr, quiet=quiet, width=width, highlight=False, soft_wrap=not wrap)


def format_json(value: Any) -> str:
    """JSON with sorted keys and an indent of 1, whose strings a terminal shows and does not obey: the same values."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False)
    return "\n".join(HIDDEN.sub(_escape_as_json, line) for line in text.split("\n"))


def _escape_as_json(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]
