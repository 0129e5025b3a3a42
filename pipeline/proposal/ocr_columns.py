"""Columns of what OCR read in pictures, for `vlmill new` (columns.py): lines or words, with or without their boxes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlmill.pipeline.sources.base import UnreadableRow
from vlmill.pipeline.sources.conversation import FROM
from vlmill.pipeline.sources.known_keys import has_value
from vlmill.pipeline.sources.page_texts import BOX_LISTS, HOLDERS, LINES, WORDS, find_box, read_cell

TEXT_LISTS = WORDS | LINES | {"ocr", "texts", "line", "word", "token"}
"""Words in the name of a column whose list of texts is what was read in a picture."""
Values = Callable[[str], Sequence[Any]]
"""Column, or dotted name -> what its cells hold."""


def find_ocr(columns: Sequence[str], list_values: Values) -> dict[str, str]:
    """The options `ocr` and `ocr_boxes` of kind `table`; none where no column holds what OCR read."""
    for column in columns:
        held = [value for value in list_values(column) if has_value(value)]
        if held and all(_is_read(column, value) for value in held):
            return {"ocr": column, **find_boxes(column, columns, list_values)}
    return {}


def find_boxes(ocr: str, columns: Sequence[str], list_values: Values) -> dict[str, str]:
    """The option `ocr_boxes`: a column with as many boxes as `ocr` has texts, in every row; none where they lie within.

    Args:
        ocr: the column of texts.
        columns: all.
        list_values: gives what their cells hold.
    """
    texts = list_values(ocr)
    if not all(isinstance(one, str) for text in texts if isinstance(text, list) for one in text):
        return {}
    for column in columns:
        boxes = list_values(column)
        if _list_words(column) & {*BOX_LISTS} and all(map(_match_boxes, texts, boxes)):
            return {"ocr_boxes": column}
    return {}


def _is_read(column: str, value: Any) -> bool:
    """Whether a value is what OCR read: texts in a column that is named so, or texts with boxes."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return bool(_list_words(column) & TEXT_LISTS)
    if isinstance(value, list):
        said = any(isinstance(one, Mapping) and {*FROM} & {*one} for one in value)
        if said or not (any(map(find_box, value)) or _list_words(column) & TEXT_LISTS):
            return False
    elif not isinstance(value, Mapping) or not {str(key).lower() for key in value} & {*HOLDERS}:
        return False
    try:
        return bool(read_cell(column, value))
    except UnreadableRow:
        return False


def _match_boxes(texts: Any, boxes: Any) -> bool:
    """Whether there is a box for each text."""
    if not has_value(texts):
        return not has_value(boxes)
    return (
        isinstance(texts, list)
        and isinstance(boxes, list)
        and len(texts) == len(boxes)
        and all(isinstance(box, list | Mapping) for box in boxes)
    )


def _list_words(column: str) -> set[str]:
    """The words in the last part of a column's name."""
    return {*re.findall(r"[^\W_]+", column.rpartition(".")[2].lower())}
