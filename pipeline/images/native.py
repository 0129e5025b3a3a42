"""Native resolution: the image in whole patches of its own shape, with a number of pixels within bounds (Qwen-VL)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.images import pixels
from vlmill.pipeline.images.places import ShowsWholeImage
from vlmill.pipeline.images.policy import Layout, Quality, Side, Size, Unrenderable, check_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Pixels = Annotated[int, Field(ge=1, le=1 << 28)]
"""Of a resized image: the upper bound is 16,384 px squared."""

LONGEST_RATIO = 200
"""Of a side to the other: transformers' `smart_resize` takes no longer images."""

LONGEST_CANVAS = 16_383
"""Pixels of a side that WebP holds; bounds of over 1.3 million pixels come to more, of the longest images."""


@dataclass(frozen=True, config=STRICT)
class Native(ShowsWholeImage):
    """`Qwen2VLImageProcessorPil`, which Qwen2-VL, Qwen2.5-VL and Qwen3-VL use.

    Both sides are rounded to whole groups of `merge` x `merge` patches (bicubic), so the aspect ratio is nearly kept.
    Only an image of fewer pixels than `min_pixels` or more than `max_pixels` changes its resolution. Of a small image
    the image itself is stored (`Layout.enlarged`).
    """

    kind: ClassVar[str] = "native"
    version: ClassVar[int] = 1

    min_pixels: Pixels = 56 * 56  # width times height of the resized image, at least
    max_pixels: Pixels = 28 * 28 * 1280  # a visual token is (patch * merge) squared of them
    patch: Side = 14  # of the encoder; Qwen3-VL has 16
    merge: Side = 2  # so many patches squared become one visual token
    quality: Quality = None  # of the JPEG that is stored, as Pillow counts; None: without loss

    def __post_init__(self) -> None:
        """Refuse bounds that no image meets."""
        if not self.unit**2 <= self.max_pixels >= self.min_pixels:
            raise ValueError(
                f"max_pixels is {self.max_pixels}; it has to be at least min_pixels ({self.min_pixels}) and one visual "
                f"token ({self.unit} x {self.unit} px)"
            )

    @property
    def unit(self) -> int:
        """Pixels of a side of a visual token."""
        return self.patch * self.merge

    @property
    def patches_per_token(self) -> int:
        """Of the encoder's patches, those that become one visual token."""
        return self.merge**2

    def layout(self, sizes: Sequence[Size]) -> tuple[Layout, ...]:
        """One input per image. Unrenderable where one side is far longer than the other, or than what is stored."""
        return tuple(self._layout(check_size(size)) for size in sizes)

    def _layout(self, size: Size) -> Layout:
        if max(size) / min(size) > LONGEST_RATIO:
            raise Unrenderable(f"{size[0]} x {size[1]} px: one side is more than {LONGEST_RATIO} times the other")
        width, height = self._resized(size)
        if max(width, height) > LONGEST_CANVAS:
            raise Unrenderable(
                f"{size[0]} x {size[1]} px would be {width} x {height} px; no side may be longer than {LONGEST_CANVAS}"
            )
        return Layout(size, (width, height), (1, 1), 1, (width // self.unit) * (height // self.unit))

    def _resized(self, size: Size) -> Size:
        """The arithmetic of transformers' `smart_resize`, rounding included."""
        unit, (width, height) = self.unit, size
        wide, high = (round(side / unit) * unit for side in size)
        if high * wide > self.max_pixels:
            beta = math.sqrt((height * width) / self.max_pixels)
            wide, high = (max(unit, math.floor(side / beta / unit) * unit) for side in size)
        elif high * wide < self.min_pixels:
            beta = math.sqrt(self.min_pixels / (height * width))
            wide, high = (math.ceil(side * beta / unit) * unit for side in size)
        return wide, high

    def render(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        """`canvas`: the whole image, resized; or `picture`."""
        return {"picture": image} if layout.enlarged else {"canvas": image.resize(layout.canvas, pixels.BICUBIC)}

    def tiles(self, parts: Mapping[str, np.ndarray], layout: Layout) -> list[np.ndarray]:
        """The whole image, which the family cuts into patches."""
        if layout.enlarged:
            picture = Image.fromarray(np.asarray(parts["picture"]))
            return [np.asarray(picture.resize(layout.canvas, pixels.BICUBIC))]
        return [np.asarray(parts["canvas"])]
