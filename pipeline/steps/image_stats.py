"""Step `image_stats`: decodes each image once for all later steps: size, hash, thumbnail, contrast, sharpness.

Filters and dedupe read these image stats and never the images. The hash is a function of whole luminance values that
Pillow makes, and what is a float is rounded before it is compared or written, so the image stats are the same on every
machine of one architecture.

Images are decoded in a child process, one for many, under limits of memory and time: an image that breaks them becomes
a failed image, and the worker goes on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, Amount
from vlmill.pipeline.core.meter import note_work
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, IMAGES_FILE, SUPPLEMENT_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import ImageStats, read_images, write_image_stats
from vlmill.pipeline.core.sandbox import ChildCrashed, ChildTimedOut, Sandbox, borrow_sandbox
from vlmill.pipeline.core.step import RUNTIME, Count, Counts, Inputs
from vlmill.pipeline.images.decode import MAX_PIXELS, Undecodable, count_frames, open_image, to_rgb
from vlmill.pipeline.images.thumbnail import check_thumbnails, make_thumbnails

BLUR_SIDE = 256
"""Pixels of the longer side at which blur is measured, so that it does not depend on the resolution."""

KNOWN = 1_000
"""Images whose stats are kept, about 10 kB each, for others with the same bytes: logos come under many addresses."""

DCT = np.array([[2 * math.cos(math.pi * k * (2 * n + 1) / 64) for n in range(32)] for k in range(8)])
"""The 8 lowest frequencies of a DCT-II of 32 values, not normalised."""


@dataclass(frozen=True, config=STRICT)
class ComputeImageStats:
    """Step: what one decode finds out about every image of a partition. Leaves `image_stats.parquet`.

    Counts `images_measured`: those with bytes.
    """

    name: ClassVar[str] = "image_stats"
    version: ClassVar[int] = 5
    pure: ClassVar[bool] = True

    max_pixels: Amount = MAX_PIXELS  # of an image; one with more is not decoded
    seconds: Annotated[float, Field(gt=0, le=86_400)] = field(
        default=120.0, metadata=RUNTIME
    )  # for one image; 0.01 are usual

    @property
    def reads(self) -> tuple[str, ...]:
        """The images, and those that a retry brought."""
        return (IMAGES_FILE, SUPPLEMENT_FILE)

    def made_by(self) -> Mapping[str, str]:
        """The decoders, and the library that writes the table."""
        return {library: version(library) for library in ("pillow", "numpy", "pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Look at every image, in order."""
        count = Count()
        with borrow_sandbox(_examine_image, self.seconds) as worker:
            write_image_stats(folder / IMAGE_STATS_FILE, self._facts(inputs, worker, count))
        return {"images_measured": count}

    def _facts(
        self, inputs: Inputs, worker: Sandbox[[bytes, int], dict[str, Any]], count: Count
    ) -> Iterator[ImageStats]:
        known = dict[str, ImageStats]()  # by sha256, the latest last
        for row in read_images(inputs):
            image, data = row["image"], row["bytes"]
            if data is None:
                yield ImageStats(image, Reason(str(row["reason"])))
                continue
            sha256 = hashlib.sha256(data).hexdigest()
            if sha256 in known:
                image_stats = replace(known[sha256], image=image)
            else:
                image_stats = _examine_safely(worker, image, sha256, data, self.max_pixels)
                if image_stats.reason is None:
                    known[sha256] = image_stats
                if len(known) > KNOWN:
                    del known[next(iter(known))]
            note_work(images=1, size=len(data), failed=image_stats.reason is not None)
            if image_stats.reason:
                count.lose(image_stats.reason)
            else:
                count.keep()
            yield image_stats


def compute_image_stats(image: int, data: bytes, max_pixels: int = MAX_PIXELS) -> ImageStats:
    """The image stats about image number `image`; pure. A failed decode is a reason, not an exception."""
    return replace(_decode_stats(data, max_pixels), image=image, sha256=hashlib.sha256(data).hexdigest())


def _decode_stats(data: bytes, max_pixels: int) -> ImageStats:
    """What a decode finds, without number and sha256."""
    try:
        opened = open_image(data, max_pixels)
        mode = opened.mode
        picture = to_rgb(opened)
        frames = count_frames(opened)
    except Undecodable as error:
        return ImageStats(0, error.reason)
    luminance = picture.convert("L")
    small = luminance.resize((32, 32), Image.Resampling.LANCZOS)
    thumbnail, content, margins = make_thumbnails(picture, luminance)
    return ImageStats(
        image=0,
        reason=None,
        format=opened.format or "",
        mode=mode,
        width=picture.width,
        height=picture.height,
        frames=frames,
        contrast=measure_contrast(luminance),
        sharpness=measure_sharpness(luminance),
        phash=compute_phash(small),
        thumbnail=thumbnail,
        content=content,
        margins=margins,
    )


