"""From bytes as they came to an upright RGB picture: the one decoder of the pipeline.

The result equals what transformers' image processors make of the same file (`convert_to_rgb` in `image_transforms`,
5.21 and later: transparency composited on white) after EXIF rotation. Two kinds of pictures differ on purpose. 16-bit
grey keeps the highest 8 of the bits that it uses, where `convert` would turn all above 255 white. 32-bit and float
pixels are refused: they have no agreed white.

What a small file may cost is bounded by counts that stand in its headers: pixels, sides, scans. They are the same on
every machine. What no header tells is for whoever calls this in a child process with limits of memory and time.
"""

from __future__ import annotations

import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vlmill.pipeline.core.reasons import Reason

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors about files go to standard error

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000")
"""What browsers show and scanners write. Pillow's other 35 readers stay shut: some start programs (EPS, WMF), many are
seldom used and seldom tested, and icons, fonts and textures are no pictures to learn from."""

MAX_PIXELS = 89_478_485
"""Pillow's own limit for a warning: 0.25 GB as RGB."""

MAX_SIDE = 65_535
"""The longest side that a JPEG can have. Pillow's tables for scaling grow with the side: at 89,000,000 x 1 pixels they
take 4.6 GB."""

MAX_SCANS = 100
"""Of one JPEG, as libtiff allows them. Encoders write about 10; each costs a pass over all pixels, for 31 bytes."""

MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The next marker behind entropy-coded data, where 0xff stands before 0 and between restarts (ITU T.81, B.1.1)."""

LONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a segment: TEM, restarts, start of image."""

END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that sensors and scanners have. Files say 16 for all of them, and few state which of these they use."""


class Undecodable(Exception):  # noqa: N818 - a verdict about an image, not a programming error
    """No picture can be had from these bytes: `reason` is UNDECODABLE, TOO_MANY_PIXELS or TOO_MANY_SCANS."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in `data`: RGB, upright, its first frame; pure.

    Only headers are read before pixels, sides and scans are counted.

    Args:
        data: A whole file. One that ends early is refused, not filled up.
        max_pixels: Limit of width x height. Pillow refuses more than 178,956,970 whatever stands here.

    Raises:
        Undecodable: with the reason and what the decoder said.
    """
    return to_rgb(open_image(data, max_pixels))


def open_image(data: bytes, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """The image behind a header, its pixels not yet decoded. Raises Undecodable."""
    if (canvas := read_webp_size(data)) is not None:
        check_size(canvas, max_pixels)  # Pillow's reader makes room for two canvases before it tells their size
    with _read_errors():
        image = Image.open(io.BytesIO(data), formats=formats)
    check_pixels(image, max_pixels)
    if image.format in {"JPEG", "MPO"} and count_scans(data, MAX_SCANS) > MAX_SCANS:
        raise Undecodable(Reason.TOO_MANY_SCANS, f"more than {MAX_SCANS} scans")
    return image


def check_pixels(image: Image.Image, max_pixels: int) -> None:
    """Raise Undecodable if the image, or the frame it stands at, is longer than MAX_SIDE or has too many pixels."""
    check_size(image.size, max_pixels)


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raise Undecodable for a width and height above MAX_SIDE, or of more than `max_pixels` together."""
    width, height = size
    if width * height > max_pixels:
        raise Undecodable(Reason.TOO_MANY_PIXELS, f"{width} x {height} pixels, allowed {max_pixels}")
    if max(width, height) > MAX_SIDE:
        raise Undecodable(Reason.TOO_MANY_PIXELS, f"{width} x {height} pixels, allowed {MAX_SIDE} on a side")


def read_webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels as the first chunk of a WebP says (RFC 9649, 2.5 to 2.7); None for anything else."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 25:
        return None
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF


def count_scans(data: bytes, most: int) -> int:
    """The scans of a JPEG up to its end of image, but `most` + 1 where there are more; pure.

    Segments are skipped, since a thumbnail in them has scans of its own. ITU T.81, B.1 and B.2.
    """
    if data.count(bytes((0xFF, START_OF_SCAN))) <= most:  # most files; a walk takes longer
        return data.count(bytes((0xFF, START_OF_SCAN)))
    place, scans = 0, 0
    while scans <= most and (found := MARKER.search(data, place)):
        marker, place = data[found.end() - 1], found.end()
        if marker == END_OF_IMAGE:
            break
        if marker not in LONE:
            place += int.from_bytes(data[place : place + 2], "big")
        scans += marker == START_OF_SCAN
    return scans


def count_frames(image: Image.Image) -> int:
    """How many frames an opened image has; 1 where the format knows no more. Raises Undecodable."""
    with _read_errors():
        return int(getattr(image, "n_frames", 1))


def to_rgb(image: Image.Image) -> Image.Image:
    """The pixels of an opened image: RGB, upright, transparency on white. Raises Undecodable."""
    with _read_errors():
        with _mute_libtiff() if image.format == "TIFF" else nullcontext():
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
    return ImageOps.exif_transpose(image) if read_orientation(image) != 1 else image


def read_orientation(image: Image.Image) -> int:
    """How an opened image is to be turned as its EXIF says: 1 to 8, and 1 (not at all) where that is broken."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001 - Pillow's EXIF parser raises whatever it runs into
        orientation = 1
    return int(orientation) if orientation in range(2, 9) else 1


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
def _mute_libtiff() -> Iterator[None]:
    """Keep from the terminal what libtiff writes to standard error about a file; Pillow has no handle to stop it."""
    try:
        kept = os.dup(2)
    except OSError:  # closed, so nothing is shown anyway
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


@contextmanager
def _read_errors() -> Iterator[None]:
    """Turn whatever a decoder raises over its input into Undecodable; a lack of memory is the machine's trouble.

    Warnings about files from anywhere are no news for people: what matters of them is in the image's stats.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (Undecodable, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Undecodable(Reason.TOO_MANY_PIXELS, str(error)) from error
    except UnidentifiedImageError as error:
        raise Undecodable(Reason.UNDECODABLE, "in no format that is read here") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, IndexError and more
        raise Undecodable(Reason.UNDECODABLE, f"{type(error).__name__}: {error}") from error
