"""Chat without images: ShareGPT and OpenHermes (`conversations`), or OpenAI's `messages`, in JSON, Parquet or Arrow.

So that a mixture can hold text alone: a quarter of The Cauldron's is (arXiv 2405.02246, table 14). LIMA's conversations
are lists of strings, a question and its answer by turns. Rows with pictures are for `llava` and `interleaved`. JSON may
be an array or JSON Lines.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.sources.base import Page
from vlmill.pipeline.sources.conversation import SYSTEM, TURNS, get_turns, read_text_page
from vlmill.pipeline.sources.formats.parquet import Columns
from vlmill.pipeline.sources.formats.records import RecordSource
from vlmill.pipeline.sources.known_keys import get_given

SPEAKERS = ("user", "assistant")
"""Whose the strings of a conversation are, by turns."""


@dataclass(frozen=True, config=STRICT)
class Chat(RecordSource):
    """Conversations of text."""

    kind: ClassVar[str] = "chat"

    id: str = ""  # the column with the id of each row, also in dotted keys: samples keep it; else id, uuid or key

    def columns(self) -> Columns:
        """None that every table has."""
        return {}

    def optional(self) -> Columns:
        """The turns, as either calls them, and a system prompt."""
        return dict.fromkeys((*TURNS, *SYSTEM), pa.null())

    def keys(self) -> tuple[tuple[str, ...], ...]:
        """The turns, as either calls them."""
        return (TURNS,)

    def reads(self) -> Collection[str]:
        """The turns, and a system prompt."""
        return (*TURNS, *SYSTEM)

    def page(self, row: Mapping[str, Any]) -> Page:
        """One sample of several turns. Raises UnreadableRow as `conversation.read_text_page`."""
        named = {**row, **{name: _name_speakers(row[name]) for name in TURNS if name in row}}
        return read_text_page(get_turns(named), get_given(row, SYSTEM))


def _name_speakers(turns: Any) -> Any:
    """Turns that are strings as messages of the two who speak; others as they are."""
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
        return turns
    return [{"role": SPEAKERS[place % 2], "content": turn} for place, turn in enumerate(turns)]
