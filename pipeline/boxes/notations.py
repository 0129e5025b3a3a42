"""In which notations texts hold coordinates, where nobody has said it: brackets, keys of JSON, tags, named numbers.

For `vlmill new` and `check` (recognition.py). A notation is how it looks; what its numbers count is not told here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from vlmill.pipeline.boxes.forms import FORMS, NUMBER, Order, find_numbers

LONGEST = 20_000
"""Characters of a text that are looked at."""

AMOUNT = r"-?\d+(?:\.\d+)?"
SHORT = r"-?\d{1,5}(?:\.\d{1,9})?"

GROUP = re.compile(r"[\[(][\[\]()\d\s.,;-]*[\])]")
"""Numbers in brackets and nothing else, as far as it goes."""
LEAF = re.compile(r"[\[(]([^\[\]()]+)[\])]")
KEY = re.compile(r"([\"'])([A-Za-z_][\w ]{0,30})\1\s*:\s*\Z")
TAG = re.compile(r"<(\|?)([A-Za-z_]{2,24})(\|?)>\s*\Z")
SPATIAL = re.compile(r"(?i)box|point|poly|quad|coord|segment|locat|position|region|contour|rect|vert|center|click|xy")
"""What of a key says that its numbers are places."""

TAGGED = re.compile(rf"<(\|?)([A-Za-z_]{{2,24}})(\|?)>\s*({SHORT}(?:\s*[,;\s]\s*{SHORT}){{1,63}})\s*<")
"""Bare numbers in a tag."""

APART = r"[^\d]{1,24}?"
"""Between two named numbers of a region."""

NAMES: dict[tuple[str, ...], Order] = {
    ("x", "y"): "points",
    ("y", "x"): "points_yx",
    ("x", "y", "w", "h"): "xywh",
    ("x", "y", "width", "height"): "xywh",
    ("left", "top", "width", "height"): "xywh",
    ("x1", "y1", "x2", "y2"): "xyxy",
    ("x0", "y0", "x1", "y1"): "xyxy",
    ("xmin", "ymin", "xmax", "ymax"): "xyxy",
    ("left", "top", "right", "bottom"): "xyxy",
    ("y1", "x1", "y2", "x2"): "yxyx",
    ("ymin", "xmin", "ymax", "xmax"): "yxyx",
    ("top", "left", "bottom", "right"): "yxyx",
    ("cx", "cy", "w", "h"): "cxcywh",
    ("xc", "yc", "w", "h"): "cxcywh",
}
"""What numbers are, by their names without underscores."""

_NAMED = {re.sub("(?<=.)(?=min|max|[0-9])", "_?", name) for names in NAMES for name in names}
NAME = "|".join(sorted(_NAMED, key=lambda name: (-len(name), name)))
VALUE = r"[\"']?\s*[:=]\s*[\"']?"
NAMED = re.compile(rf"(?i)\b(?P<name>{NAME})\b{VALUE}(?P<number>{SHORT})")


@dataclass(frozen=True)
class Notation:
    """A way in which regions look; equal ones are of one notation."""

    title: str  # in words
    pattern: str  # RE2, with the group `region`
    orders: tuple[Order, ...]  # that it may have, the likeliest first
    form: str = field(default="", compare=False)  # of FORMS, where it is one's pattern
    sure: bool = True  # nothing but coordinates looks like it


_OPEN, _CLOSE, _NEXT = r"[\[(]\s*", r"\s*[\])]", r"\s*,\s*"
_PAIR = f"{_OPEN}{AMOUNT}{_NEXT}{AMOUNT}{_CLOSE}"
CONTENT = r"[\[\](){},;.\d\s-]+"

BARE = {
    "four": rf"[\[(;]\s*(?P<region>{AMOUNT}(?:{_NEXT}{AMOUNT}){{3}})\s*[\]);]",
    "pair": rf"(?P<region>{_PAIR}\s*,?\s*{_PAIR})",
    "point": rf"(?P<region>{_PAIR})",
    "polygon": rf"(?P<region>{_PAIR}(?:\s*,?\s*{_PAIR}){{2,}})",
    "flat": rf"[\[(]\s*(?P<region>{AMOUNT}(?:{_NEXT}{AMOUNT}){{5,}})\s*[\])]",
}
"""Patterns of numbers in brackets, by how they stand."""

FOUR = re.compile(BARE["four"])

ORDERS: dict[str, tuple[Order, ...]] = {
    "four": ("xyxy", "yxyx", "xywh", "cxcywh"),
    "pair": ("xyxy", "polygon"),
    "point": ("points", "points_yx"),
    "polygon": ("polygon", "points"),
    "flat": ("polygon", "points"),
}
AREA = re.compile(r"(?i)poly|quad|seg|contour|mask|region|box")
POINTS = re.compile(r"(?i)point|click|coord|center|xy")
"""What of a key or tag says that pairs are corners of one thing, or points."""
TITLES = {
    "four": "four numbers",
    "pair": "two pairs of numbers",
    "point": "a pair of numbers",
    "polygon": "pairs of numbers",
    "flat": "a list of numbers",
}
KNOWN = ("kosmos2", "molmo", "qwen_vl", "qwen2_vl")
"""Forms that nothing else looks like, beside those of RUNS."""
RUNS = {
    "paligemma": (re.compile(r"(?:<loc\d{4}>)+"), "paligemma_points", ""),
    "florence2": (re.compile(r"(?:<loc_\d+>)+"), "", "florence2_polygon"),
}
"""Forms of tokens, of which two in a row are points and more than four boxes or a polygon: how a run looks, and the
forms of these."""


def find_notations(text: str) -> Iterator[tuple[Notation, str]]:
    """The notation of each region that a text seems to hold, with the region; pure.

    Of a part of a text that several notations could be, the more special one is taken.
    """
    text = text[:LONGEST]
    taken = list[tuple[int, int]]()
    for found in (_find_known, _find_named, _find_tagged, _find_groups):
        for first, last, notation, said in found(text):
            if all(last <= begun or first >= ended for begun, ended in taken):
                taken.append((first, last))
                yield notation, said


_Found = Iterator[tuple[int, int, Notation, str]]


def _find_known(text: str) -> _Found:
    for name in KNOWN:
        for match in re.finditer(FORMS[name].pattern, text):
            yield *match.span(), _describe_form(name), match["region"]
    for name, (run, points, polygon) in RUNS.items():
        for match in run.finditer(text):
            called = _name_run(match[0], name, points, polygon)
            for one in re.finditer(FORMS[called].pattern, match[0]) if called else ():
                first = match.start() + one.start()
                yield first, first + len(one[0]), _describe_form(called), one[0]


def _describe_form(name: str) -> Notation:
    return Notation(f"the form {name}", FORMS[name].pattern, (FORMS[name].order,), name)


def _name_run(text: str, boxes: str, points: str, polygon: str) -> str:
    """The form of tokens in a row: boxes where every four of them are the corners of one."""
    values = [float(one.written) for one in find_numbers(text, FORMS[boxes].number)]
    if len(values) % 4 == 0 and all(a <= c and b <= d for a, b, c, d in zip(*[iter(values)] * 4, strict=True)):
        return boxes
    return points if len(values) == 2 else polygon if len(values) >= 6 and len(values) % 2 == 0 else ""


def _find_named(text: str) -> _Found:
    """Numbers with names, such as `x1=3 y1=4 x2=5 y2=6`."""
    found = list(NAMED.finditer(text))
    begun = 0
    while begun < len(found):
        length = 1
        while (
            begun + length < len(found) and length < 4 and _stand_near(found[begun + length - 1], found[begun + length])
        ):
            length += 1
        while length >= 2 and _join_names(found[begun : begun + length]) not in NAMES:
            length -= 1
        run = found[begun : begun + max(length, 1)]
        if length >= 2:
            names = _join_names(run)
            parts = APART.join(rf"\b{re.escape(one['name'])}\b{VALUE}{AMOUNT}" for one in run)
            pattern = f"(?P<region>{parts})"
            said = text[run[0].start() : run[-1].end()]
            named = ", ".join(one["name"] for one in run)
            yield run[0].start(), run[-1].end(), Notation(f"numbers named {named}", pattern, (NAMES[names],)), said
        begun += len(run)


def _stand_near(one: re.Match[str], other: re.Match[str]) -> bool:
    return re.fullmatch(APART, one.string[one.end() : other.start()]) is not None


def _join_names(run: list[re.Match[str]]) -> tuple[str, ...]:
    return tuple(one["name"].lower().replace("_", "") for one in run)


def _find_tagged(text: str) -> _Found:
    """Bare numbers in a tag, such as `<bbox>1, 2, 3, 4</bbox>`."""
    for match in TAGGED.finditer(text):
        count = len(find_numbers(match[4], NUMBER))
        shape = {2: "point", 4: "four"}.get(count, "flat")
        if shape != "flat" or (count >= 6 and count % 2 == 0):
            yield *match.span(), _describe_tagged(f"<{match[1]}{match[2]}{match[3]}>", shape), match[4]


def _find_groups(text: str) -> _Found:
    """Numbers in brackets, alone or behind a key or a tag."""
    for match in GROUP.finditer(text):
        group = _cut_unclosed(match[0])
        leaves = [one.strip() for leaf in LEAF.finditer(group) for one in leaf[1].split(";")]
        shape = _name_shape(leaves, {len(find_numbers(leaf, NUMBER)) for leaf in leaves})
        before = text[max(0, match.start() - 60) : match.start()]
        key, tag = KEY.search(before), TAG.search(before)
        if shape is None or (key is not None and not SPATIAL.search(key[2])):
            continue
        if shape == "four" and len(leaves) > 1:
            yield from _find_several(group, match.start(), sure=key is not None or tag is not None)
            continue
        if key is not None:
            notation = _describe_keyed(key, shape)
        elif tag is not None:
            notation = _describe_tagged(f"<{tag[1]}{tag[2]}{tag[3]}>", shape)
        else:
            notation = Notation(f"{TITLES[shape]} in brackets", BARE[shape], ORDERS[shape], sure=False)
        yield match.start(), match.start() + len(group), notation, group


def _find_several(group: str, start: int, *, sure: bool) -> _Found:
    """Boxes of four numbers, one behind the other in common brackets."""
    notation = Notation(f"{TITLES['four']} in brackets", BARE["four"], ORDERS["four"], sure=sure)
    found = FOUR.search(group)
    while found is not None:
        first, last = found.span("region")
        yield start + first, start + last, notation, f"[{found['region']}]"
        found = FOUR.search(group, last)


def _describe_keyed(key: re.Match[str], shape: str) -> Notation:
    """Behind a key of JSON or of a dict of Python."""
    quote, name = key[1], key[2]
    form = "qwen3_vl" if name == "bbox_2d" and quote == '"' and shape == "four" else ""
    pattern = rf"{quote}{re.escape(name)}{quote}\s*:\s*(?P<region>\[{CONTENT}\])"
    title, orders = f'{TITLES[shape]} under "{name}"', _choose_orders(shape, name)
    return Notation(title, FORMS[form].pattern if form else pattern, orders, form)


def _describe_tagged(opens: str, shape: str) -> Notation:
    """In a tag."""
    pattern = rf"{re.escape(opens)}\s*(?P<region>{CONTENT})<"
    return Notation(f"{TITLES[shape]} in {opens}", pattern, _choose_orders(shape, opens))


def _choose_orders(shape: str, name: str) -> tuple[Order, ...]:
    """The orders of numbers behind a key or in a tag of this name."""
    orders = ORDERS[shape]
    if "polygon" in orders and "points" in orders:
        return ("polygon",) if AREA.search(name) else ("points", "polygon") if POINTS.search(name) else orders
    return ("yxyx", *(one for one in orders if one != "yxyx")) if name == "box_2d" else orders  # Gemini: y before x


def _cut_unclosed(group: str) -> str:
    """As much of it as has all its brackets closed."""
    depth, end = 0, 0
    for place, letter in enumerate(group):
        depth += (letter in "[(") - (letter in "])")
        if depth < 0:
            break
        if depth == 0 and letter in "])":
            end = place + 1
    return group[:end]


def _name_shape(leaves: list[str], sizes: set[int]) -> str | None:
    """How the numbers of a group stand; None where they are no coordinates."""
    if not leaves or not all(re.fullmatch(rf"{AMOUNT}(\s*,\s*{AMOUNT})*", leaf) for leaf in leaves):
        return None
    if sizes == {4}:
        return "four"
    if sizes == {2}:
        return {1: "point", 2: "pair"}.get(len(leaves), "polygon")
    (size,) = sizes if len(sizes) == 1 else (0,)
    return "flat" if len(leaves) == 1 and size >= 6 and size % 2 == 0 else None
