"""NaViT: the image keeps its aspect ratio and, within bounds, its resolution (Idefics2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL import Image
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.images import pixels
from vlmill.pipeline.images.places import ShowsWholeImage
from vlmill.pipeline.images.policy import Layout, Quality, Side, Size, Unrenderable, check_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, config=STRICT)
class NaViT(ShowsWholeImage):
    """`Idefics2ImageProcessorPil` before it pads a batch, which the trainer does (below and to the right, with a mask).

    With `split` the quarters of the image, each resized for itself, come before the whole. Of a small image the image
    itself is stored (`Layout.enlarged`).
    """

    kind: ClassVar[str] = "navit"
    version: ClassVar[int] = 2

    shortest: Side = 378  # both sides are at least this long, even at the cost of the aspect ratio
    longest: Side = 980  # pixels of the longer side at most
    latents: Side = 64  # visual tokens of one encoder input: the perceiver resampler makes them whatever its size
    split: bool = False  # whether the quarters of the image come before the whole
    quality: Quality = None  # of the JPEG that is stored, as Pillow counts; None: without loss

    def layout(self, sizes: Sequence[Size]) -> tuple[Layout, ...]:
        """One input per image, or five. Unrenderable where a side of 1 px should be split."""
        return tuple(self._layout(check_size(size)) for size in sizes)

    def _layout(self, size: Size) -> Layout:
        if self.split and min(size) < 2:
            raise Unrenderable(f"{size[0]} x {size[1]} px has no quarters")
        if not self.split:
            return Layout(size, self._resized(size), (1, 1), 1, self.latents)
        return Layout(size, self._resized(size), (2, 2), 5, 5 * self.latents, overview=4)

    def _resized(self, size: Size) -> Size:
        """The arithmetic of Idefics2's `get_resize_output_image_size`, rounding included."""
        width, height = size
        ratio = width / height
        if width >= height and width > self.longest:
            width, height = self.longest, int(self.longest / ratio)
        elif height > width and height > self.longest:
            width, height = int(self.longest * ratio), self.longest
        return max(width, self.shortest), max(height, self.shortest)

    def render(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        """`canvas`: the whole image; `quarter0` to `quarter3`, row by row, where it is split; or `picture`."""
        return {"picture": image} if layout.enlarged else self._drawn(image, layout)

    def _drawn(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        parts = {"canvas": image.resize(layout.canvas, pixels.BILINEAR)}
        if layout.tiles > 1:
            for number, box in enumerate(_cut_quarters(layout.size)):
                quarter = image.crop(box)
                parts[f"quarter{number}"] = quarter.resize(self._resized(quarter.size), pixels.BILINEAR)
        return parts

    def tiles(self, parts: Mapping[str, np.ndarray], layout: Layout) -> list[np.ndarray]:
        """The quarters row by row, then the whole; their shapes differ."""
        if layout.enlarged:
            parts = pixels.to_arrays(self._drawn(Image.fromarray(np.asarray(parts["picture"])), layout))
        quarters = [f"quarter{number}" for number in range(layout.tiles - 1)]
        return [np.asarray(parts[name]) for name in (*quarters, "canvas")]


def _cut_quarters(size: Size) -> list[tuple[int, int, int, int]]:
    (width, height), (x, y) = size, (size[0] // 2, size[1] // 2)
    return [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
