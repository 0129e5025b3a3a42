"""The forms in which texts hold coordinates: how a region looks, what its numbers count, and how one is written.

Pure arithmetic on texts and numbers; what the numbers are of (which image, which frame) is said elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Order = Literal["xyxy", "yxyx", "xywh", "cxcywh", "points", "points_yx", "polygon"]
"""How the numbers of a region follow each other: two corners, a corner and lengths, the middle and lengths; points or
the corners of a polygon as x y x y, points also as y x y x, as many as there are."""

Unit = Literal["fraction", "pixels"] | Annotated[int, Field(ge=2, le=1_000_000)]
"""What numbers count: fractions of the frame's sides, its pixels, or so many equal parts of each side (1000: from 0 to
1000)."""

Shape = Literal["box", "points", "polygon"]

Corners = tuple[tuple[float, float], ...]
"""Points (x, y); of a box the upper left and the lower right one."""

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")
"""A decimal number that is no part of a name such as `x1`."""

MOST_NUMBERS = 2_000
"""Of one region."""


@dataclass(frozen=True)
class Form:
    """How a family of models writes a region."""

    pattern: str  # RE2, with one group named `region`
    order: Order
    unit: Unit
    write: str = ""  # a region with {} for each number; empty where only the numbers of one can be replaced
    number: re.Pattern[str] = NUMBER  # the number is its last group, or all of it
    bins: bool = False  # numbers are equal parts of a side, counted from 0, and mean the middle of one
    cells: bool = False  # each number is a cell of a square grid, row by row (Kosmos-2)


_INTEGERS = r"\[\s*-?\d+\s*,\s*-?\d+\s*,\s*-?\d+\s*,\s*-?\d+\s*\]"
_DECIMALS = r"\[\s*-?\d+\.\d+\s*(?:,\s*-?\d+\.\d+\s*){3}\]"
_CORNERS = r"\(-?\d+,\s*-?\d+\),\s*\(-?\d+,\s*-?\d+\)"
_AMOUNT = r"-?\d+(?:\.\d+)?"
_BBOX = rf'"bbox_2d":\s*(?P<region>\[\s*{_AMOUNT}\s*(?:,\s*{_AMOUNT}\s*){{3}}\])'

FORMS: Mapping[str, Form] = {
    "llava": Form(rf"(?P<region>{_DECIMALS})", "xyxy", "fraction", "[{}, {}, {}, {}]"),
    "qwen_vl": Form(rf"(?P<region><box>{_CORNERS}</box>)", "xyxy", 1000, "<box>({},{}),({},{})</box>"),
    "qwen2_vl": Form(
        rf"(?P<region><\|box_start\|>{_CORNERS}<\|box_end\|>)",
        "xyxy",
        1000,
        "<|box_start|>({},{}),({},{})<|box_end|>",
    ),
    "qwen2_5_vl": Form(_BBOX, "xyxy", "pixels", "[{}, {}, {}, {}]"),
    "qwen3_vl": Form(_BBOX, "xyxy", 1000, "[{}, {}, {}, {}]"),
    "internvl": Form(rf"(?P<region>{_INTEGERS})", "xyxy", 1000, "[{}, {}, {}, {}]"),
    "paligemma": Form(
        r"(?P<region>(?:<loc\d{4}>){4})",
        "yxyx",
        1024,
        "<loc{:04}><loc{:04}><loc{:04}><loc{:04}>",
        re.compile(r"<loc(\d{4})>"),
        bins=True,
    ),
    "florence2": Form(
        r"(?P<region>(?:<loc_\d+>){4})",
        "xyxy",
        1000,
        "<loc_{}><loc_{}><loc_{}><loc_{}>",
        re.compile(r"<loc_(\d+)>"),
        bins=True,
    ),
    "paligemma_points": Form(
        r"(?P<region>(?:<loc\d{4}>){2})",
        "points_yx",
        1024,
        "<loc{:04}><loc{:04}>",
        re.compile(r"<loc(\d{4})>"),
        bins=True,
    ),
    "florence2_polygon": Form(
        r"(?P<region>(?:<loc_\d+>){6,})",
        "polygon",
        1000,
        number=re.compile(r"<loc_(\d+)>"),
        bins=True,
    ),
    "kosmos2": Form(
        r"(?P<region><patch_index_\d{4}><patch_index_\d{4}>)",
        "xyxy",
        32,
        "<patch_index_{:04}><patch_index_{:04}>",
        re.compile(r"<patch_index_(\d{4})>"),
        cells=True,
    ),
    "molmo": Form(
        r'<points?\s(?P<region>(?:\s*x\d*="\s*-?[0-9.]+"\s+y\d*="\s*-?[0-9.]+")+)',
        "points",
        100,
        number=re.compile(r'="\s*(-?[0-9]+(?:\.[0-9]+)?)'),
    ),
}
"""By the name of the models that use them."""


class UnreadableRegionError(Exception):
    """The numbers of a region are none of its order; the message says why."""


def find_shape(order: Order) -> Shape:
    """What a region of this order is."""
    return "points" if order == "points_yx" else order if order in ("points", "polygon") else "box"


@dataclass(frozen=True)
class Number:
    """A number in a text."""

    first: int
    last: int
    written: str

    @property
    def decimals(self) -> int:
        """Digits behind the point."""
        return len(self.written.partition(".")[2])


def find_numbers(text: str, number: re.Pattern[str]) -> list[Number]:
    """The numbers of a region's text, in order."""
    group = number.groups
    return [Number(match.start(group), match.end(group), match[group]) for match in number.finditer(text)]


