"""Frames, turns and clipping: from the numbers of a text to pixels of the upright image and back. Pure arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vlmill.pipeline.images.places import place_in_square

if TYPE_CHECKING:
    from vlmill.pipeline.boxes.forms import Corners, Form, Shape, Unit
    from vlmill.pipeline.images.policy import Point, Size

SLACK = 0.01
"""Of an image's longer side: so far beyond an edge a coordinate is a rounding (two decimals), and taken to the edge."""


def measure_frame(frame: Literal["image", "square"], size: Size) -> Size:
    """The size of a frame in pixels of the image."""
    return size if frame == "image" else (max(size), max(size))


def scale_number(value: float, side: float, form: Form) -> float:
    """A number of a text in pixels of a frame whose side it is along."""
    if form.unit == "pixels":
        return value
    parts = 1.0 if form.unit == "fraction" else float(form.unit)
    return (value + 0.5 if form.bins else value) * side / parts


def count_parts(unit: Unit, side: float) -> float:
    """How many units a side of a frame has."""
    return side if unit == "pixels" else 1.0 if unit == "fraction" else float(unit)


def leave_square(point: Point, size: Size) -> Point:
    """A point of the square that an image is padded to, in pixels of the image: the inverse of `place_in_square`."""
    left, top = place_in_square((0.0, 0.0), size, max(size))
    return point[0] - left, point[1] - top


def turn_point(point: Point, stored: Size, orientation: int) -> Point:
    """A point of the pixels as a file stores them, in the image as its EXIF orientation (1 to 8) turns it.

    The orientations of EXIF 2.32, tag 0x0112, as Pillow's `exif_transpose` carries them out.
    """
    (x, y), (width, height) = point, stored
    return {
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }.get(orientation, (x, y))


def sort_corners(corners: Corners, shape: Shape) -> Corners:
    """A box with its upper left corner first again, after a turn; other shapes as they are."""
    if shape != "box":
        return corners
    (left, right), (top, bottom) = (sorted(places) for places in zip(*corners, strict=True))
    return (left, top), (right, bottom)


def find_excess(corners: Corners, size: Size) -> float:
    """How far the worst point lies beyond an image of `size`, in its pixels; 0 where none does."""
    return max(max(-place, place - side, 0.0) for corner in corners for place, side in zip(corner, size, strict=True))


def clamp_corners(corners: Corners, size: Size) -> Corners:
    """The same with points beyond an image taken to its edge."""
    return tuple((min(max(x, 0.0), float(size[0])), min(max(y, 0.0), float(size[1]))) for x, y in corners)


def clip_corners(corners: Corners, shape: Shape, view: Size) -> Corners | None:
    """What of a region lies in the view; None where nothing does, or a point of several does not.

    A box is cut at the edges, and gone where not a pixel of its width or height is left. Of points each is needed, for
    the text may count them.
    """
    if shape == "points":
        return corners if find_excess(corners, view) == 0 else None
    clipped = _clip_polygon(corners, view) if shape == "polygon" else clamp_corners(corners, view)
    if not clipped or _is_lost(corners, clipped):
        return None
    return clipped


def _is_lost(before: Corners, after: Corners) -> bool:
    """Whether a side has come to less than a pixel, or to nothing if it was less before."""
    for axis in (0, 1):
        spans = [max(places) - min(places) for places in ([point[axis] for point in one] for one in (before, after))]
        if spans[0] >= 1 > spans[1] or spans[0] > 0 >= spans[1]:
            return True
        if spans[0] == 0 and before[0][axis] != after[0][axis]:  # a line beside the view
            return True
    return False


def _clip_polygon(corners: Corners, view: Size) -> Corners:
    """A polygon cut at the edges of a rectangle: Sutherland and Hodgman, Reentrant Polygon Clipping (1974)."""
    found = list(corners)
    for axis, side in enumerate(view):
        for edge, sign in ((0.0, 1.0), (float(side), -1.0)):
            found = _clip_edge(found, axis, edge, sign)
    return tuple(found)


def _clip_edge(corners: list[Point], axis: int, edge: float, sign: float) -> list[Point]:
    """What of a polygon lies on one side of a line across an axis."""
    kept = list[tuple[float, float]]()
    for before, here in zip([corners[-1], *corners[:-1]] if corners else [], corners, strict=True):
        was, is_in = (sign * (point[axis] - edge) >= 0 for point in (before, here))
        if was != is_in:
            share = (edge - before[axis]) / (here[axis] - before[axis])
            crossing = [low + share * (high - low) for low, high in zip(before, here, strict=True)]
            crossing[axis] = edge
            kept.append((crossing[0], crossing[1]))
        if is_in:
            kept.append(here)
    return kept
