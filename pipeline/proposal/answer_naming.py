"""How the answers of questions with choices name their choice, where letters, numbers and words say different things.

For `vlmill new` (columns.py). `3` is a choice's words where the choices are 1, 2, 3 and 4, and the number of another.
One row cannot tell; in many one way names a choice in each, and the others do not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vlmill.pipeline.sources.base import UnreadableRow
from vlmill.pipeline.sources.cells import list_choices, read_cell_text
from vlmill.pipeline.sources.choices import USUAL, list_named
from vlmill.pipeline.sources.known_keys import is_number


def tell_naming(rows: Sequence[tuple[Any, Sequence[Any]]]) -> Mapping[str, str]:
    """The option `answer_as`, where rows need it and tell it; else none.

    Args:
        rows: the cell of the answer, and the cells of choices.
    """
    told, unclear = Counter[str](), False
    for answer, cells in rows:
        named = _list_ways(answer, list_choices(cells))
        told.update(named.keys())
        usual = {place for way, place in named.items() if way in USUAL}
        unclear |= len(usual) > 1 or (not usual and "number_from_1" in named)
    most = max(told.values(), default=0)
    ways = [way for way in (*USUAL, "number_from_1") if told[way] == most]
    counted = all(is_number(answer) and not any(map(is_number, list_choices(cells))) for answer, cells in rows)
    ways = [way for way in ways if way != "words"] if counted and len(ways) > 1 else ways
    return {"answer_as": ways[0]} if unclear and len(ways) == 1 else {}


def _list_ways(answer: Any, choices: Sequence[Any]) -> Mapping[str, int]:
    """The ways in which an answer names a choice; none where one of them is no text."""
    said = answer[0] if isinstance(answer, list) and answer else answer
    try:
        return list_named([read_cell_text("a choice", one) for one in choices], read_cell_text("the answer", said))
    except UnreadableRow:
        return {}
