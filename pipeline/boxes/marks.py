"""What coordinates in texts mark, drawn on the encoder's inputs: on tiles together, and on the overview.

For people alone: cards of a stage and `vlmill preview` show it, and no model sees it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vlmill.pipeline.images import Layout, Policy, Size

COLOUR = (0, 158, 255)
HALO = (255, 255, 255)
"""Around a line, so that it is seen on any picture."""


def mark_tiles(
    tiles: Sequence[np.ndarray], layout: Layout, view: Size, regions: Sequence[Mapping[str, Any]]
) -> list[np.ndarray]:
    """Encoder inputs (height, width, 3) with regions, as shards hold them, drawn on those that show the view.

    Tiles of a grid show it together, in their middle; else the last one does, and an overview does as a whole.
    """
    if not regions:
        return list(tiles)
    marked = list(tiles)
    if layout.overview is not None:
        small = marked[layout.overview]
        marked[layout.overview] = draw_regions(small, (small.shape[1], small.shape[0]), regions)
    (rows, columns), grid = layout.grid, [number for number in range(len(tiles)) if number != layout.overview]
    if len(tiles) == 1:
        marked[0] = draw_regions(marked[0], view, regions)
    elif len(grid) == rows * columns and len({tiles[number].shape for number in grid}) == 1:
        lines = [np.hstack([tiles[number] for number in grid[row * columns :][:columns]]) for row in range(rows)]
        whole = np.vstack(lines)
        if whole.shape[0] >= view[1] and whole.shape[1] >= view[0]:  # else they are no cuts of the view
            side = tiles[grid[0]].shape[0], tiles[grid[0]].shape[1]
            drawn = draw_regions(whole, view, regions, middle=True)
            for place, number in enumerate(grid):
                top, left = place // columns * side[0], place % columns * side[1]
                marked[number] = drawn[top : top + side[0], left : left + side[1]]
    return marked


def mark_picture(
    policy: Policy, layout: Layout, parts: Mapping[str, bytes], regions: Sequence[Mapping[str, Any]]
) -> bytes:
    """The input in which a model sees an image whole, as PNG with regions drawn on it; `parts` as shards hold them."""
    arrays = {name: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for name, data in parts.items()}
    marked, file = mark_tiles(policy.tiles(arrays, layout), layout, policy.view(layout), regions), io.BytesIO()
    Image.fromarray(marked[layout.overview or 0]).save(file, "PNG")
    return file.getvalue()


def draw_regions(
    pixels: np.ndarray, view: Size, regions: Sequence[Mapping[str, Any]], *, middle: bool = False
) -> np.ndarray:
    """A picture with regions, whose points are fractions of a view that begins at its corner or lies in its middle."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    width = max(2, max(picture.size) // 160)
    left, top = ((picture.width - view[0]) // 2, (picture.height - view[1]) // 2) if middle else (0, 0)
    draw = ImageDraw.Draw(picture)
    for region in regions:
        points = [(left + x * view[0], top + y * view[1]) for x, y in region["points"]]
        for colour, wide in ((HALO, 2 * width), (COLOUR, width)):
            _draw_region(draw, region["shape"], points, colour, wide)
    return np.asarray(picture)


def _draw_region(
    draw: ImageDraw.ImageDraw,
    shape: str,
    points: Sequence[tuple[float, float]],
    colour: tuple[int, int, int],
    wide: int,
) -> None:
    if shape == "points":
        for x, y in points:
            draw.ellipse((x - 2 * wide, y - 2 * wide, x + 2 * wide, y + 2 * wide), outline=colour, width=wide)
    elif shape == "box":
        (left, top), (right, bottom) = points
        draw.rectangle((left, top, right, bottom), outline=colour, width=wide)
    else:
        draw.line([*points, points[0]], fill=colour, width=wide)
