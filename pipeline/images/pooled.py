"""Pooled: the whole image in one square whose patches are averaged in groups, its aspect ratio lost (Gemma 3)."""

from __future__ import annotations

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
class Pooled(ShowsWholeImage):
    """One bilinear resize to a square: `Gemma3ImageProcessorPil` without pan and scan.

    Stored is the square, or of a small image the image itself (`Layout.enlarged`).
    """

    kind: ClassVar[str] = "pooled"
    version: ClassVar[int] = 1

    side: Side = 896  # pixels of a side of the encoder's input
    patch: Side = 14  # pixels of a side of the encoder's patches
    pool: Annotated[int, Field(ge=1, le=64)] = 4  # one visual token is the average of this many squared patches
    quality: Quality = None  # of the JPEG that is stored, as Pillow counts; None: without loss

    def __post_init__(self) -> None:
        """Refuse a pool that does not divide the patches of a side."""
        if self.side // self.patch % self.pool:
            raise ValueError(
                f"pool: {self.pool} x {self.pool} patches become one token, and a side of {self.side} px has "
                f"{self.side // self.patch} patches of {self.patch} px"
            )

    def layout(self, sizes: Sequence[Size]) -> tuple[Layout, ...]:
        """One tile per image."""
        tokens = (self.side // self.patch // self.pool) ** 2
        return tuple(Layout(check_size(size), (self.side, self.side), (1, 1), 1, tokens) for size in sizes)

    def render(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        """`canvas`: the square; or `picture`."""
        return {"picture": image} if layout.enlarged else {"canvas": image.resize(layout.canvas, pixels.BILINEAR)}

    def tiles(self, parts: Mapping[str, np.ndarray], layout: Layout) -> list[np.ndarray]:
        """The square."""
        if layout.enlarged:
            picture = Image.fromarray(np.asarray(parts["picture"]))
            return [np.asarray(picture.resize(layout.canvas, pixels.BILINEAR))]
        return [np.asarray(parts["canvas"])]
