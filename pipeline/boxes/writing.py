"""Coordinates of a text written for an image policy: each region where the model sees it, or that it does not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmill.pipeline.boxes.forms import Corners, Form, Number, Shape, find_numbers, order_numbers, write_cells
from vlmill.pipeline.boxes.geometry import clip_corners, count_parts, find_excess
from vlmill.pipeline.boxes.regions import Region
from vlmill.pipeline.boxes.settings import ModelBoxes, SourceBoxes
from vlmill.pipeline.images.places import place_in_square
from vlmill.pipeline.images.policy import Layout, Policy, Size

FRACTION_DECIMALS = 3
"""Of fractions whose source has another unit: a thousandth is less than a pixel of most views."""


@dataclass(frozen=True, slots=True)
class PlacedRegion:
    """A region where the model sees it, for cards and counts."""

    image: int  # node of the image
    shape: Shape
    corners: Corners  # in fractions of the view
    clipped: bool  # the view shows a part of it alone

    def to_json(self, image: int) -> dict[str, Any]:
        """As a shard holds it; `image` is the place of the image among the nodes there."""
        points = [[round(x, 5), round(y, 5)] for x, y in self.corners]
        return {"image": image, "shape": self.shape, "points": points, "clipped": self.clipped}


@dataclass(frozen=True, slots=True)
class WrittenRegion:
    """A region in a text that was written anew: characters [first, last), and what stood there before."""

    first: int
    last: int
    before: str

    def to_json(self) -> dict[str, Any]:
        """As a shard holds it."""
        return {"first": self.first, "last": self.last, "before": self.before}


@dataclass(frozen=True)
class BoxWriter:
    """Writes the regions of a source's texts as a policy shows them, in the form that the model is to see."""

    source: SourceBoxes
    model: ModelBoxes
    policy: Policy

    def place(self, region: Region, layout: Layout) -> PlacedRegion | None:
        """Where the model sees a region; None where the policy cuts it away. Pure."""
        view = self.policy.view(layout)
        placed = tuple(self.policy.place(corner, layout) for corner in region.corners)
        placed = tuple(_snap_corner(corner, view) for corner in placed)
        kept = clip_corners(placed, self.source.shape, view)
        if kept is None:
            return None
        fractions = tuple((x / view[0], y / view[1]) for x, y in kept)
        return PlacedRegion(region.image, self.source.shape, fractions, clipped=find_excess(placed, view) > 0)

    def write(
        self, text: str, regions: Sequence[tuple[Region, PlacedRegion]], layouts: Mapping[int, Layout]
    ) -> tuple[str, list[WrittenRegion]]:
        """A text with its regions, in order, as the model is to see them, and where they are now. Pure.

        `layouts` are those of images, by node.
        """
        made, begun, found = "", 0, list[WrittenRegion]()
        for region, placed in regions:
            before = text[region.first : region.last]
            made += text[begun : region.first]
            written = self._write_region(before, region, placed, layouts[region.image])
            found.append(WrittenRegion(len(made), len(made) + len(written), before))
            made, begun = made + written, region.last
        return made + text[begun:], found

    def _write_region(self, text: str, region: Region, placed: PlacedRegion, layout: Layout) -> str:
        form = self.model.choose_notation(self.source)
        fractions, size = self._find_fractions(region, placed, layout)
        if form.cells:
            return form.write.format(*write_cells(fractions, int(form.unit)))
        numbers = find_numbers(text, self.source.notation.number)
        style = _Style.choose(form, self.model.decimals, numbers, same=form.unit == self.source.notation.unit)
        parts = [count_parts(form.unit, side) for side in size]
        corners = tuple(
            (style.round(x * parts[0], parts[0]), style.round(y * parts[1], parts[1])) for x, y in fractions
        )
        values = order_numbers(corners, form.order)
        if self.model.form is not None or (form.bins and form.write):
            taken = form.write.count("{")
            places = [style.value(value) for value in values]
            return "".join(form.write.format(*places[at : at + taken]) for at in range(0, len(places), taken))
        return _replace_numbers(text, numbers, [style.write(value) for value in values])

    def _find_fractions(self, region: Region, placed: PlacedRegion, layout: Layout) -> tuple[Corners, Size]:
        """The region in fractions of the frame that the model is to see, and the size of that in pixels."""
        if self.model.frame == "view":
            return placed.corners, self.policy.view(layout)
        width, height = layout.size
        if self.model.frame == "image":
            return tuple((x / width, y / height) for x, y in region.corners), layout.size
        whole = max(layout.size)
        return tuple(place_in_square(corner, layout.size, 1.0) for corner in region.corners), (whole, whole)


@dataclass(frozen=True, slots=True)
class _Style:
    """How the numbers of a region are rounded and written."""

    decimals: int
    fixed: bool  # every number has all its decimals; else zeros at the end are left out, as the source does
    bins: bool
    digits: int = 0  # before the point at least: sources that write 072 for 72 have as many everywhere

    @classmethod
    def choose(cls, form: Form, decimals: int | None, numbers: Sequence[Number], *, same: bool) -> _Style:
        """That of the source where the unit is the same; thousandths of fractions and whole numbers of others else."""
        if form.bins:
            return cls(0, fixed=True, bins=True)
        if decimals is not None:
            return cls(decimals, fixed=True, bins=False)
        if not same:
            return cls(FRACTION_DECIMALS if form.unit == "fraction" else 0, fixed=True, bins=False)
        written = {number.decimals for number in numbers}
        whole = {len(number.written.partition(".")[0]) for number in numbers}
        padded = any(re.match(r"0\d", number.written) for number in numbers)
        digits = max(whole) if padded and len(whole) == 1 else 0
        return cls(max(written, default=0), fixed=len(written) <= 1, bins=False, digits=digits)

    def round(self, value: float, most: float) -> float:
        """A coordinate as it is written: of bins the one that it lies in."""
        if self.bins:
            return float(min(int(value), int(most) - 1))
        return min(max(round(value, self.decimals), 0.0), most)

    def value(self, value: float) -> float | int | str:
        """What a form's `{}` takes."""
        return self.write(value) if self.decimals else round(value)

    def write(self, value: float) -> str:
        """A number as text."""
        if not self.decimals:
            return f"{round(value):0{self.digits}}"
        return f"{value:.{self.decimals}f}" if self.fixed else repr(round(value, self.decimals))


def _snap_corner(corner: tuple[float, float], view: Size) -> tuple[float, float]:
    """A point that the arithmetic of floats has put beyond an edge, on it."""
    return _snap_place(corner[0], view[0]), _snap_place(corner[1], view[1])


def _snap_place(place: float, side: int) -> float:
    edge = 0.0 if place < 0 else float(side)
    return edge if not 0 <= place <= side and abs(place - edge) < 1e-6 * side else place


def _replace_numbers(text: str, numbers: Sequence[Number], written: Sequence[str]) -> str:
    """A region with other numbers in the places of its own; of more or fewer, the first ones' separators repeat."""
    if len(numbers) == len(written):
        pieces, begun = list[str](), 0
        for number, one in zip(numbers, written, strict=True):
            pieces += [text[begun : number.first], one]
            begun = number.last
        return "".join([*pieces, text[begun:]])
    within, between = (text[numbers[at].last : numbers[at + 1].first] for at in (0, 1))
    pairs = (f"{x}{within}{y}" for x, y in zip(written[::2], written[1::2], strict=True))
    return f"{text[: numbers[0].first]}{between.join(pairs)}{text[numbers[-1].last :]}"