def read_corners(values: Sequence[float], order: Order) -> Corners:
    """The corners or points that numbers mean, in their own unit. Pure.

    Raises:
        UnreadableRegionError: too few or too many, or corners the wrong way round.
    """
    if len(values) > MOST_NUMBERS:
        raise UnreadableRegionError(f"{len(values)} numbers, allowed {MOST_NUMBERS}")
    if order in ("points", "points_yx", "polygon"):
        least = 6 if order == "polygon" else 2
        if len(values) < least or len(values) % 2:
            raise UnreadableRegionError(f"{len(values)} numbers are no {order}, which are pairs, {least // 2} or more")
        pairs = zip(values[::2], values[1::2], strict=True)
        return tuple((second, first) if order == "points_yx" else (first, second) for first, second in pairs)
    if len(values) != 4:
        raise UnreadableRegionError(f"{len(values)} numbers are no {order}, which are 4")
    a, b, c, d = values
    left, top, right, bottom = {
        "xyxy": (a, b, c, d),
        "yxyx": (b, a, d, c),
        "xywh": (a, b, a + c, b + d),
        "cxcywh": (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
    }[order]
    if left > right or top > bottom:
        raise UnreadableRegionError(
            f"its corners ({left:g}, {top:g}) and ({right:g}, {bottom:g}) are the wrong way round"
        )
    return (left, top), (right, bottom)


def order_numbers(corners: Corners, order: Order) -> list[float]:
    """The numbers of a region, as its order has them: the inverse of `read_corners`. Pure."""
    if order in ("points", "points_yx", "polygon"):
        step = -1 if order == "points_yx" else 1
        return [place for corner in corners for place in corner[::step]]
    (left, top), (right, bottom) = corners
    return {
        "xyxy": [left, top, right, bottom],
        "yxyx": [top, left, bottom, right],
        "xywh": [left, top, right - left, bottom - top],
        "cxcywh": [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top],
    }[order]


def read_cells(indices: Sequence[int], side: int) -> list[float]:
    """Two cells of a grid as fractions x y x y: `patch_index_to_coordinate` of transformers' Kosmos-2 processor.

    Middles of cells; their outer edges where both lie in one row or column.

    Raises:
        UnreadableRegionError: there are not two, or a cell is beyond the grid.
    """
    if len(indices) != 2 or not all(index < side**2 for index in indices):
        raise UnreadableRegionError(f"{list(indices)} are no two cells of {side} x {side}")
    (upper, left), (lower, right) = (divmod(index, side) for index in indices)
    first, last = (0.0, 1.0) if upper == lower or left == right else (0.5, 0.5)
    return [(left + first) / side, (upper + first) / side, (right + last) / side, (lower + last) / side]


def write_cells(corners: Corners, side: int) -> list[int]:
    """The cells of the corners of a box in fractions: `coordinate_to_patch_index` of the same processor."""
    (left, top), (right, bottom) = corners
    column, row = (min(math.floor(place * side), side - 1) for place in (left, top))
    last, lowest = (max(math.ceil(place * side - 1), 0) for place in (right, bottom))
    return [row * side + column, max(lowest, row) * side + max(last, column)]
