"""Crop: the shorter side fits the encoder, the middle of the longer is kept (CLIP)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.images import pixels
from vlmill.pipeline.images.places import scale_point
from vlmill.pipeline.images.policy import Layout, Point, Quality, Side, Size, Unrenderable, check_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image

MOST_PIXELS = 1 << 26  # of the resized image, before the crop throws most of it away: 256 MB


@dataclass(frozen=True, config=STRICT)
class Crop:
    """Resize the shorter side (bicubic), then crop the centre.

    `CLIPImageProcessorPil` does the same; its two sizes are one here.
    """

    kind: ClassVar[str] = "crop"
    version: ClassVar[int] = 1

    side: Side = 336  # pixels of a side of the encoder's input
    patch: Side = 14  # pixels of a side of the encoder's patches
    quality: Quality = None  # of the JPEG that is stored, as Pillow counts; None: without loss

    def layout(self, sizes: Sequence[Size]) -> tuple[Layout, ...]:
        """One tile per image. Unrenderable where the resized image would be absurdly long."""
        return tuple(self._layout(check_size(size)) for size in sizes)

    def _layout(self, size: Size) -> Layout:
        width, height = self._resized(size)
        if width * height > MOST_PIXELS:
            raise Unrenderable(f"{size[0]} x {size[1]} px would be {width} x {height} px before the crop")
        return Layout(size, (self.side, self.side), (1, 1), 1, (self.side // self.patch) ** 2)

    def _resized(self, size: Size) -> Size:
        width, height = size
        if width <= height:
            return self.side, int(self.side * height / width)
        return int(self.side * width / height), self.side

    def _find_corner(self, size: Size) -> Size:
        """What is cut away at the left and above, in pixels of the resized image."""
        width, height = self._resized(size)
        return (width - self.side) // 2, (height - self.side) // 2

    def render(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        """`canvas`: the centre."""
        (width, height), (left, top) = self._resized(layout.size), self._find_corner(layout.size)
        whole = image.resize((width, height), pixels.BICUBIC)
        return {"canvas": whole.crop((left, top, left + self.side, top + self.side))}

    def tiles(self, parts: Mapping[str, np.ndarray], layout: Layout) -> list[np.ndarray]:  # noqa: ARG002
        """The square."""
        return [np.asarray(parts["canvas"])]

    def view(self, layout: Layout) -> Size:
        """The square."""
        return layout.canvas

    def place(self, point: Point, layout: Layout) -> Point:
        """A point in the square, or beside it. Pure."""
        x, y = scale_point(point, layout.size, self._resized(layout.size))
        left, top = self._find_corner(layout.size)
        return x - left, y - top
