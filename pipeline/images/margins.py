"""Uniform margins of a picture: what borders, padding and paper add around what it shows. Pure.

Copies of a picture get other margins, so pictures are compared by what lies within.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 512
"""Most pixels of the longer side at which margins are looked for."""
ROUNDS = 4
"""Margins within margins: a black border around a page of white paper, around a dark one."""
SPECKS = 0.01
"""Share of a line of pixels that may differ: dust of a scan."""
TOLERANCE = (3.0, 5.0)
"""Levels by which a line may differ from the margin: a share of the contrast of what is left, within these bounds."""
OF_CONTRAST = 0.2
"""That share. As it goes with contrast, a paler copy has the same margins, and so has one in a black border."""
LEAST = 0.08
"""Share of the picture's area that has to be left: what is smaller is a shape on a ground, and the ground counts."""
FLAT = 4.0
"""Standard deviation that has to be left: a plain rectangle on a ground is not what the picture shows."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, as Pillow's `crop` takes them."""


def find_content(luminance: Image.Image) -> Box:
    """What is left of a picture of mode L without its margins; all of it where hardly anything would be left."""
    factor = -(-max(luminance.size) // SIDE)
    pixels = np.asarray(luminance.reduce(factor) if factor > 1 else luminance, np.int16)
    low, high = TOLERANCE
    box, spread = (0, pixels.shape[0], 0, pixels.shape[1]), float(pixels.std())
    for _ in range(ROUNDS):
        inner = _trim_box(pixels, box, min(high, max(low, OF_CONTRAST * spread)))
        shown = pixels[inner[0] : inner[1], inner[2] : inner[3]]
        if inner == box or shown.size < LEAST * pixels.size or shown.std() < FLAT:
            break
        box, spread = inner, float(shown.std())
    top, bottom, left, right = (edge * factor for edge in box)
    return left, top, min(right, luminance.width), min(bottom, luminance.height)


def _trim_box(pixels: NDArray[np.int16], box: tuple[int, int, int, int], tolerance: float) -> tuple[int, int, int, int]:
    """The box (top, bottom, left, right) without the margins at its four sides, each of one tone."""
    top, bottom, left, right = box
    inside = pixels[top:bottom, left:right]
    first, last = _count_lines(inside, tolerance), _count_lines(inside[::-1], tolerance)
    if first + last >= bottom - top:
        return box
    inside = inside[first : bottom - top - last].T
    start, stop = _count_lines(inside, tolerance), _count_lines(inside[::-1], tolerance)
    if start + stop >= right - left:
        return box
    return top + first, bottom - last, left + start, right - stop


def _count_lines(pixels: NDArray[Any], tolerance: float) -> int:
    """How many of the first rows have the tone of the first one. Most pictures have few: no more are looked at."""
    tone, start, size = np.median(pixels[0]), 0, 8
    while start < len(pixels):
        differing = np.abs(pixels[start : start + size] - tone) > tolerance
        plain = differing.mean(axis=1) <= SPECKS
        if not plain.all():
            return start + int(plain.argmin())
        start, size = start + size, 2 * size
    return len(pixels)
