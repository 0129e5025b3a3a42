"""From bytes as they came to an upright RGB picture: the one decoder of the pipeline.

The result equals what transformers' image processors make of the same file (`convert_to_rgb` in `image_transforms`,
5.21 and later: transparency composited on white) after EXIF rotation. Two kinds of pictures differ on purpose. 16-bit
grey keeps the highest 8 of the bits that it uses, where `convert` would turn all above 255 white. 32-bit and float
pixels are refused: they have no agreed white.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vlmill.pipeline.core.reasons import Reason

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000")
"""What browsers show and scanners write. Pillow's other 35 readers stay shut: some start programs (EPS, WMF), many are
seldom used and seldom tested, and icons, fonts and textures are no pictures to learn from."""

MAX_PIXELS = 89_478_485
"""Pillow's own limit for a warning: 0.25 GB as RGB."""

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that sensors and scanners have. Files say 16 for all of them, and few state which of these they use."""


class Undecodable(Exception):  # noqa: N818 - a verdict about an image, not a programming error
    """No picture can be had from these bytes: `reason` is UNDECODABLE or TOO_MANY_PIXELS."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in `data`: RGB, upright, its first frame; pure.

    Only the header is read before the pixels are counted.

    Args:
        data: A whole file. One that ends early is refused, not filled up.
        max_pixels: Limit of width x height. Pillow refuses more than 178,956,970 whatever stands here.

    Raises:
        Undecodable: with the reason and what the decoder said.
    """
    return to_rgb(open_image(data, max_pixels))


def open_image(data: bytes, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """The image behind a header, its pixels not yet decoded. Raises Undecodable."""
    with _read_errors():
        image = Image.open(io.BytesIO(data), formats=formats)
    check_pixels(image, max_pixels)
    return image


def check_pixels(image: Image.Image, max_pixels: int) -> None:
    """Raise Undecodable if the image, or the frame it stands at, has more than `max_pixels`."""
    if image.width * image.height > max_pixels:
        raise Undecodable(Reason.TOO_MANY_PIXELS, f"{image.width} x {image.height} pixels, allowed {max_pixels}")


def count_frames(image: Image.Image) -> int:
    """How many frames an opened image has; 1 where the format knows no more. Raises Undecodable."""
    with _read_errors():
        return int(getattr(image, "n_frames", 1))


def to_rgb(image: Image.Image) -> Image.Image:
    """The pixels of an opened image: RGB, upright, transparency on white. Raises Undecodable."""
    with _read_errors():
        image.load()
        image = _turn_upright(image)
        if image.mode.startswith("I;16"):
            return _convert_to_eight_bits(image)
        if image.mode in {"I", "F"}:
            raise Undecodable(Reason.UNDECODABLE, f"mode {image.mode} has no agreed white")
        if "A" in image.getbands() or image.info.get("transparency") is not None:
            return _composite_on_white(image.convert("RGBA"))
        return image.convert("RGB")


def _turn_upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF says.

    Broken EXIF turns nothing, as in browsers: it is no reason to lose the pixels.
    """
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001 - Pillow's EXIF parser raises whatever it runs into
        orientation = 1
    return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image


def _composite_on_white(image: Image.Image) -> Image.Image:
    """An RGBA image composited on white."""
    if image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")  # the same pixels, sooner
    return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")


def _convert_to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8 bits; the one transparent level that PNG allows becomes white.

    White is the highest level of the smallest of DEPTHS that holds all levels: 12-bit data read as 16-bit ones would be
    nearly black. At 16 bits this is the high byte, as Pillow itself reads 16-bit RGB and libpng strips to 8 bits; at 8
    bits, what `convert` does.
    """
    pixels = np.asarray(image)
    depth = next(depth for depth in DEPTHS if int(pixels.max()) < 1 << depth)
    grey = (pixels >> (depth - 8)).astype(np.uint8)
    if (level := image.info.get("transparency")) is not None:
        grey[pixels == level] = 255
    return Image.fromarray(grey).convert("RGB")


@contextmanager
def _read_errors() -> Iterator[None]:
    """Turn whatever a decoder raises over its input into Undecodable; a lack of memory is the machine's trouble."""
    try:
        yield
    except (Undecodable, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Undecodable(Reason.TOO_MANY_PIXELS, str(error)) from error
    except UnidentifiedImageError as error:
        raise Undecodable(Reason.UNDECODABLE, "in no format that is read here") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, IndexError and more
        raise Undecodable(Reason.UNDECODABLE, f"{type(error).__name__}: {error}") from error
