"""What coordinates in texts seem to be, where nobody has said it: told from their numbers and the sizes of the images.

For `vlmill new`, which proposes `boxes`, and `vlmill check`, which warns where a source has none. Every order, unit and
frame that a notation allows is tried as the step `boxes` would read it; what is left over and cannot be told apart is
said as a doubt, and never decided.

Of several readings the likeliest is the one whose frame is the smallest that still holds all numbers: places that are
spread over a frame lie in a smaller one by chance the less often, the more there are.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlmill.pipeline.boxes.forms import FORMS, NUMBER, Order, Unit, UnreadableRegionError, find_numbers
from vlmill.pipeline.boxes.geometry import measure_frame
from vlmill.pipeline.boxes.notations import Notation, find_notations
from vlmill.pipeline.boxes.reading import StoredImage, read_region
from vlmill.pipeline.boxes.settings import SourceBoxes
from vlmill.pipeline.images.policy import Size

FITS = 0.9
"""The share of regions that a reading has to make sense of."""
REACH = 0.6
"""Of a frame's side: as far as the farthest of some regions reaches, where the frame is the right one."""
FEW = 20
"""Regions below which it says little that none lies where one reading would not have it."""
CERTAIN = math.log(100)
"""Of the likelihoods of two readings: from this ratio on the other one is no doubt."""
STRAY = math.log(0.01)
"""The likelihood of a region that a reading makes no sense of."""
COMMON = 0.3
"""The share of texts in which something has to stand that need not be coordinates."""
PARTS = ((10, 100), (100, 1000), (1010, 1024), (2000, 10_000))
"""From which largest number on numbers may be parts of a side, and how many: as much as models are known to use."""
CORNERS = 4
"""Numbers of the smallest region that is no point."""
SWAPPED = {("xyxy", "yxyx"), ("points", "points_yx"), ("yxyx", "xyxy"), ("points_yx", "points")}
"""Orders that differ in which of x and y stands first."""
LONG = 1.1
"""From this ratio of its sides on, an image tells its own frame from the square that it is padded to."""


UNKNOWN = (1000, 1000)
"""A size for images whose own is not known."""


@dataclass(frozen=True)
class SeenText:
    """A text of a sample with images."""

    text: str
    size: Size | None = None  # of its image, upright, in pixels; None where it is not known or there are several
    several: bool = False  # images in the sample


@dataclass(frozen=True)
class SeenBoxes:
    """Coordinates that texts of a source seem to hold."""

    settings: Mapping[str, Any]  # for `boxes` of the source: form or pattern, order, unit, frame, image
    title: str  # the notation in words
    example: str
    regions: int
    texts: int  # that hold some
    of: int  # texts that were looked at
    why: str  # what the reading rests on
    doubts: tuple[str, ...] = ()  # what the numbers do not tell

    def __str__(self) -> str:
        """What was seen, in a sentence."""
        return (
            f"{self.regions} regions in {self.texts} of {self.of} texts look like coordinates: {self.title}, such as "
            f"{' '.join(self.example.split()):.60}; {self.why}"
        )


@dataclass(frozen=True)
class _Region:
    text: str
    size: Size | None
    several: bool
    place: int  # of its text


@dataclass(frozen=True)
class _BoxReading:
    """One way to read the regions of a notation."""

    order: Order
    unit: Unit
    frame: str
    bad: int
    reach: float  # of the farthest corner, in sides of the frame
    likelihood: float  # its logarithm, where corners lie anywhere in the image

    def describe(self) -> str:
        unit = {"pixels": "pixels", "fraction": "fractions"}.get(str(self.unit), f"parts of {self.unit}")
        return f"{self.order} in {unit} of the {self.frame}"


def recognise_boxes(texts: Sequence[SeenText]) -> list[SeenBoxes]:
    """What texts seem to hold, by notation, the most frequent first; pure."""
    found = defaultdict[Notation, list[_Region]](list)
    for place, seen in enumerate(texts):
        for notation, said in find_notations(seen.text):
            found[notation].append(_Region(said, seen.size, seen.several, place))
    described = (_describe_notation(notation, regions, len(texts)) for notation, regions in found.items())
    return sorted((one for one in described if one is not None), key=lambda one: -one.regions)


