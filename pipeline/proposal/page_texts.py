"""Which JSON is what an OCR program read of pages, and of which pictures, for `vlmill new` (sidecars.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from vlmill.pipeline.proposal.column_names import ANSWERS, CAPTIONS, QUESTIONS, TURNS
from vlmill.pipeline.sources.conversation import FROM
from vlmill.pipeline.sources.formats.packed import find_ending
from vlmill.pipeline.sources.known_keys import PICTURES
from vlmill.pipeline.sources.page_texts import LINES, TEXTS, WORDS, find_box, read_list, read_object, read_text

OTHERS = frozenset({*CAPTIONS, *QUESTIONS, *ANSWERS, *TURNS, *FROM})
"""Keys of rows that say something else of a picture than what is written on it."""

PARTS = frozenset({*WORDS, *LINES, "pages", "blocks", "regions", "paragraphs"})
"""Keys of what holds the parts of a page, and hardly anything else."""
OF_A_PAGE = (
    "a file is what OCR read on one picture: `vlmill new FOLDER` of a folder that holds nothing but pictures and these "
    "makes rows of both (docs/documents.md, Scans)"
)


def is_one_page(said: Mapping[str, Any]) -> bool:
    """Whether an object is what OCR read on one picture: it holds parts of a page, of which none names a picture."""
    held = [value for key, value in said.items() if str(key).lower() in PARTS and isinstance(value, list)]
    parts = [part for value in held for part in value if isinstance(part, Mapping)]
    named = (value for part in parts for value in part.values() if isinstance(value, str))
    return bool(parts) and not any(find_ending(value)[1:] in PICTURES for value in named) and bool(read_page_text(said))


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
