"""Pictures on disk: each scene looks unlike all others, and each file format has its turn.

A duplicate in the quickstart data is one that was planted: the album draws a scene again until it looks unlike all
pictures so far.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tools.quickstart.scenes import (
    INDEX,
    TONES,
    Layout,
    Scene,
    imagine,
    paint,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SEED = "vlmill quickstart"
ALIKE = 0.8
"""Correlation of luminance from which two pictures count as alike, at the best of the small shifts that `views`
tries."""

SIDE, SHIFTS, NORM = 16, 5, 254
"""Of the views: pixels of a side, positions along each axis, and length as a vector. Whole numbers, so that sums are
exact."""

ORIENTATION, ROTATED = 0x0112, 6
"""EXIF's tag, and its value for a picture that has to be turned by 90 degrees to stand upright."""

USUAL = ("png", "png", "webp", "png", "jpeg", "png", "gif", "png", "lossy webp", "png")
"""The forms of most files, in the order in which they take turns."""


class Album:
    """Hands out scenes that have not been seen before."""

    def __init__(self) -> None:
        self.seen = np.zeros((0, SIDE * SIDE), np.float32)  # the unshifted view of every picture
        self.drawn = Counter[Layout]()

    def scene(self, layout: Layout, **fixed: Any) -> Scene:
        """The next scene of a layout, with some of its fields (such as `tone`) fixed."""
        number = self.drawn[layout]
        self.drawn[layout] += 1
        for attempt in range(1000):
            scene = replace(imagine(number, Random(f"{SEED}/{layout}/{number}/{attempt}"), layout), **fixed)
            if self.add(paint(scene)):
                return scene
        raise RuntimeError(f"no {layout} scene {number} looks unlike all pictures before it in 1000 attempts")

    def add(self, image: Image.Image) -> bool:
        """Whether the picture looks unlike all others; if so it is one of them from now on."""
        new = views(image)
        if (self.seen @ new.T).max(initial=0) >= ALIKE * NORM**2:
            return False
        self.seen = np.concatenate([self.seen, new[[len(new) // 2]]])
        return True


def views(image: Image.Image) -> np.ndarray:
    """What a picture looks like through a window at small shifts.

    (shifts, pixels) of whole numbers, mean 0 and length NORM.

    The window spans four fifths of the width and height; the product of two views is the correlation of what they show.
    """
    side = SIDE + SHIFTS - 1
    pixels = np.asarray(image.convert("RGB").convert("L").resize((side, side), Image.Resampling.BOX), dtype=np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (SIDE, SIDE)).reshape(-1, SIDE * SIDE)
    centred = windows - windows.mean(axis=1, keepdims=True)
    length = np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1)
    scaled: np.ndarray = (NORM * centred / length).round().astype(np.float32)
    return scaled


Written = tuple[Image.Image, dict[str, Any]]
"""A picture as it is to be saved, and how."""

PNG, GIF = {"format": "PNG", "optimize": True}, {"format": "GIF"}
JPEG, WEBP = {"format": "JPEG", "quality": 70}, {"format": "WEBP"}

FORMS: Mapping[str, Callable[[Image.Image], Written]] = {
    "png": lambda image: (image, PNG),
    "transparent png": lambda image: (_see_through(image), {**PNG, "transparency": INDEX["white"]}),
    "rgba png": lambda image: (_alpha(image), PNG),
    "grey png": lambda image: (image.convert("RGB").convert("L"), PNG),
    "gif": lambda image: (image, GIF),
    "animated gif": lambda image: (
        image,
        {**GIF, "save_all": True, "duration": 300, "append_images": [_turned(image)]},
    ),
    "webp": lambda image: (image.convert("RGB"), {**WEBP, "lossless": True}),
    "lossy webp": lambda image: (image.convert("RGB"), {**WEBP, "quality": 60}),
    "jpeg": lambda image: (image.convert("RGB"), JPEG),
    "progressive jpeg": lambda image: (image.convert("RGB"), {**JPEG, "progressive": True}),
    "rotated jpeg": lambda image: (
        image.convert("RGB").transpose(Image.Transpose.ROTATE_90),
        {**JPEG, "exif": _exif()},
    ),
    "cmyk jpeg": lambda image: (image.convert("RGB").convert("CMYK"), JPEG),
}
"""Every kind of file that the data hold."""


def encode(image: Image.Image, form: str) -> bytes:
    """The picture as a file of a kind that FORMS names."""
    picture, options = FORMS[form](image)
    file = io.BytesIO()
    picture.save(file, **options)
    return file.getvalue()


def suffix(form: str) -> str:
    """The ending that a file of this form has: png, jpg, webp or gif."""
    kind = form.rpartition(" ")[2]
    return {"jpeg": "jpg"}.get(kind, kind)


def _turned(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.ROTATE_180)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = ROTATED
    return exif


def _see_through(image: Image.Image) -> Image.Image:
    """White becomes an entry whose colour is black: whoever ignores the transparency gets a black background."""
    palette = list(image.getpalette() or [])
    start = 3 * INDEX["white"]
    palette[start : start + 3] = TONES["black"]
    copy = image.copy()
    copy.putpalette(palette)
    return copy


def _alpha(image: Image.Image) -> Image.Image:
    """The same for RGBA: white pixels become fully transparent black ones."""
    white = image.point([255 if index == INDEX["white"] else 0 for index in range(256)], "L")
    picture = image.convert("RGBA")
    picture.paste((0, 0, 0, 0), mask=white)
    return picture