def compute_phash(small: Image.Image) -> int:
    """64-bit DCT hash of 32 x 32 luminance, the first bit highest: `imagehash.phash`, whose pixels these are.

    A bit says whether one of the 8 x 8 lowest frequencies is above their median. They are rounded first: in a flat
    picture all but one are zero, and noise of 1e-13 would decide.
    """
    low = (DCT @ np.asarray(small, np.float64) @ DCT.T).round(6)
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def measure_contrast(luminance: Image.Image) -> float:
    """Standard deviation of luminance, to 3 decimals: 0 for one flat colour, 127.5 for half black, half white."""
    histogram = luminance.histogram()
    total = sum(histogram)
    first = sum(level * number for level, number in enumerate(histogram))
    second = sum(level * level * number for level, number in enumerate(histogram))
    return round(math.sqrt(second * total - first * first) / total, 3)


def measure_sharpness(luminance: Image.Image) -> float:
    """Variance of the Laplacian at a longer side of at most 256 pixels, to 3 decimals: low is blurred or empty.

    The measure of Pech-Pacheco et al. (ICPR 2000), with four neighbours, inside the border. 0 for pictures less than 3
    pixels wide or high.
    """
    scale = min(1.0, BLUR_SIDE / max(luminance.size))
    width, height = (max(1, round(length * scale)) for length in luminance.size)
    pixels = np.asarray(luminance.resize((width, height), Image.Resampling.BOX), np.int16)
    if min(pixels.shape) < 3:
        return 0.0
    sides = pixels[1:-1, :-2] + pixels[1:-1, 2:] + pixels[:-2, 1:-1] + pixels[2:, 1:-1]
    edges = (sides - 4 * pixels[1:-1, 1:-1]).astype(np.float64).ravel()  # whole numbers, whose sums stay below 2 ** 37
    total, first, second = edges.size, int(edges.sum()), int(edges @ edges)
    return round((second * total - first * first) / total**2, 3)


FIELDS = ImageStats(0, None)
"""Of what types the answers of a child are."""
BINARY = ("thumbnail", "content", "margins")
"""Those of bytes, as hexadecimal digits in an answer."""


def _examine_image(data: bytes, max_pixels: int) -> Iterator[dict[str, Any]]:
    """What the child does."""
    stats = _decode_stats(data, max_pixels)
    yield {**asdict(stats), **{name: getattr(stats, name).hex() for name in BINARY}}


def _examine_safely(
    worker: Sandbox[[bytes, int], dict[str, Any]], image: int, sha256: str, data: bytes, max_pixels: int
) -> ImageStats:
    """The image stats about an image whose decoder may kill its process.

    A child that died is no proof against the image: it may have died of what earlier ones left in its memory. So the
    image is tried once more in a new one.
    """
    for attempt in range(2):
        try:
            (answer,) = worker.run(data, max_pixels)
            return _read_answer(image, sha256, answer)
        except ChildTimedOut as error:
            return ImageStats(image, error.reason, sha256)
        except (ChildCrashed, ValueError, TypeError) as error:  # ValueError, TypeError: no stats, from a broken decoder
            worker.close()
            if attempt:
                return ImageStats(image, getattr(error, "reason", Reason.CRASHED), sha256)
    raise AssertionError("unreachable")


def _read_answer(image: int, sha256: str, answer: Mapping[str, Any]) -> ImageStats:
    """The image stats in a child's answer, of the types and within the bounds that the table has.

    Raises:
        ValueError: they are not; TypeError where it is no mapping or has other fields.
    """
    reason = None if answer["reason"] is None else Reason(answer["reason"])
    told = {**answer, **{name: bytes.fromhex(answer[name]) for name in BINARY}}
    stats = replace(ImageStats(**told), image=image, reason=reason, sha256=sha256)
    for name in ImageStats.__slots__:
        value, kind = getattr(stats, name), type(getattr(FIELDS, name))
        fits = type(value) is kind and (kind is not int or 0 <= value < 1 << (64 if name == "phash" else 31))
        if name != "reason" and not fits:
            raise ValueError(f"{name} is {value!r}")
    if stats.reason is None:
        check_thumbnails(stats.thumbnail, stats.content, stats.margins, (stats.width, stats.height))
    return stats
