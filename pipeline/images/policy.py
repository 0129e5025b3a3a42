"""What an image policy is: arithmetic first, pixels second, and the inverse that the trainer needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol

from pydantic import Field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from PIL import Image

Size = tuple[int, int]
"""(width, height) in pixels, as Pillow has it."""

Point = tuple[float, float]
"""(x, y) in pixels from the upper left corner of a picture, as pipeline/images/places.py says."""

Quality = Annotated[int, Field(ge=1, le=100)] | None
"""Of JPEG, as Pillow counts; None stores without loss."""

Side = Annotated[int, Field(ge=1, le=16_384)]
"""Of an encoder's input or its patches, in pixels; a number of tiles or tokens."""

Channel = Annotated[int, Field(ge=0, le=255)]
"""Red, green or blue of a flat colour."""

LONGEST = 65_535
"""The longest side that policies take, JPEG's own limit: it bounds the strips that resizing holds in memory."""


class Unrenderable(Exception):  # noqa: N818 - a verdict about an image, not a programming error
    """The policy has no answer for an image of this size; the message says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of one image, by arithmetic alone. Sizes are (width, height) in pixels."""

    size: Size  # of the original, after EXIF rotation
    canvas: Size  # of the picture that the tiles are cut from, without its padding
    grid: tuple[int, int]  # (rows, columns) of tiles on the canvas; (1, 1) for single-tile policies; of Fuyu's patches
    tiles: int  # encoder inputs, the overview included
    tokens: int  # placeholders that the model class replaces by visual tokens; what a chat format puts around is text
    overview: int | None = None  # which encoder input shows the whole image, where others show parts of it

    @property
    def enlarged(self) -> bool:
        """Whether the canvas has at least four times the image's pixels, and no shorter long side.

        Then a policy of large canvases stores the image itself as `picture`, and draws it when it is loaded: from about
        there on the image is decoded and resized in less time than its canvas is decoded, and has a quarter of the
        bytes or less.
        """
        (width, height), (across, down) = self.size, self.canvas
        return 4 * width * height <= across * down and max(width, height) <= max(across, down)


class Policy(Protocol):
    """A frozen dataclass; equal fields mean equal pixels and equal tokens."""

    kind: ClassVar[str]
    version: ClassVar[int]  # raised whenever equal fields give other pixels, tokens or parts

    @property
    def quality(self) -> Quality:
        """How `pixels.encode_image` stores the parts."""
        ...

    def layout(self, sizes: Sequence[Size]) -> tuple[Layout, ...]:
        """Layouts of all images of one sample, in order (a layout may depend on how many there are). Pure.

        Raises:
            Unrenderable: one of the sizes has no answer, whatever the others are.
        """
        ...

    def render(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        """The pictures to store, by part name (`canvas`, `overview`; `picture`), from an RGB image of `layout.size`.

        Pure.
        """
        ...

    def tiles(self, parts: Mapping[str, np.ndarray], layout: Layout) -> list[np.ndarray]:
        """Encoder inputs from the stored parts, decoded: `layout.tiles` arrays (height, width, 3) of uint8. Pure.

        They stand in the order that the model class wants and may be views of one array. All have one shape, except
        under a policy that keeps aspect ratios (NaViT).
        """
        ...

    def view(self, layout: Layout) -> Size:
        """The size in pixels of the one rectangle in which the model sees the image, or what is left of it. Pure."""
        ...

    def place(self, point: Point, layout: Layout) -> Point:
        """Where a point of the image, in pixels of `layout.size`, lies in the view, in pixels of `view`. Pure.

        Outside of the view where the policy cuts it away.
        """
        ...


def check_size(size: Size) -> Size:
    """`size` as it is, or Unrenderable where a side is longer than LONGEST."""
    if max(size) > LONGEST:
        raise Unrenderable(f"{size[0]} x {size[1]} px: no side may be longer than {LONGEST} px")
    return size
