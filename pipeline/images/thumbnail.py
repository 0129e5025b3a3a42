"""Thumbnails by which pictures are compared: of the whole, and of what lies within its margins.

Made once per image by step `image_stats`, read by dedupe and decontamination, which never decode an image again.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmill.pipeline.images.margins import find_content

SIDE = 128
"""Pixels of a thumbnail's side. At 64, receipts of one shop cannot be distinguished from halved copies."""
QUALITY = 75
"""Of its JPEG: 3 KB on average; at 60 fine text loses a third of its contrast."""
SMALL = 32
"""Pixels of the side at which most pairs of pictures are given up."""
EDGES = np.dtype(("<i4", (4,)))
"""Pixels of the margins above, below, left and right."""


def make_thumbnails(picture: Image.Image, luminance: Image.Image) -> tuple[bytes, bytes, bytes]:
    """Thumbnails of an RGB picture and of what lies within its margins, and the EDGES; nothing where it has none. Pure.

    Args:
        picture: In RGB.
        luminance: The same in L.
    """
    whole = _make_thumbnail(picture, (0, 0, *picture.size))
    left, top, right, bottom = box = find_content(luminance)
    if box == (0, 0, *picture.size):
        return whole, b"", b""
    edges = np.array([top, picture.height - bottom, left, picture.width - right], "<i4")
    return whole, _make_thumbnail(picture, box), edges.tobytes()


def _make_thumbnail(picture: Image.Image, box: tuple[int, int, int, int]) -> bytes:
    file = io.BytesIO()
    picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box).save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def read_thumbnail(thumbnail: bytes) -> NDArray[np.uint8]:
    """(SIDE, SIDE, 3): its pixels as Y, Cb, Cr. Raises ValueError where it is none."""
    try:
        with Image.open(io.BytesIO(thumbnail), formats=("JPEG",)) as opened:
            opened.draft("YCbCr", None)
            pixels = np.asarray(opened)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"a thumbnail that is no JPEG: {error}") from error
    if pixels.shape != (SIDE, SIDE, 3):
        raise ValueError(f"a thumbnail of shape {pixels.shape}; expected {(SIDE, SIDE, 3)}")
    return pixels


def check_thumbnails(thumbnail: bytes, content: bytes, margins: bytes, size: tuple[int, int]) -> None:
    """Raise ValueError where these are not thumbnails of a picture of this width and height, and its margins."""
    read_thumbnail(thumbnail)
    if content or margins:
        read_thumbnail(content)
        top, bottom, left, right = read_edges(margins)
        if min(top, bottom, left, right) < 0 or left + right >= size[0] or top + bottom >= size[1]:
            raise ValueError(f"margins of {(top, bottom, left, right)} pixels, of {size[0]} x {size[1]}")


def read_edges(margins: bytes) -> tuple[int, int, int, int]:
    """The margins above, below, left and right, in pixels. Raises ValueError where there are not four numbers."""
    if not margins:
        return 0, 0, 0, 0
    if len(margins) != EDGES.itemsize:
        raise ValueError(f"margins of {len(margins)} bytes; expected {EDGES.itemsize}")
    top, bottom, left, right = np.frombuffer(margins, "<i4").tolist()
    return top, bottom, left, right
