"""Where a point of an image lies in what the model sees of it: the geometry of policies, for coordinates in texts.

A policy shows an image in one rectangle, its *view*: the square that a letterbox fills, the middle that a crop keeps,
the canvas that tiles are cut from (without its padding, which no model sees, so that tiles and overview show the same
whole image). Points are real numbers in pixels: x to the right, y down, and the corner of the upper left pixel is
(0, 0), so an image of `size` ends at `size`. Pillow's resize keeps to this, whatever the filter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmill.pipeline.images.policy import Layout, Point, Size


class ShowsWholeImage:
    """Base of policies whose canvas shows the whole image, stretched from edge to edge."""

    def view(self, layout: Layout) -> Size:
        """The canvas."""
        return layout.canvas

    def place(self, point: Point, layout: Layout) -> Point:
        """A point of the image in pixels of the canvas. Pure."""
        return scale_point(point, layout.size, layout.canvas)


def scale_point(point: Point, size: Size, target: Size) -> Point:
    """Where a point of a picture of `size` lies when that is resized to `target`."""
    return point[0] * target[0] / size[0], point[1] * target[1] / size[1]


def place_in_square(point: Point, size: Size, side: float) -> Point:
    """Where a point of an image lies in the centred square that it is padded to, of `side` pixels after its resize.

    The padding above or to the left is whole pixels of the image, as `letterbox_image` and LLaVA's `expand2square` have
    it.
    """
    whole = max(size)
    x, y = (place + (whole - length) // 2 for place, length in zip(point, size, strict=True))
    return x * side / whole, y * side / whole
