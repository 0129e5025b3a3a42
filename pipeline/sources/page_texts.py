"""The text of a page in what OCR programs write: for kind `table`, and for `vlmill new` of files beside pictures.

Read are objects and lists of pages, blocks, lines and words, whatever they call these: Textract, Tesseract's table of
words, docTR, PaddleOCR, EasyOCR, Azure, Google, and most of what is made by hand. Their order stays. A word stands on
the line of the one before where their boxes say so, and all words of a line do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from vlmill.pipeline.sources.base import UnreadableRow
from vlmill.pipeline.sources.nested import parse_object

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
BOX_LISTS = (*BOXES, "bboxes", "boxes", "quads", "polygons", "geometries", "rec_boxes", "rec_polys", "dt_polys")
"""Keys of where each text of a list beside it stands."""
TOPS, BOTTOMS, HEIGHTS = ("top", "y", "y0", "y1", "ymin", "y_min"), ("bottom", "y2", "ymax", "y_max"), ("height", "h")
Span = tuple[float, float]  # from the top of a box to its bottom


def read_cell(name: str, said: Any, boxes: Any = None) -> str:
    """The text of a page in the cell of a table, a line each; empty where nothing was read.

    Args:
        name: the column's. Of texts without boxes, those of `words` or `tokens` stand on one line.
        said: a text, or lines or words as OCR programs list them; also written as JSON.
        boxes: where each of these stands, if another column has it.

    Raises:
        UnreadableRow: it holds something else, or not as many boxes as texts.
    """
    boxes, parsed = parse_object(boxes), parse_object(said)
    said = parsed if isinstance(parsed, list | Mapping) else said  # a text such as 12 is a text
    if said is None or isinstance(said, str):
        return (said or "").strip()
    if not isinstance(said, list | Mapping):
        raise UnreadableRow(f"{name} is {type(said).__name__}, expected what OCR read: a text, a list or an object")
    if isinstance(said, list) and any(isinstance(one, str) for one in said):
        said = [str(one) if isinstance(one, int | float) else one for one in said]  # a number that was read is a word
    if isinstance(boxes, list):
        if not isinstance(said, list) or len(said) != len(boxes):
            held = f"{len(said)} texts" if isinstance(said, list) else "an object"
            raise UnreadableRow(f"{name} has {held}, and there are {len(boxes)} boxes")
        said = _add_boxes(said, {"boxes": boxes})
    if isinstance(said, list):
        named = {*re.findall(r"[^\W_]+", name.rpartition(".")[2].lower())}
        return read_list(said, "words" if named & WORDS else "lines" if named & LINES else "")
    if (text := read_object(said)) is None and (listed := _join_lists(said)):
        text = read_list(listed)
    if text is None:
        raise UnreadableRow(f"{name} has no text of OCR; it has {', '.join(map(str, said)) or 'nothing'}")
    return text


def _join_lists(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects that an object of lists stands for, as `datasets` stores a sequence of objects; none of another."""
    listed = all(isinstance(value, list) for value in said.values())
    if not listed or not {*TEXTS} & {str(key).lower() for key in said} or len({*map(len, said.values())}) != 1:
        return []
    return [dict(zip(said, values, strict=True)) for values in zip(*said.values(), strict=True)]


def read_text(said: Any, holder: str = "") -> str:
    """The text in a value, which stands in a list of this name; empty where there is none."""
    if isinstance(said, str):
        return said.strip()
    if isinstance(said, Mapping):
        return read_object(said, holder) or ""
    if isinstance(said, list) and len(said) in {2, 3} and find_box(said):  # EasyOCR and PaddleOCR: box, text, score
        return read_text(said[1][0] if isinstance(said[1], list) else said[1])
    return read_list(said, holder) if isinstance(said, list) else ""


def read_object(said: Mapping[str, Any], holder: str = "") -> str | None:
    """The text of an object; None where it holds nothing that is known."""
    named = {str(key).lower(): value for key, value in said.items()}
    if (text := _read_table(named)) is not None:
        return text
    for key in TEXTS:
        if isinstance(named.get(key), str) and named[key].strip():
            return str(named[key]).strip()
    there = [key for key in HOLDERS if isinstance(named.get(key), list | Mapping)]
    for key in there:
        value = _add_boxes(named[key], named)
        if key == "textannotations" and value and isinstance(value[0], Mapping):  # Google: the whole, then its words
            return str(value[0].get("description", "")).strip()
        if key in WORDS and holder in LINES:
            return " ".join(filter(None, (read_text(one) for one in value)))
        if text := read_text(value, key) if isinstance(value, Mapping) else read_list(value, key):
            return text
    return "" if there else None


def _add_boxes(value: Any, named: Mapping[str, Any]) -> Any:
    """The texts of a list with the boxes that an object has of each; any other value as it is."""
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        return value
    lists = (named[key] for key in BOX_LISTS if isinstance(named.get(key), list))
    boxes = next((one for one in lists if len(one) == len(value)), None)
    return value if boxes is None else [{"text": text, "box": box} for text, box in zip(value, boxes, strict=True)]


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


def read_list(said: Sequence[Any], holder: str = "") -> str:
    """The texts of a list, one below the other, or beside the other where their boxes are."""
    found = [(text, find_box(one)) for one in said if (text := read_text(one, holder))]
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


def find_box(said: Any) -> Any:
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
