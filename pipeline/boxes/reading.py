"""Coordinates of a text read: from a span to a region in pixels of the upright image, or what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmill.pipeline.boxes.forms import UnreadableRegionError, find_numbers, read_cells, read_corners
from vlmill.pipeline.boxes.geometry import (
    SLACK,
    clamp_corners,
    find_excess,
    leave_square,
    measure_frame,
    scale_number,
    sort_corners,
    turn_point,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlmill.pipeline.boxes.forms import Corners
    from vlmill.pipeline.boxes.settings import SourceBoxes
    from vlmill.pipeline.core.sample import Node
    from vlmill.pipeline.images.policy import Size


class OutsideFrameError(UnreadableRegionError):
    """A coordinate lies outside of its frame, or in the padding of a square."""

    def __init__(self, message: str, excess: float) -> None:
        super().__init__(message)
        self.excess = excess


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image as its file stores it."""

    size: Size  # upright, in pixels
    orientation: int = 1  # of its EXIF, where coordinates are of the pixels as stored; else 1

    @property
    def stored(self) -> Size:
        """The size before it was turned."""
        return self.size[::-1] if self.orientation >= 5 else self.size


def find_image(nodes: Sequence[Node], place: int, settings: SourceBoxes) -> int | None:
    """The node of the image that coordinates in a text are of; None where there is none, or it cannot be told."""
    shown = [number for number, node in enumerate(nodes) if node.image is not None]
    if settings.image == "only":
        return shown[0] if len(shown) == 1 else None
    if settings.image == "before":
        shown = [number for number in shown if number < place][::-1]
    return shown[0] if shown else None


def read_region(text: str, settings: SourceBoxes, image: StoredImage) -> Corners:
    """The region that the text of a span means, in pixels of the upright image. Pure.

    What lies beyond an edge by no more than SLACK is taken to it.

    Raises:
        UnreadableRegionError: its numbers are none of its order.
        OutsideFrameError: it lies outside of its frame, or outside of the image in a square.
    """
    form, frame = settings.notation, measure_frame(settings.frame, image.stored)
    numbers = find_numbers(text, form.number)
    if form.cells:
        fractions = read_cells([int(number.written) for number in numbers], int(form.unit))
        corners: Corners = tuple(
            (x * frame[0], y * frame[1]) for x, y in zip(fractions[::2], fractions[1::2], strict=True)
        )
    else:
        found = read_corners([float(number.written) for number in numbers], form.order)
        corners = tuple((scale_number(x, frame[0], form), scale_number(y, frame[1], form)) for x, y in found)
    if settings.frame == "square":
        corners = tuple(leave_square(corner, image.stored) for corner in corners)
    excess = find_excess(corners, image.stored) / max(image.stored)
    if excess > SLACK:
        size = f"{image.stored[0]} x {image.stored[1]} px"
        raise OutsideFrameError(f"{text!r:.80} lies outside of its image of {size}", excess)
    turned = tuple(
        turn_point(corner, image.stored, image.orientation) for corner in clamp_corners(corners, image.stored)
    )
    return sort_corners(turned, settings.shape)
