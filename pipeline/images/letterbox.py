"""Letterbox: the whole image in one square, padded with a flat colour (LLaVA 1.5, Prismatic)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.images import pixels
from vlmill.pipeline.images.places import place_in_square
from vlmill.pipeline.images.policy import Channel, Layout, Point, Quality, Side, Size, check_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from PIL import Image


@dataclass(frozen=True, config=STRICT)
class Letterbox:
    """Expand to a centred square, then resize it (bicubic): `LlavaImageProcessorPil` with `do_pad`.

    Stored is only the band of the square that the image can reach; the rest is `fill`.
    """

    kind: ClassVar[str] = "letterbox"
    version: ClassVar[int] = 1

    side: Side = 384  # pixels of a side of the encoder's input
    patch: Side = 14  # of the encoder; visual tokens are (side // patch) ** 2, a CLS token is not among them
    fill: tuple[Channel, Channel, Channel] = (127, 127, 127)  # int(255 * mean): SigLIP's; CLIP's is (122, 116, 104)
    quality: Quality = None  # of the JPEG that is stored, as Pillow counts; None: without loss

    def layout(self, sizes: Sequence[Size]) -> tuple[Layout, ...]:
        """One tile per image; the canvas is the stored band."""
        return tuple(self._layout(check_size(size)) for size in sizes)

    def _layout(self, size: Size) -> Layout:
        left, top, right, bottom = pixels.get_letterbox_box(size, self.side)
        return Layout(size, (right - left, bottom - top), (1, 1), 1, (self.side // self.patch) ** 2)

    def render(self, image: Image.Image, layout: Layout) -> Mapping[str, Image.Image]:
        """`canvas`: the band."""
        square = pixels.letterbox_image(image, self.side, self.fill)
        return {"canvas": square.crop(pixels.get_letterbox_box(layout.size, self.side))}

    def tiles(self, parts: Mapping[str, np.ndarray], layout: Layout) -> list[np.ndarray]:
        """The square."""
        return [pixels.restore_letterbox(parts["canvas"], layout.size, self.side, self.fill)]

    def view(self, layout: Layout) -> Size:  # noqa: ARG002
        """The square, padding included."""
        return self.side, self.side

    def place(self, point: Point, layout: Layout) -> Point:
        """A point in the square. Pure."""
        return place_in_square(point, layout.size, self.side)
