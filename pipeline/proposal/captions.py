"""Where `vlmill new` takes captions from where rows have several: in columns of their own, or in a list.

The recipe that it writes drops Chinese, so a row whose first caption is Chinese, or blank, would be lost though another
one is there. Then places are named one after the other, those with Chinese last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vlmill.pipeline.sources.nested import parse_object

HAN, KANA, LETTER = re.compile(r"[\u3400-\u9fff]"), re.compile(r"[\u3040-\u30ff]"), re.compile(r"[^\W\d_]")
"""Letters of Chinese, which Japanese has as well, those that Japanese alone has, and all."""

LISTED = 8
"""Captions of a list that are told apart by their places."""


def choose_captions(column: str, values: Mapping[str, Sequence[Any]]) -> str | list[str]:
    """The column itself where its first captions do for all rows, else the places to look at one after the other.

    Args:
        column: That captions are in.
        values: What this column and others like it hold, row by row.
    """
    places = dict[str, list[Any]]()
    for name, cells in values.items():
        listed = [_list_captions(value) for value in cells]
        places[name] = [next((one for one in captions if _is_said(one)), "") for captions in listed]
        longest = max(map(len, listed), default=0)
        for number in range(min(longest, LISTED) if longest > 1 else 0):
            places[f"{name}.{number}"] = [captions[number] if number < len(captions) else "" for captions in listed]
    useful = {place: _find_useful(found) for place, found in places.items() if place == column or _tells_rows(found)}
    chosen, left = list[str](), {*range(len(places[column]))}
    for place in sorted(useful, key=lambda one: sum(map(is_chinese, places[one]))):  # of equal ones the first is first
        if left & useful[place]:
            chosen.append(place)
            left -= useful[place]
    if chosen in ([], [column]):
        return column
    return chosen if column in chosen else [*chosen, column]


def _list_captions(value: Any) -> Sequence[Any]:
    """The captions of a cell."""
    listed = parse_object(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    return listed if isinstance(listed, list | tuple) else [value]


def _is_said(caption: Any) -> bool:
    return isinstance(caption, str) and bool(caption.strip())


def _find_useful(captions: Sequence[Any]) -> set[int]:
    """The rows that have a caption which is not Chinese."""
    return {row for row, one in enumerate(captions) if _is_said(one) and not is_chinese(one)}


def _tells_rows(captions: Sequence[Any]) -> bool:
    """Whether captions say something of their rows, and not mostly the same."""
    said = [one for one in captions if _is_said(one)]
    return 2 * len({*said}) > len(said)


def is_chinese(text: Any) -> bool:
    """Whether most letters of a text are of Chinese, and none of Japanese alone."""
    return isinstance(text, str) and not KANA.search(text) and 2 * len(HAN.findall(text)) > len(LETTER.findall(text))
