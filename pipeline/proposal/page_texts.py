"""The text of a scanned page in what OCR programs write as JSON, for `vlmill new` (sidecars.py).

Read are objects and lists of pages, blocks, lines and words, whatever they call these: Textract, Tesseract's table of
words, docTR, PaddleOCR, EasyOCR, Azure, Google, and most of what is made by hand. Their order stays. A word stands on
the line of the one before where their boxes say so, and all words of a line do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

from vlmill.pipeline.proposal.columns import ANSWERS, CAPTIONS, QUESTIONS, TURNS
from vlmill.pipeline.sources.conversation import FROM

TEXTS = ("text", "content", "value", "transcription", "detectedtext", "rec_text", "parsedtext", "word")
"""Keys of what is written in a place, in small letters, the usual first."""
WORDS = frozenset({"words", "tokens"})
LINES = frozenset({"lines", "text_lines"})
_WITHIN = "fulltextannotation textannotations analyzeresult responses readresults parsedresults pages blocks regions"
HOLDERS = (
    *_WITHIN.split(),
    "paragraphs",
    *sorted(LINES),
    "rec_texts",
    *sorted(WORDS),
    "ocr",
    "res",
    "result",
    "results",
)
"""Keys of what holds pages, blocks, lines or words, in small letters; those that are nearer to the whole text first."""
BOXES = ("bbox", "box", "boundingbox", "bounding_box", "boundingpoly", "geometry", "polygon", "quad", "points")
"""Keys of where a text stands."""
TOPS, BOTTOMS, HEIGHTS = ("top", "y", "y0", "y1", "ymin", "y_min"), ("bottom", "y2", "ymax", "y_max"), ("height", "h")
OTHERS = frozenset({*CAPTIONS, *QUESTIONS, *ANSWERS, *TURNS, *FROM})
"""Keys of rows that say something else of a picture than what is written on it."""
Span = tuple[float, float]  # from the top of a box to its bottom


def read_page_text(said: Any) -> str | None:
    """What is written on a page, a line each; None where this is no result of OCR."""
    if isinstance(said, Mapping):
        if any(isinstance(said.get(key), str) for key in said if str(key).lower() in OTHERS | {*TEXTS}):
            return None
        if any(isinstance(said.get(key), list) for key in TURNS):
            return None
        return _read_object(said)
    if isinstance(said, list) and said and any(map(_find_box, said)):
        return (
            None if any(isinstance(one, Mapping) and OTHERS & {*one} - {*TEXTS} for one in said) else _read_list(said)
        )
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
        if name is not None and (text := _read_text(one)):
            yield name, text


def _read_text(said: Any, holder: str = "") -> str:
    """The text in a value, which stands in a list of this name; empty where there is none."""
    if isinstance(said, str):
        return said.strip()
    if isinstance(said, Mapping):
        return _read_object(said, holder) or ""
    if isinstance(said, list) and len(said) in {2, 3} and _find_box(said):  # EasyOCR and PaddleOCR: box, text, score
        return _read_text(said[1][0] if isinstance(said[1], list) else said[1])
    return _read_list(said, holder) if isinstance(said, list) else ""


def _read_object(said: Mapping[str, Any], holder: str = "") -> str | None:
    """The text of an object; None where it holds nothing that is known."""
    named = {str(key).lower(): value for key, value in said.items()}
    if (text := _read_table(named)) is not None:
        return text
    for key in TEXTS:
        if isinstance(named.get(key), str) and named[key].strip():
            return str(named[key]).strip()
    there = [key for key in HOLDERS if isinstance(named.get(key), list | Mapping)]
    for key in there:
        value = named[key]
        if key == "textannotations" and value and isinstance(value[0], Mapping):  # Google: the whole, then its words
            return str(value[0].get("description", "")).strip()
        if key in WORDS and holder in LINES:
            return " ".join(filter(None, (_read_text(one) for one in value)))
        if text := _read_text(value, key) if isinstance(value, Mapping) else _read_list(value, key):
            return text
    return "" if there else None


def _read_table(named: Mapping[str, Any]) -> str | None:
    """The lines of Textract's blocks, or of Tesseract's columns of words; None of anything else."""
    blocks = named.get("blocks")
    if isinstance(blocks, list) and any(isinstance(one, Mapping) and "BlockType" in one for one in blocks):  # Textract
        return "\n".join(str(one.get("Text", "")) for one in blocks if one.get("BlockType") == "LINE")
    if isinstance(words := named.get("text"), list) and isinstance(numbers := named.get("line_num"), list):  # Tesseract
        places = zip(*(named.get(key, numbers) for key in ("block_num", "par_num")), numbers, strict=False)
        lines = groupby(zip(places, words, strict=False), key=lambda one: one[0])
        return "\n".join(line for _, held in lines if (line := " ".join(str(word) for _, word in held).strip()))
    return None


def _read_list(said: Sequence[Any], holder: str = "") -> str:
    """The texts of a list, one below the other, or beside the other where their boxes are."""
    found = [(text, _find_box(one)) for one in said if (text := _read_text(one, holder))]
    spans = _list_spans([box for _, box in found])
    lines, before = list[str](), None
    for (text, _), span in zip(found, spans, strict=True):
        beside = holder not in LINES and span and before and before[0] <= (span[0] + span[1]) / 2 <= before[1]
        if lines and (beside or (span is None and holder in WORDS)):
            lines[-1] += f" {text}"
        else:
            lines.append(text)
        before = span
    return "\n".join(lines)


def _find_box(said: Any) -> Any:
    """Where a text stands, as it is written; None where nothing says so."""
    if isinstance(said, list):
        text = said[1][0] if len(said) > 1 and isinstance(said[1], list) and said[1] else said[1:2]
        return said[0] if said and isinstance(said[0], list) and text and isinstance(text, str | list) else None
    if not isinstance(said, Mapping):
        return None
    named = {str(key).lower(): value for key, value in said.items()}
    return next((named[key] for key in BOXES if named.get(key)), named if {*TOPS} & {*named} else None)


def _list_spans(boxes: Sequence[Any]) -> list[Span | None]:
    """From top to bottom of each box; four numbers are two corners, or a corner, width and height."""
    numbers = [box for box in boxes if _is_row(box, 4)]
    corners = all(box[2] >= box[0] and box[3] >= box[1] for box in numbers)
    return [_find_span(box, corners=corners) for box in boxes]


def _find_span(box: Any, *, corners: bool) -> Span | None:
    if _is_row(box, 4):
        return box[1], box[3] if corners else box[1] + box[3]
    if isinstance(box, Mapping):
        named = {str(key).lower(): value for key, value in box.items()}
        within = next((named[key] for key in ("boundingbox", "vertices", "normalizedvertices") if key in named), None)
        if within is not None:
            return _find_span(within, corners=corners)
        tops, bottoms, heights = ([named[key] for key in keys if key in named] for keys in (TOPS, BOTTOMS, HEIGHTS))
        ends = [*tops[1:], *bottoms, *(tops[0] + one for one in heights if _is_row([*tops[:1], one], 2))]
        return (tops[0], ends[0]) if _is_row([*tops[:1], *ends[:1]], 2) else None
    if not isinstance(box, list):
        return None
    if _is_row(box, len(box)) and len(box) > 4:
        heights = box[1::2]
    else:
        heights = [one.get("y") if isinstance(one, Mapping) else one[1] for one in box if _is_point(one)]
    return (min(heights), max(heights)) if heights else None


def _is_point(said: Any) -> bool:
    return _is_row(said, 2) or (isinstance(said, Mapping) and _is_row([said.get("y")], 1))


def _is_row(said: Any, length: int) -> bool:
    """Whether a value is a list of so many numbers."""
    return isinstance(said, list) and len(said) == length and all(isinstance(one, int | float) for one in said)
