"""The drawing test: a white rectangle on black, drawn into a picture and found again in what the model sees of it.

What a policy's own `render` and `tiles` make of the picture is measured, so where `place` says that a corner lies is
held against pixels and no arithmetic. Letterboxes are filled with black here, as the picture is.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.crop import Crop
from vlmill.pipeline.images.internvl import InternVL
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.native import Native
from vlmill.pipeline.images.navit import NaViT
from vlmill.pipeline.images.patches import Patches
from vlmill.pipeline.images.pooled import Pooled
from vlmill.pipeline.images.resize import Resize
from vlmill.pipeline.images.tiles import Tiles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vlmill.pipeline.images import Layout, Policy, Size

Box = tuple[float, float, float, float]
BLACK = (0, 0, 0)
LEAST = 4
"""Pixels of the view that a rectangle's side has to have: the edges of a thinner one are those of the filter."""
REACH = 6
"""Pixels of the picture that an edge keeps from other edges, twice the support of Lanczos: no filter mixes two then."""

DRAWN: Mapping[str, Policy] = {
    "anyres": AnyRes(),
    "anyres, letterboxed": AnyRes(many="letterbox", fill=BLACK),
    "crop": Crop(),
    "internvl": InternVL(),
    "letterbox": Letterbox(fill=BLACK),
    "native": Native(),
    "navit": NaViT(),
    "navit, split": NaViT(split=True),
    "patches": Patches(width=660, height=480),
    "pooled": Pooled(),
    "resize": Resize(),
    "tiles": Tiles(),
}
"""Every policy, by a name; some in two ways."""


@dataclass(frozen=True)
class Drawing:
    """A rectangle where it was drawn, in pixels of the picture, and where the view should show it, and where it does.

    `seen` is None where the view shows nothing of it. An edge that cannot be measured is NaN, in `placed` as well.
    """

    size: Size
    box: Box
    placed: Box
    seen: Box | None

    @property
    def distance(self) -> float:
        """Pixels between an edge as it was placed and as it was found, of the worst edge; 0 where none is measured."""
        if self.seen is None:
            return 0.0
        apart = np.abs(np.subtract(self.placed, self.seen))
        return 0.0 if np.isnan(apart).all() else float(np.nanmax(apart))


def lay_out_one(policy: Policy, name: str, size: Size) -> Layout:
    """The layout of an image, in the company of a second one where the name asks for it."""
    return policy.layout([size, size] if name.endswith("letterboxed") else [size])[0]


def draw(policy: Policy, layout: Layout, box: Box) -> list[Drawing]:
    """Draw a rectangle and find it again: in the view, and in the overview where there is one."""
    picture = Image.new("RGB", layout.size)
    left, top, right, bottom = box
    ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), fill=(255, 255, 255))
    parts = {name: np.asarray(part) for name, part in policy.render(picture, layout).items()}
    tiles = policy.tiles(parts, layout)
    corners = (*policy.place((left, top), layout), *policy.place((right, bottom), layout))
    view = policy.view(layout)
    drawings = [_measure(layout, box, corners, view, join_view(policy, layout, tiles))]
    if layout.overview is not None:
        small = tiles[layout.overview]
        scale = small.shape[1] / view[0], small.shape[0] / view[1]
        smaller = tuple(place * scale[number % 2] for number, place in enumerate(corners))
        drawings.append(_measure(layout, box, smaller, small.shape[1::-1], small))
    return drawings


def join_view(policy: Policy, layout: Layout, tiles: Sequence[np.ndarray]) -> np.ndarray:
    """The view (height, width, 3) out of the encoder inputs."""
    width, height = policy.view(layout)
    if isinstance(policy, Patches):
        return tiles[0][:height, :width]
    if layout.tiles == 1 or isinstance(policy, NaViT):
        return tiles[-1]
    cut = [tile for number, tile in enumerate(tiles) if number != layout.overview]
    rows, columns = layout.grid
    whole = np.vstack([np.hstack(cut[row * columns : (row + 1) * columns]) for row in range(rows)])
    top, left = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 2
    return whole[top : top + height, left : left + width]


def _measure(layout: Layout, box: Box, corners: Sequence[float], view: Size, pixels: np.ndarray) -> Drawing:
    assert pixels.shape[:2] == (view[1], view[0])
    light = pixels[:, :, 0].astype(float) / 255
    placed = [min(max(place, 0.0), view[number % 2]) for number, place in enumerate(corners)]
    if placed[2] - placed[0] <= 0 or placed[3] - placed[1] <= 0:
        return Drawing(layout.size, box, tuple(placed), _find_edges(light) if light.max() > 0.5 else None)
    found = list(_find_edges(light))
    for axis in (0, 1):
        if placed[axis + 2] - placed[axis] < LEAST or layout.size[axis] < 2 * REACH:
            placed[axis] = placed[axis + 2] = found[axis] = found[axis + 2] = float("nan")
    return Drawing(layout.size, box, tuple(placed), tuple(found))


def _find_edges(light: np.ndarray) -> Box:
    """Where the light passes half of that in the rectangle's middle, on the lines through it."""
    (left, right), (top, bottom) = (_find_ends(light.max(axis=axis), light.max() / 2) for axis in (0, 1))
    x, y = int((left + right) / 2), int((top + bottom) / 2)
    half = light[y, x] / 2
    (left, right), (top, bottom) = _find_ends(light[y], half), _find_ends(light[:, x], half)
    return left, top, right, bottom


def _find_ends(profile: np.ndarray, half: float) -> tuple[float, float]:
    bright = np.flatnonzero(profile >= half)
    return _cross(profile, half, bright[0]), len(profile) - _cross(profile[::-1], half, len(profile) - 1 - bright[-1])


def _cross(profile: np.ndarray, half: float, first: int) -> float:
    """Where a rising profile passes `half`, in pixels; the middle of pixel n is n + 0.5."""
    if first == 0:
        return 0.0
    before, after = profile[first - 1], profile[first]
    return float(first - 0.5 + (half - before) / (after - before))


def choose_box(generator: random.Random, policy: Policy, layout: Layout) -> Box:
    """A rectangle of whole pixels of the image that can be measured in the view, along an axis if there is room.

    Where there is none it is as long as the image.
    """
    spans = []
    coarsest = policy._scaled(layout.size) if isinstance(policy, Tiles) else layout.size  # it resizes twice
    for axis, length in enumerate(layout.size):
        reach = REACH * (1 if coarsest is layout.size else 2 * math.ceil(length / coarsest[axis]))
        across = policy.place((1.0, 1.0), layout)[axis] - policy.place((0.0, 0.0), layout)[axis]
        least = max(reach, int(LEAST / across) + 1)
        if length < least + 2 * reach:
            spans.append((0, length))
            continue
        extent = generator.randint(least, max(least, (length - 2 * reach) // 2))
        start = generator.choice((0, length - extent, *[generator.randint(reach, length - reach - extent)] * 8))
        spans.append((start, start + extent))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]
