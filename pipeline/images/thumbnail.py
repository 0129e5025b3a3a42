"""Thumbnails by which pictures are compared: what a picture shows within its margins, and what these look like.

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
QUALITY = 80
"""Of its JPEG: 3.4 KB on average, 8.5 at most; at 60 fine text loses a third of its contrast."""
SMALL = 32
"""Pixels of the side at which most pairs of pictures are given up."""

MARGINS = np.dtype([("box", "<i4", (4,)), ("size", "<i4", (2,)), ("tones", "u1", (4, 3))])
"""The box (top, bottom, left, right) of what lies within the margins, in pixels; height and width of the picture; and
the mean colour (Y, Cb, Cr) above, below, left and right of the box."""


def make_thumbnail(picture: Image.Image, luminance: Image.Image) -> tuple[bytes, bytes]:
    """A JPEG of SIDE x SIDE pixels of what an RGB picture shows within its margins, and a record of MARGINS. Pure.

    Args:
        picture: In RGB.
        luminance: The same in L.
    """
    left, top, right, bottom = box = find_content(luminance)
    margins = np.zeros((), MARGINS)
    margins["box"], margins["size"] = (top, bottom, left, right), (picture.height, picture.width)
    outside = (
        (0, 0, picture.width, top),
        (0, bottom, picture.width, picture.height),
        (0, top, left, bottom),
        (right, top, picture.width, bottom),
    )
    for side, margin in enumerate(outside):
        if margin[0] < margin[2] and margin[1] < margin[3]:
            tone = picture.resize((1, 1), Image.Resampling.BOX, margin).convert("YCbCr")
            margins["tones"][side] = np.asarray(tone)[0, 0]
    file = io.BytesIO()
    picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box).save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue(), margins.tobytes()


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


def read_margins(margins: bytes) -> NDArray[np.void]:
    """A record of MARGINS. Raises ValueError where it is none, or its box does not lie in the picture."""
    found = np.frombuffer(margins, MARGINS)
    if found.size != 1:
        raise ValueError(f"margins of {len(margins)} bytes; expected {MARGINS.itemsize}")
    (top, bottom, left, right), (height, width) = found[0]["box"].tolist(), found[0]["size"].tolist()
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ValueError(f"a box {found[0]['box'].tolist()} that does not lie in {found[0]['size'].tolist()}")
    record: NDArray[np.void] = found[0]
    return record
