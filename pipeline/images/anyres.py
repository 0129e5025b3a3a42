"""AnyRes: tiles of a canvas chosen by the image's shape, and an overview (LLaVA-NeXT, LLaVA-OneVision)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.images import pixels
from vlmill.pipeline.images.places import place_in_square, scale_point
from vlmill.pipeline.images.policy import Channel, Layout, Point, Quality, Side, Size, check_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


LLAVA_NEXT = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
"""The grids (rows, columns) of LLaVA-NeXT, whose side is 336."""


@dataclass(frozen=True, config=STRICT)
class AnyRes:
    """`LlavaNextImageProcessorPil`, and with a `cap` and `many="letterbox"` `LlavaOnevisionImageProcessorPil`.

    The image is resized to fit into the best pinpoint, padded with black, and cut into tiles row by row; its overview
    (the whole image resized to one tile, aspect ratio lost) comes first. A fixed 2 x 2 grid is a single pinpoint.
    Stored are the canvas without its padding, and the overview, which is left out where it equals the canvas; of a
    small image the image itself (`Layout.enlarged`).
    """

    kind: ClassVar[str] = "anyres"
    version: ClassVar[int] = 2

    side: Side = 336  # of a tile, the encoder's input
    patch: Side = 14  # pixels of a side of the encoder's patches
    pinpoints: tuple[tuple[Side, Side], ...] = ()  # (height, width) that a canvas may have; else LLaVA-NeXT's grids
    cap: Side | None = None  # N of anyres_max_N: visual tokens beyond N tiles' are interpolated away
    many: Literal["tiles", "letterbox"] = "tiles"  # what images get that are not alone in their sample
    fill: tuple[Channel, Channel, Channel] = (127, 127, 127)  # colour around an image that many: letterbox pads
    quality: Quality = None  # of the JPEG that is stored, as Pillow counts; None: without loss

    def __post_init__(self) -> None:
        """Derive pinpoints from the side where none are given; refuse those that tiles cannot fill."""
        if not self.pinpoints:
            grids = tuple((rows * self.side, columns * self.side) for rows, columns in LLAVA_NEXT)
            object.__setattr__(self, "pinpoints", grids)
        for lengths in self.pinpoints:
            if any(length % self.side for length in lengths):
                raise ValueError(f"pinpoints: multiples of side ({self.side} px), not {lengths}")

    def layout(self, sizes: Sequence[Size]) -> tuple[Layout, ...]:
        """Tiles and overview of each image; one letterboxed tile each where there are several and `many` says so."""
        lone = self._letterboxed if self.many == "letterbox" and len(sizes) > 1 else self._tiled
        return tuple(lone(check_size(size)) for size in sizes)

    def render(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        """`canvas`, and `overview` where it is another picture; or `picture`."""
        return {"picture": image} if layout.enlarged else self._drawn(image, layout)

    def _drawn(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        if layout.tiles == 1:
            square = pixels.letterbox_image(image, self.side, self.fill)
            return {"canvas": square.crop(pixels.get_letterbox_box(layout.size, self.side))}
        parts = {"canvas": image.resize(layout.canvas, pixels.BICUBIC)}
        if layout.canvas != (self.side, self.side):
            parts["overview"] = image.resize((self.side, self.side), pixels.BICUBIC)
        return parts

    def tiles(self, parts: Mapping[str, np.ndarray], layout: Layout) -> list[np.ndarray]:
        """The overview, then the tiles row by row."""
        if layout.enlarged:
            parts = pixels.to_arrays(self._drawn(Image.fromarray(np.asarray(parts["picture"])), layout))
        if layout.tiles == 1:
            return [pixels.restore_letterbox(parts["canvas"], layout.size, self.side, self.fill)]
        rows, columns = layout.grid
        width, height = layout.canvas
        padded = np.zeros((rows * self.side, columns * self.side, 3), np.uint8)
        top, left = (padded.shape[0] - height) // 2, (padded.shape[1] - width) // 2
        padded[top : top + height, left : left + width] = parts["canvas"]
        return [np.asarray(parts.get("overview", parts["canvas"])), *pixels.cut_tiles(padded, self.side)]

    def view(self, layout: Layout) -> Size:
        """The canvas without its padding, whose features the model drops; of a letterboxed image the square."""
        return (self.side, self.side) if layout.tiles == 1 else layout.canvas

    def place(self, point: Point, layout: Layout) -> Point:
        """A point on the canvas, or in the letterboxed square. Pure."""
        if layout.tiles == 1:
            return place_in_square(point, layout.size, self.side)
        return scale_point(point, layout.size, layout.canvas)

    def _tiled(self, size: Size) -> Layout:
        height, width = choose_pinpoint(size, self.pinpoints)
        rows, columns = height // self.side, width // self.side
        layout = Layout(size, fit_into(size, (width, height)), (rows, columns), rows * columns + 1, 0, overview=0)
        return replace(layout, tokens=self.count_tokens(layout, self.side // self.patch))

    def _letterboxed(self, size: Size) -> Layout:
        left, top, right, bottom = pixels.get_letterbox_box(size, self.side)
        layout = Layout(size, (right - left, bottom - top), (1, 1), 1, 0)
        return replace(layout, tokens=self.count_tokens(layout, self.side // self.patch))

    def count_tokens(self, layout: Layout, across: int) -> int:
        """Visual tokens of an image whose tiles have `across` x `across` each.

        Of a tiled one those of the overview, of the canvas without its padding, and a newline per row of these; of a
        letterboxed one its tile's and a newline. The arithmetic of `unpad_image` and `pack_image_features` in
        transformers' LlavaNextModel and LlavaOnevisionModel, rounding included.
        """
        if layout.tiles == 1:
            return across**2 + 1
        (width, height), (rows, columns) = layout.size, layout.grid
        down, wide = rows * across, columns * across
        if width / height > wide / down:
            down -= (down - int(round(height * (wide / width), 7))) // 2 * 2
        else:
            wide -= (wide - int(round(width * (down / height), 7))) // 2 * 2
        excess = math.sqrt(down * wide / (self.cap * across**2)) if self.cap else 1.0
        if excess > 1.1:
            down, wide = int(down // excess), int(wide // excess)
        return across**2 + down * wide + down


def choose_pinpoint(size: Size, pinpoints: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The (height, width) that shows most of an image's own pixels, then wastes least, then stands first.

    transformers' `select_best_resolution`. The LLaVA repository has its pairs as (width, height), so ties differ.
    """
    width, height = size

    def worth(pinpoint: tuple[int, int]) -> tuple[int, int]:
        scale = min(pinpoint[1] / width, pinpoint[0] / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        return shown, shown - pinpoint[0] * pinpoint[1]

    return max(pinpoints, key=worth)


def fit_into(size: Size, target: Size) -> Size:
    """The size of an image scaled to fit into `target` (transformers' `get_patch_output_size`)."""
    across, down = target[0] / size[0], target[1] / size[1]
    if across < down:
        return target[0], min(math.ceil(size[1] * across), target[1])
    return min(math.ceil(size[0] * down), target[0]), target[1]
