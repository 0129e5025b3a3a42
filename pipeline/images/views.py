"""How pictures reach a model that scores them: one size for all, as its own processor would make it.

A view is arithmetic and Pillow's resize alone, so that CPU tasks make it without the model's libraries. The step
`score` draws each image once under every view that the recipe's signals ask for.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images.policy import Size, Unrenderable, check_size

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"

MOST_PIXELS = 1 << 26
"""Of the resized image, before a crop throws most of it away: 256 MB, as the policy `crop` has it."""

RESAMPLES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, which preprocessor_config.json holds. Box and Hamming, 4 and 5, are used by no model known here."""


@dataclass(frozen=True)
class View:
    """A square of uint8 pixels that a model looks at."""

    side: int  # pixels of the square
    shorter: int | None = None  # the shorter side is resized to it and the centre cropped; None: the whole is squashed
    resample: int = 3  # one of RESAMPLES
    squash: int | None = None  # the whole is squashed to this side and the centre cropped; None: to `side` itself
    jpeg: int | None = None  # quality of a JPEG that the picture goes through before the crop

    def draw(self, image: Image.Image) -> np.ndarray:
        """The square (side, side, 3) of an RGB image; pure.

        Resize and crop are those of transformers' Pillow processors (`resize`, `get_resize_output_image_size`,
        `center_crop` in image_transforms).

        Raises:
            Unrenderable: the image is too long for it.
        """
        how = Image.Resampling(self.resample)
        square = self.squash or self.side
        width, height = (square, square) if self.shorter is None else self._resize(check_size(image.size), self.shorter)
        left, top = (width - self.side) // 2, (height - self.side) // 2
        whole = image.resize((width, height), how)
        if self.jpeg is not None:
            buffer = io.BytesIO()
            whole.save(buffer, "JPEG", quality=self.jpeg)
            whole = Image.open(buffer).convert("RGB")
        return np.asarray(whole.crop((left, top, left + self.side, top + self.side)))

    def gather(self, drawn: Sequence[np.ndarray | None]) -> np.ndarray:
        """Drawn pictures as (n, side, side, 3); black where there is none."""
        found = np.zeros((len(drawn), self.side, self.side, 3), np.uint8)
        for place, picture in enumerate(drawn):
            if picture is not None:
                found[place] = picture
        return found

    @staticmethod
    def _resize(size: Size, shorter: int) -> Size:
        short, long = sorted(size)
        longer = int(shorter * long / short)
        if shorter * longer > MOST_PIXELS:
            raise Unrenderable(f"{size[0]} x {size[1]} px would be {longer} px long before the crop")
        return (shorter, longer) if size[0] <= size[1] else (longer, shorter)


JPEG_QUALITY = 90
"""Of pictures that are sent to a server, without chroma subsampling: small text stays legible."""


@dataclass(frozen=True)
class JpegView:
    """A picture as a file, for models behind a server, which prepare it themselves. It brings no metadata along."""

    longest: int  # pixels of the longer side; a smaller picture stays as it is

    def draw(self, image: Image.Image) -> bytes:
        """An RGB image as a JPEG; pure, for one version of Pillow."""
        scale = self.longest / max(image.size)
        if scale < 1:
            width, height = (max(1, round(side * scale)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return buffer.getvalue()

    def gather(self, drawn: Sequence[bytes | None]) -> tuple[bytes | None, ...]:
        """Drawn pictures in order."""
        return tuple(drawn)


@dataclass(frozen=True)
class WholeView:
    """The whole picture in its own shape, for a model whose processor draws it itself."""

    longest: int  # pixels of the longer side at most; smaller pictures stay as they are

    def draw(self, image: Image.Image) -> np.ndarray:
        """The picture (height, width, 3) of an RGB image, bicubic where it is too large; pure."""
        if max(image.size) <= self.longest:
            return np.asarray(image)
        width, height = (max(1, round(side * self.longest / max(image.size))) for side in image.size)
        return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))

    def gather(self, drawn: Sequence[np.ndarray | None]) -> tuple[np.ndarray | None, ...]:
        """Drawn pictures in order."""
        return tuple(drawn)


PictureView = View | WholeView | JpegView
"""How a signal's model gets pictures."""


@dataclass(frozen=True)
class Preprocessing:
    """What a published model's processor does with a picture."""

    view: View
    mean: tuple[float, ...]  # of the channels, after scaling
    std: tuple[float, ...]
    scale: float  # of uint8 values


def read_preprocessing(folder: Path) -> Preprocessing:
    """What `preprocessor_config.json` of a model's folder says, or the image processor in `processor_config.json`.

    Raises:
        RecipeError: there is neither, or it asks for something else than resizing, cropping and normalising.
    """
    config, name = _read_config(folder)
    if refused := [key for key in ("do_pad", "do_image_splitting") if config.get(key)]:
        raise RecipeError(f"{name}: {refused[0]} is set; allowed: resize, centre crop, rescale, normalize")
    if not config.get("do_resize", True) or config.get("resample", 3) not in RESAMPLES:
        raise RecipeError(f"{name}: pictures have to be resized, with one of {', '.join(RESAMPLES.values())}")
    normalised = config.get("do_normalize", True)
    try:
        return Preprocessing(
            _read_view(config),
            tuple(config["image_mean"]) if normalised else (0.0, 0.0, 0.0),
            tuple(config["image_std"]) if normalised else (1.0, 1.0, 1.0),
            float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
        )
    except (KeyError, TypeError) as error:
        raise RecipeError(f"{name}: {error} is missing or of no form that is known here") from None


def _read_config(folder: Path) -> tuple[Mapping[str, Any], Path]:
    """The image processor's settings, and the file that they are in."""
    for name in (PREPROCESSOR, PROCESSOR):
        path = folder / name
        if path.is_file():
            data = json.loads(path.read_bytes())
            inside = data.get("image_processor", data if name == PREPROCESSOR else None)
            if inside is not None:
                return inside, path
    raise RecipeError(f"{folder}: there is no {PREPROCESSOR}; a model that looks at pictures needs one")


def _read_view(config: Mapping[str, Any]) -> View:
    """Old files have one number for a square, or for the shorter side where the centre is cropped."""
    size, crop, resample = config["size"], config.get("crop_size"), int(config.get("resample", 3))
    cropped = bool(config.get("do_center_crop", False))
    if isinstance(size, int):
        size = {"shortest_edge": size} if cropped else {"height": size, "width": size}
    if "shortest_edge" in size and cropped:
        side = crop if isinstance(crop, int) else crop["height"]  # type: ignore[index]
        wide = crop if isinstance(crop, int) else crop["width"]  # type: ignore[index]
        if side == wide <= size["shortest_edge"]:
            return View(side, size["shortest_edge"], resample)
    elif "height" in size and size["height"] == size["width"] and (not cropped or crop == size):
        return View(size["height"], None, resample)
    raise KeyError(f"size {size} with crop_size {crop if cropped else None}")
