"""Image policies: how an image becomes the encoder inputs of a model family.

A policy is arithmetic first (`layout`), pixels second (`render`), and the inverse that the trainer needs (`tiles`).
POLICIES names them for recipes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


class Unrenderable(Exception):  # noqa: N818 - a verdict about an image, not a programming error
    """The policy has no answer for an image of this size; the message says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What becomes of one image, by arithmetic alone. Sizes are (width, height) in pixels."""

    size: tuple[int, int]  # of the original, after EXIF rotation
    canvas: tuple[int, int]  # of the main stored picture
    grid: tuple[int, int]  # (rows, columns) of tiles on the canvas; (1, 1) for single-tile policies
    tiles: int  # encoder inputs, the overview included
    tokens: int  # placeholder tokens in the text


class Policy(Protocol):
    """A frozen dataclass; equal fields mean equal pixels and equal tokens."""

    kind: ClassVar[str]
    version: ClassVar[int]

    def layout(self, sizes: Sequence[tuple[int, int]]) -> tuple[Layout, ...]:
        """Layouts of all images of one sample, in order (a layout may depend on how many there are). Raises Unrenderable."""
        ...

    def render(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        """The pictures to store, by part name (`canvas`, `overview`), from an RGB image of `layout.size`."""
        ...

    def tiles(self, parts: Mapping[str, Image.Image], layout: Layout) -> np.ndarray:
        """Encoder inputs (layout.tiles, side, side, 3) uint8 from the stored parts, in the order the model class wants."""
        ...

    def encode(self, part: str, picture: Image.Image) -> tuple[str, bytes]:
        """File extension and bytes of a stored part; a function of the pixels and of Pillow's version alone."""
        ...
