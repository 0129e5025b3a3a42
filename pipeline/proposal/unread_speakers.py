"""Rows that say who speaks where no kind would read it, for `vlmill new`: a message in each row, or in lists of parts.

Read as captions or as documents, questions would be learned as answers are, and nothing would tell.
"""

from __future__ import annotations

from vlmill.pipeline.proposal.attempts import Attempt
from vlmill.pipeline.proposal.columns import Cells
from vlmill.pipeline.proposal.nested_columns import read_list
from vlmill.pipeline.sources.conversation import FROM, SPEAKERS

KEYS = frozenset({*FROM, "speaker", "sender", "who"})
"""What the key of a speaker is called; `author` and the like also say who wrote a caption."""

SAID = " says who speaks"
"""What a message about such a key begins with, behind its name."""


def describe_speakers(best: Attempt | None, cells: Cells) -> str:
    """Why rows are not to be read as `best` reads them, and what to do; empty where it reads who speaks."""
    if best and any(node.role in {"user", "assistant"} for page in best.pages for node in page.nodes):
        return ""
    # of turns that are not read for another cause, the kinds that were tried say which
    apart = [name for name in cells.dotted if best or f"{name.rpartition('.')[0]}.parts" in cells.dotted]
    for name in (*cells.columns, *apart):
        if name.rpartition(".")[2].lower() not in KEYS:
            continue
        said = [item for value in cells.list_values(name) for item in (read_list(value) or [value]) if item is not None]
        roles = {SPEAKERS.get(one.lower()) if isinstance(one, str) else None for one in said}
        if {"user", "assistant"} <= roles and None not in roles:
            where = "in a row of its own" if name in cells.columns else "in parts of its own"
            return (
                f"{name}{SAID} ({', '.join(sorted({str(one) for one in said}))}), each message {where}: no "
                "kind reads that, and questions would be learned like answers; make a row of each conversation, with "
                "a list `messages` of `role` and `content` (docs/conversations.md, Conversations in other forms)"
            )
    return ""
