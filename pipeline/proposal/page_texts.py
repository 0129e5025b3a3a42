"""Which JSON is what an OCR program read of pages, and of which pictures, for `vlmill new` (sidecars.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from vlmill.pipeline.proposal.column_names import ANSWERS, CAPTIONS, QUESTIONS, TURNS
from vlmill.pipeline.sources.conversation import FROM
from vlmill.pipeline.sources.page_texts import TEXTS, find_box, read_list, read_object, read_text

OTHERS = frozenset({*CAPTIONS, *QUESTIONS, *ANSWERS, *TURNS, *FROM})
"""Keys of rows that say something else of a picture than what is written on it."""


def read_page_text(said: Any) -> str | None:
    """What is written on a page, a line each; None where this is no result of OCR."""
    if isinstance(said, Mapping):
        if any(isinstance(said.get(key), str) for key in said if str(key).lower() in OTHERS | {*TEXTS}):
            return None
        if any(isinstance(said.get(key), list) for key in TURNS):
            return None
        return read_object(said)
    if isinstance(said, list) and said and any(map(find_box, said)):
        return None if any(isinstance(one, Mapping) and OTHERS & {*one} - {*TEXTS} for one in said) else read_list(said)
    return None


def list_read_pages(said: Any, pictures: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pictures and what is written on them, from what names them: objects in lists, or keys.

    Args:
        said: what a file of JSON holds.
        pictures: the last part of a picture's path -> the path.
    """
    if isinstance(said, Mapping):
        for key, value in said.items():
            name = pictures.get(PurePosixPath(str(key)).name)
            if name is not None and (text := read_page_text(value)):
                yield name, text
            elif isinstance(value, list):
                yield from list_read_pages(value, pictures)
    for one in said if isinstance(said, list) else ():
        named = [value for value in one.values() if isinstance(value, str)] if isinstance(one, Mapping) else []
        name = next((pictures[path] for value in named if (path := PurePosixPath(value).name) in pictures), None)
        if name is not None and (text := read_text(one)):
            yield name, text
