"""Raw patches: the image in its own pixels, shrunk only where it is larger than a bound, in whole patches (Fuyu)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.images.places import ShowsWholeImage
from vlmill.pipeline.images.policy import Layout, Quality, Side, Size, Unrenderable, check_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PADDING = 1
"""What fills the last patches: the processor's padding value of 1.0, which it writes before it scales pixels by 255."""

Bound = Annotated[int, Field(ge=1, le=16_383)]
"""Pixels of a side; 16,383 is the most that WebP holds."""


@dataclass(frozen=True, config=STRICT)
class Patches(ShowsWholeImage):
    """`FuyuImageProcessorPil`, whose patches reach the language model without a vision tower.

    An image within `width` x `height` keeps every pixel; a larger one is shrunk to fit (bilinear). Below and to the
    right it is filled up to whole patches. A row of patches is a line of text: what ends it is the chat format's to
    write, so `Layout.grid` has rows and columns of patches.
    """

    kind: ClassVar[str] = "patches"
    version: ClassVar[int] = 1

    width: Bound = 1920  # of the largest image, in pixels; a larger one is shrunk
    height: Bound = 1080  # of the largest image, in pixels; a larger one is shrunk
    patch: Side = 30  # pixels of a side; each patch is one visual token
    quality: Quality = None  # of the JPEG that is stored, as Pillow counts; None: without loss

    def __post_init__(self) -> None:
        """Refuse bounds that are no whole patches, in which the processor could not cut the largest images."""
        for name in ("width", "height"):
            if (bound := getattr(self, name)) % self.patch:
                raise ValueError(
                    f"{name} is {bound}, no multiple of patch ({self.patch}); take "
                    f"{max(self.patch, bound - bound % self.patch)}"
                )

    def layout(self, sizes: Sequence[Size]) -> tuple[Layout, ...]:
        """One input per image. Unrenderable where nothing of the shorter side would be left."""
        return tuple(self._layout(check_size(size)) for size in sizes)

    def _layout(self, size: Size) -> Layout:
        canvas = self._shrunk(size)
        if not min(canvas):
            raise Unrenderable(
                f"{size[0]} x {size[1]} px, shrunk to fit into {self.width} x {self.height} px, would have no pixel of "
                "its shorter side left"
            )
        columns, rows = (-(-side // self.patch) for side in canvas)
        return Layout(size, canvas, (rows, columns), 1, rows * columns)

    def _shrunk(self, size: Size) -> Size:
        """The arithmetic of the processor's `resize`, rounding included."""
        width, height = size
        if width <= self.width and height <= self.height:
            return size
        scale = min(self.height / height, self.width / width)
        return int(width * scale), int(height * scale)

    def render(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        """`canvas`: the image without what fills the last patches."""
        if image.size == layout.canvas:
            return {"canvas": image}
        return {"canvas": image.resize(layout.canvas, Image.Resampling.BILINEAR)}

    def tiles(self, parts: Mapping[str, np.ndarray], layout: Layout) -> list[np.ndarray]:
        """The whole image in whole patches, into which the family cuts it."""
        (rows, columns), canvas = layout.grid, np.asarray(parts["canvas"])
        down, across = rows * self.patch - canvas.shape[0], columns * self.patch - canvas.shape[1]
        return [np.pad(canvas, ((0, down), (0, across), (0, 0)), constant_values=PADDING)]