def _describe_notation(notation: Notation, regions: list[_Region], of: int) -> SeenBoxes | None:
    """What a notation's regions are; None where they are rather something else.

    Fractions among regions that count something else would be read as parts of a pixel, so most of them are looked at.
    """
    if not notation.sure and len({region.place for region in regions}) < COMMON * of:
        return None
    form = FORMS.get(notation.form)
    fixed = form is not None and (form.bins or form.cells or notation.form == "molmo")
    fractions, others = ([], regions) if fixed else _split_fractions(notation, regions)
    most, fewer = (fractions, others) if len(fractions) > len(others) else (others, fractions)
    found = _describe_regions(notation, most, of, fixed=fixed)
    if found is None or not fewer:
        return found
    said = f"{len(fewer):,} others of these are {'fractions' if most is others else 'no fractions'}"
    if most is fractions and len(fractions) >= FITS * len(regions):
        return replace(found, why=f"{found.why}; {said}")
    return replace(found, doubts=(*found.doubts, f"{said}, and a source has one unit"))


def _split_fractions(notation: Notation, regions: list[_Region]) -> tuple[list[_Region], list[_Region]]:
    """The regions whose numbers are all fractions, and the others. Some points of other units look like fractions."""
    parted: tuple[list[_Region], list[_Region]] = ([], [])
    points = 0
    for region in regions:
        numbers = find_numbers(region.text, _get_number(notation))
        small = all(abs(float(one.written)) <= 1.01 for one in numbers) and any(one.decimals for one in numbers)
        parted[not small].append(region)
        points += small and len(numbers) < CORNERS
    return ([], regions) if points == len(parted[0]) <= (1 - FITS) * len(regions) else parted


def _describe_regions(notation: Notation, regions: list[_Region], of: int, *, fixed: bool) -> SeenBoxes | None:
    """The same of regions that may be of one unit."""
    texts = len({region.place for region in regions})
    readings = _list_readings(notation, regions, fixed=fixed)
    whole = {(one.order, one.unit): one.bad for one in readings if one.frame == "image"}
    fitting = [
        one
        for one in readings
        if one.bad <= (1 - FITS) * len(regions)
        and (one.frame == "image" or one.bad <= whole[one.order, one.unit])  # one in the padding is of no square
    ]
    if not fixed and len(regions) >= FEW // 4:
        fitting = [one for one in fitting if one.reach >= REACH]
    if not notation.sure and not fitting:
        return None
    best = _choose_reading(fitting, regions)
    if best is None:
        settings: dict[str, Any] = {"pattern": notation.pattern, "order": notation.orders[0], "unit": "?"}
        why = "no order and unit makes boxes of all of them that lie in their pictures"
        doubts = ["numbers of a resized picture cannot be told: give the numbers of the original, or write boxes anew"]
        return SeenBoxes(settings, notation.title, regions[0].text, len(regions), texts, of, why, tuple(doubts))
    settings = _write_settings(notation, best, regions)
    why = f"read as {best.describe()}" + (
        f", {len(regions) - best.bad} of them lie in their pictures" if best.bad else ""
    )
    turned = any((best.order, one.order) in SWAPPED and one.unit == best.unit for one in fitting) and not fixed
    why += ", x taken to stand before y" if turned and best.order in ("xyxy", "points") else ""
    doubts = list(_list_doubts(best, fitting, regions, fixed=fixed))
    if turned and best.order in ("yxyx", "points_yx"):
        doubts.append("numbers do not tell whether y stands before x")
    return SeenBoxes(settings, notation.title, regions[0].text, len(regions), texts, of, why, tuple(doubts))


def _list_readings(notation: Notation, regions: list[_Region], *, fixed: bool) -> list[_BoxReading]:
    form = FORMS.get(notation.form)
    units: tuple[Unit, ...] = (form.unit,) if form is not None and fixed else tuple(_list_units(notation, regions))
    made = []
    for order in notation.orders:
        for unit in units:
            for frame in ("image", "square"):
                settings: dict[str, Any] = {"order": order, "frame": frame}
                settings |= {"form": notation.form} if notation.form else {"pattern": notation.pattern}
                settings |= {} if fixed else {"unit": unit}
                made.append(_try_reading(SourceBoxes(**settings), regions))
    return made


def _list_units(notation: Notation, regions: list[_Region]) -> list[Unit]:
    """What the numbers may count, by their largest and by their decimals."""
    numbers = [one for region in regions for one in find_numbers(region.text, _get_number(notation))]
    most = max((abs(float(one.written)) for one in numbers), default=0.0)
    decimals = any(one.decimals for one in numbers)
    if most <= 1.01:
        return ["fraction"] if decimals or most <= 0 else []
    parts = [part for least, part in PARTS if least <= most <= 1.01 * part]
    return [*parts[:2], "pixels"]


