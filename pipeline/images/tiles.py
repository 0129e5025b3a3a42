"""Tiles: the image scaled to a fixed long side and cut up, and an overview (Idefics3, SmolVLM)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.images import pixels
from vlmill.pipeline.images.places import ShowsWholeImage
from vlmill.pipeline.images.policy import Layout, Quality, Side, Size, check_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image

MOST_SIDE = 4096  # of the canvas before it is rounded up: MAX_IMAGE_SIZE in transformers


@dataclass(frozen=True, config=STRICT)
class Tiles(ShowsWholeImage):
    """`Idefics3ImageProcessorPil` with splitting: 364 px tiles for Idefics3, 512 px for SmolVLM.

    The long side is scaled to `longest`, upwards too, then both sides are resized up to whole tiles (Lanczos, twice).
    The overview is made from that canvas and comes last; a canvas of one tile has none. Both are stored, of small
    images too: to draw one when it is loaded takes longer than to decode it, by 1.2 to 2.2 times (Lanczos, twice, and
    enlarged without end).
    """

    kind: ClassVar[str] = "tiles"
    version: ClassVar[int] = 1

    side: Side = 364  # of a tile, the encoder's input
    longest: Side = 1456  # pixels of the longer side of the canvas
    patch: Side = 14  # pixels of a side of the encoder's patches
    shuffle: Side = 2  # pixel shuffle: so many patches squared become one visual token
    quality: Quality = None  # of the JPEG that is stored, as Pillow counts; None: without loss

    def layout(self, sizes: Sequence[Size]) -> tuple[Layout, ...]:
        """Tiles and an overview per image."""
        return tuple(self._layout(check_size(size)) for size in sizes)

    def _layout(self, size: Size) -> Layout:
        width, height = self._whole_tiles(self._scaled(size))
        rows, columns = height // self.side, width // self.side
        overview = rows * columns if rows * columns > 1 else None
        tiles = rows * columns + (overview is not None)
        tokens = int((self.side // self.patch) ** 2 / self.shuffle**2)
        return Layout(size, (width, height), (rows, columns), tiles, tiles * tokens, overview)

    def _scaled(self, size: Size) -> Size:
        """Idefics3's `get_resize_output_image_size`: the short side becomes even; no side vanishes."""
        width, height = _scale_longest(size, self.longest)
        if size[0] >= size[1]:
            height += height % 2
        else:
            width += width % 2
        width, height = max(width, 1), max(height, 1)
        if max(width, height) > MOST_SIDE:
            width, height = _scale_longest((width, height), MOST_SIDE)
        return max(width, 1), max(height, 1)

    def _whole_tiles(self, size: Size) -> Size:
        """Idefics3's `resize_for_vision_encoder`: both sides up to multiples of a tile, the long one first."""
        width, height = _scale_longest(size, _round_up(max(size), self.side))
        return _round_up(width, self.side), _round_up(height, self.side)

    def render(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        """`canvas`, and `overview` where there are several tiles."""
        canvas = image.resize(self._scaled(layout.size), pixels.LANCZOS).resize(layout.canvas, pixels.LANCZOS)
        if layout.overview is None:
            return {"canvas": canvas}
        return {"canvas": canvas, "overview": canvas.resize((self.side, self.side), pixels.LANCZOS)}

    def tiles(self, parts: Mapping[str, np.ndarray], layout: Layout) -> list[np.ndarray]:
        """The tiles row by row, then the overview."""
        cut = pixels.cut_tiles(np.asarray(parts["canvas"]), self.side)
        return cut if layout.overview is None else [*cut, np.asarray(parts["overview"])]


def _scale_longest(size: Size, longest: int) -> Size:
    """`size` with its longer side (the width of a square) set to `longest`, the other rounded down."""
    ratio = size[0] / size[1]
    return (longest, int(longest / ratio)) if size[0] >= size[1] else (int(longest * ratio), longest)


def _round_up(length: int, unit: int) -> int:
    return math.ceil(length / unit) * unit
