"""Instructions of text alone: a question and its answer under two keys, in Parquet, JSON or JSON Lines.

Alpaca began it, and most mathematics sets have it. Of Idefics2's fine-tuning sets (arXiv 2405.02246, table 14) it
reads databricks-dolly-15k, MetaMathQA, MathInstruct, orca-math-word-problems-200k, atlas-math-sets and goat, and
camel-ai/math once the files in its archive are joined to JSON Lines. A context stands before the question, as Idefics2
put Dolly's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.sources.base import Page, UnreadableRow
from vlmill.pipeline.sources.formats.parquet import Columns
from vlmill.pipeline.sources.formats.records import RecordSource


@dataclass(frozen=True, config=STRICT)
class Instructions(RecordSource):
    """Questions and answers without images; the options name the columns."""

    kind: ClassVar[str] = "instructions"

    question: str = "instruction"  # the column with what is asked
    answer: str = "output"  # the column with the answer
    context: str | None = None  # what the question is about, where a row has it
    id: str = ""  # the column with the id of each row, also in dotted keys: samples keep it; else id, uuid or key

    def columns(self) -> Columns:
        """Those that the options name."""
        return {name: pa.string() for name in (self.question, self.answer, self.context) if name}

    def keys(self) -> tuple[tuple[str, ...], ...]:
        """The same in JSON. Not every row has them all."""
        return tuple((name,) for name in self.columns())

    def reads(self) -> Collection[str]:
        """All of these."""
        return frozenset(self.columns())

    def page(self, row: Mapping[str, Any]) -> Page:
        """One sample of one turn; BAD_ROW for a value that is no text, EMPTY_ROW without question or answer."""
        question, answer, context = (
            _get_text(row, name) if name else "" for name in (self.question, self.answer, self.context)
        )
        if not question.strip() or not answer.strip():
            raise UnreadableRow(f"no {self.answer if question.strip() else self.question}", Reason.EMPTY_ROW)
        asked = f"{context}\n{question}" if context.strip() else question
        return Page((Node("text", "user", text=asked), Node("text", "assistant", supervised=True, text=answer)))


def _get_text(row: Mapping[str, Any], name: str) -> str:
    """The text in a column; empty for null. Raises UnreadableRow."""
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise UnreadableRow(f"{name} is {type(value).__name__}, expected a text")
    return value or ""