def _get_number(notation: Notation) -> re.Pattern[str]:
    """How its numbers look."""
    return FORMS[notation.form].number if notation.form else NUMBER


def _try_reading(settings: SourceBoxes, regions: list[_Region]) -> _BoxReading:
    notation, bad, reach, likelihood = settings.notation, 0, 0.0, 0.0
    for region in regions:
        size = region.size or UNKNOWN
        unsized = region.size is None and notation.unit == "pixels"
        frame = measure_frame(settings.frame, size)
        sides = frame if notation.unit == "pixels" else (1, 1) if notation.unit == "fraction" else (notation.unit,) * 2
        shown = math.log(sides[0] * sides[1]) + math.log(size[0] * size[1] / (frame[0] * frame[1]))
        try:
            corners = read_region(region.text, settings, StoredImage(size))
        except UnreadableRegionError:
            bad += not unsized
            likelihood += STRAY - 2 * shown
            continue
        likelihood -= min(len(corners), 2) * shown
        reach = 1.0 if unsized else max(reach, *(max(x / frame[0], y / frame[1]) for x, y in corners))
    return _BoxReading(notation.order, notation.unit, settings.frame, bad, reach, likelihood)


def _choose_reading(fitting: Sequence[_BoxReading], regions: Sequence[_Region]) -> _BoxReading | None:
    """The likeliest, of equal ones the first in the order of the notation; a square only where there are enough."""
    few = len(_find_long(regions)) < FEW
    allowed = [one for one in fitting if one.frame == "image" or not few]
    return max(allowed or fitting, key=lambda one: round(one.likelihood, 6), default=None)


def _find_long(regions: Sequence[_Region]) -> list[_Region]:
    """Those in images that are not about square."""
    return [one for one in regions if one.size is not None and max(one.size) >= LONG * min(one.size)]


def _write_settings(notation: Notation, best: _BoxReading, regions: Sequence[_Region]) -> dict[str, Any]:
    """The block for the recipe, without what is the default."""
    form = _name_form(notation, best, regions)
    known = FORMS.get(form)
    settings: dict[str, Any] = {"form": form} if form else {"pattern": notation.pattern}
    if known is None or known.order != best.order:
        settings["order"] = best.order
    if known is None or known.unit != best.unit:
        settings["unit"] = best.unit
    if best.frame != "image":
        settings["frame"] = best.frame
    if any(region.several for region in regions):
        settings["image"] = "before"
    return settings


def _name_form(notation: Notation, best: _BoxReading, regions: Sequence[_Region]) -> str:
    """A form of FORMS that finds the same."""
    if notation.form == "qwen3_vl":
        return "qwen2_5_vl" if best.unit == "pixels" else "qwen3_vl"
    if notation.form or notation.title != "four numbers in brackets":
        return notation.form
    numbers = (one for region in regions for one in find_numbers(region.text, NUMBER))
    decimals = Counter(bool(one.decimals) for one in numbers)
    bracketed = all(region.text.startswith("[") for region in regions)
    if len(decimals) == 1 and bracketed and best.order == "xyxy":
        return "llava" if decimals[True] else "internvl"
    return ""


def _list_doubts(
    best: _BoxReading, fitting: Sequence[_BoxReading], regions: Sequence[_Region], *, fixed: bool
) -> list[str]:
    """What the numbers leave open."""
    doubts, unsized = list[str](), any(region.size is None for region in regions)
    if unsized and not fixed:
        doubts.append("sizes of pictures are not known here, so nothing says what the numbers count")
    others = dict.fromkeys(
        (one.order, str(one.unit))
        for one in fitting
        if (one.order, one.unit) != (best.order, best.unit) and (unsized or one.likelihood > best.likelihood - CERTAIN)
    )
    for order, unit in others:
        if unit == str(best.unit) and (best.order, order) in SWAPPED:
            continue  # said elsewhere: no number tells it
        doubts.append(f"they may as well be {order} with unit {unit}")
    frames = {one.frame for one in fitting if (one.order, one.unit) == (best.order, best.unit)}
    if frames == {"image", "square"}:
        long = len(_find_long(regions))
        if not long:
            doubts.append("all pictures here are about square, so nothing says whether the frame is image or square")
        elif best.frame == "square":
            doubts.append(
                f"none of {long} regions lies where a square would have padding, so the frame is square, or it is "
                "image by chance"
            )
        else:
            doubts.append(f"none of {long} regions tells whether the frame is image or square; more rows would")
    if any(region.several for region in regions):
        doubts.append("samples have several pictures: the one before the text is taken")
    return doubts
