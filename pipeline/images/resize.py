"""Resize: the whole image in one square, its aspect ratio lost (SigLIP)."""

from __future__ import annotations

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


@dataclass(frozen=True, config=STRICT)
class Resize(ShowsWholeImage):
    """One bicubic resize to a square: `SiglipImageProcessorPil`."""

    kind: ClassVar[str] = "resize"
    version: ClassVar[int] = 1

    side: Side = 384  # pixels of a side of the encoder's input
    patch: Side = 14  # pixels of a side of the encoder's patches
    whole: bool = False  # one placeholder an image, not one a patch, for models that look by cross-attention (Idefics)
    quality: Quality = None  # of the JPEG that is stored, as Pillow counts; None: without loss

    def layout(self, sizes: Sequence[Size]) -> tuple[Layout, ...]:
        """One tile per image."""
        tokens = 1 if self.whole else (self.side // self.patch) ** 2
        return tuple(Layout(check_size(size), (self.side, self.side), (1, 1), 1, tokens) for size in sizes)

    def render(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        """`canvas`: the square."""
        return {"canvas": image.resize(layout.canvas, pixels.BICUBIC)}

    def tiles(self, parts: Mapping[str, np.ndarray], layout: Layout) -> list[np.ndarray]:  # noqa: ARG002
        """The square."""
        return [np.asarray(parts["canvas"])]
