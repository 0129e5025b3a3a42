"""Chat without images, as JSON or JSON Lines: ShareGPT and OpenHermes (`conversations`), or OpenAI's `messages`.

So that a mixture can hold text alone: a quarter of The Cauldron's is (arXiv 2405.02246, table 14). Rows with pictures
are for `llava`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.sources.base import Page
from vlmill.pipeline.sources.conversation import SYSTEM, TURNS, get_turns, read_text_page
from vlmill.pipeline.sources.formats.json_rows import JsonSource
from vlmill.pipeline.sources.known_keys import get_given


@dataclass(frozen=True, config=STRICT)
class Chat(JsonSource):
    """Conversations of text."""

    kind: ClassVar[str] = "chat"

    def keys(self) -> tuple[tuple[str, ...], ...]:
        """The turns, as either calls them."""
        return (TURNS,)

    def reads(self) -> Collection[str]:
        """The turns, and a system prompt."""
        return (*TURNS, *SYSTEM)

    def page(self, row: Mapping[str, Any]) -> Page:
        """One sample of several turns. Raises UnreadableRow as `conversation.read_text_page`."""
        return read_text_page(get_turns(row), get_given(row, SYSTEM))
