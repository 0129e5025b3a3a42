"""InternVL: the grid of tiles nearest to the image's aspect ratio, and an overview."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.images import pixels
from vlmill.pipeline.images.places import ShowsWholeImage
from vlmill.pipeline.images.policy import Layout, Quality, Side, Size, check_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, config=STRICT)
class InternVL(ShowsWholeImage):
    """`GotOcr2ImageProcessorPil` with `crop_to_patches`, which InternVL uses: bicubic, aspect ratio nearly kept.

    The overview (InternVL's thumbnail: the whole image in one tile) comes last; a single tile has none. Stored are
    canvas and overview, or of a small image the image itself (`Layout.enlarged`).
    """

    kind: ClassVar[str] = "internvl"
    version: ClassVar[int] = 2

    side: Side = 448  # of a tile, the encoder's input
    fewest: Annotated[int, Field(ge=1, le=256)] = 1  # tiles, the overview not counted
    most: Annotated[int, Field(ge=1, le=256)] = 12  # tiles of one image at most, the overview aside
    patch: Side = 14  # pixels of a side of the encoder's patches
    shuffle: Side = 2  # pixel shuffle: so many patches squared become one visual token
    quality: Quality = None  # of the JPEG that is stored, as Pillow counts; None: without loss

    def layout(self, sizes: Sequence[Size]) -> tuple[Layout, ...]:
        """Tiles and an overview per image."""
        return tuple(self._layout(check_size(size)) for size in sizes)

    def _layout(self, size: Size) -> Layout:
        columns, rows = self._grid(size)
        overview = rows * columns if rows * columns > 1 else None
        tiles = rows * columns + (overview is not None)
        tokens = (self.side // self.patch) ** 2 // self.shuffle**2
        canvas = (columns * self.side, rows * self.side)
        return Layout(size, canvas, (rows, columns), tiles, tiles * tokens, overview)

    def _grid(self, size: Size) -> tuple[int, int]:
        """(columns, rows) of transformers' `get_optimal_tiled_canvas`.

        The nearest aspect ratio; of equal ones a larger grid as long as the image has over half of its pixels.
        """
        ratio, area = size[0] / size[1], size[0] * size[1]
        best, nearest = (1, 1), float("inf")
        for columns, rows in _list_grids(self.fewest, self.most):
            distance = abs(ratio - columns / rows)
            if distance < nearest or (distance == nearest and area > 0.5 * self.side**2 * columns * rows):
                best, nearest = (columns, rows), distance
        return best

    def render(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        """`canvas`, and `overview` where there are several tiles; or `picture`."""
        return {"picture": image} if layout.enlarged else self._drawn(image, layout)

    def _drawn(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        parts = {"canvas": image.resize(layout.canvas, pixels.BICUBIC)}
        if layout.tiles > 1:
            parts["overview"] = image.resize((self.side, self.side), pixels.BICUBIC)
        return parts

    def tiles(self, parts: Mapping[str, np.ndarray], layout: Layout) -> list[np.ndarray]:
        """The tiles row by row, then the overview."""
        if layout.enlarged:
            parts = pixels.to_arrays(self._drawn(Image.fromarray(np.asarray(parts["picture"])), layout))
        cut = pixels.cut_tiles(np.asarray(parts["canvas"]), self.side)
        return cut if layout.overview is None else [*cut, np.asarray(parts["overview"])]


@cache
def _list_grids(fewest: int, most: int) -> tuple[tuple[int, int], ...]:
    """All (columns, rows) of [fewest, most] tiles, small grids first, then narrow ones."""
    sides = range(1, most + 1)
    grids = ((columns, rows) for columns in sides for rows in sides if fewest <= columns * rows <= most)
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))
