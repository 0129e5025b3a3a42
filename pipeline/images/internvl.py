"""InternVL: the grid of tiles nearest to the image's aspect ratio, and a thumbnail."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from pipeline.images import pixels
from pipeline.images.policy import Layout, Quality, Size, check
from pipeline.settings import STRICT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image


@dataclass(frozen=True, config=STRICT)
class InternVL:
    """`GotOcr2ImageProcessorPil` with `crop_to_patches`, which InternVL uses: bicubic, aspect ratio nearly kept.

    The thumbnail (the whole image in one tile) comes last; a single tile has none.
    """

    kind: ClassVar[str] = "internvl"
    version: ClassVar[int] = 1

    side: PositiveInt = 448  # of a tile, the encoder's input
    fewest: PositiveInt = 1  # tiles, the thumbnail not counted
    most: PositiveInt = 12
    patch: PositiveInt = 14
    shuffle: PositiveInt = 2  # pixel shuffle: so many patches squared become one visual token
    quality: Quality = None

    def layout(self, sizes: Sequence[Size]) -> tuple[Layout, ...]:
        """Tiles and a thumbnail per image."""
        return tuple(self._layout(check(size)) for size in sizes)

    def _layout(self, size: Size) -> Layout:
        columns, rows = self._grid(size)
        tiles = rows * columns + (rows * columns > 1)
        tokens = (self.side // self.patch) ** 2 // self.shuffle**2
        return Layout(size, (columns * self.side, rows * self.side), (rows, columns), tiles, tiles * tokens)

    def _grid(self, size: Size) -> tuple[int, int]:
        """(columns, rows) of transformers' `get_optimal_tiled_canvas`.

        The nearest aspect ratio; of equal ones a larger grid as long as the image has over half of its pixels.
        """
        ratio, area = size[0] / size[1], size[0] * size[1]
        best, nearest = (1, 1), float("inf")
        for columns, rows in _grids(self.fewest, self.most):
            distance = abs(ratio - columns / rows)
            if distance < nearest or (distance == nearest and area > 0.5 * self.side**2 * columns * rows):
                best, nearest = (columns, rows), distance
        return best

    def render(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        """`canvas`, and `thumbnail` where there are several tiles."""
        parts = {"canvas": image.resize(layout.canvas, pixels.BICUBIC)}
        if layout.tiles > 1:
            parts["thumbnail"] = image.resize((self.side, self.side), pixels.BICUBIC)
        return parts

    def tiles(self, parts: Mapping[str, Image.Image], layout: Layout) -> list[np.ndarray]:
        """The tiles row by row, then the thumbnail."""
        canvas = np.asarray(parts["canvas"])
        return [canvas] if layout.tiles == 1 else [*pixels.cut(canvas, self.side), np.asarray(parts["thumbnail"])]

    def encode(self, part: str, picture: Image.Image) -> tuple[str, bytes]:  # noqa: ARG002 - all parts alike
        """Lossless WebP, or JPEG where a quality is set."""
        return pixels.encode(picture, self.quality)


@cache
def _grids(fewest: int, most: int) -> tuple[tuple[int, int], ...]:
    """All (columns, rows) of [fewest, most] tiles, small grids first, then narrow ones."""
    sides = range(1, most + 1)
    grids = ((columns, rows) for columns in sides for rows in sides if fewest <= columns * rows <= most)
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))
