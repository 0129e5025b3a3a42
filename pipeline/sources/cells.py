"""What is in a cell of a table (table.py): texts, numbers, and lists, also those that a text writes out."""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any

from vlmill.pipeline.sources.base import UnreadableRow
from vlmill.pipeline.sources.known_keys import has_value

LITERAL = 10_000
"""Characters of a list in Python that is read."""
EXACT = 1 << 53
"""From which on not every whole number is a float."""
GAP = re.compile(r"""['"]\s+['"]""")


def read_cell_text(name: str, value: Any) -> str:
    """A text, or a number as one; empty for null. Raises UnreadableRow."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UnreadableRow(f"{name} is {type(value).__name__}, expected a text")
    whole = isinstance(value, float) and value.is_integer() and abs(value) < EXACT
    return str(int(value) if whole else value)


def list_choices(cells: Sequence[Any]) -> list[Any]:
    """What may be chosen, as the cells of one or several columns have it; one that is empty keeps its place."""
    parsed = [parse_list(cell) for cell in cells]
    return [value for cell in parsed for value in (cell if isinstance(cell, list) else [cell])]


def list_values(value: Any) -> Sequence[Any]:
    """The values in a cell: one, a list of them, or none."""
    value = parse_list(value)
    listed = value if isinstance(value, list) else [value]
    return [one for one in listed if has_value(one) or isinstance(one, int | float)]


def take_first(captions: Any) -> Any:
    """The first caption of several that is not blank; any other value as it is."""
    listed = parse_list(captions)
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        return captions
    return next((one for one in listed if one.strip()), "")


def parse_list(value: Any) -> Any:
    """The list that a cell of text writes as JSON, or as Python's `str` does; any other value as it is."""
    if isinstance(value, str) and value.lstrip().startswith("[") and value.rstrip().endswith("]"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return _parse_literal(value)
    return value


def _parse_literal(text: str) -> Any:
    """The texts that a list in Python is of, such as `['red', 'blue']`; else the text.

    Texts without a comma between them, as numpy prints an array, would be one: such a text is left as it is.
    """
    if len(text) > LITERAL or GAP.search(text):
        return text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in what is no Python
            found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else text
