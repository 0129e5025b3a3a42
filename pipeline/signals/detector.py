"""What signals share that find things in an image, such as text or faces: whole pictures in, boxes and shares out.

A picture is looked at alone and in its own shape, so its values depend on nothing else. What was found stands beside
the values in `NAME.detections.parquet` (pipeline/core/detections.py).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Annotated, Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw
from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, Amount
from vlmill.pipeline.core.detections import Detection
from vlmill.pipeline.core.resources import Resources
from vlmill.pipeline.core.sample import Sample
from vlmill.pipeline.core.step import RUNTIME
from vlmill.pipeline.images.policy import Side
from vlmill.pipeline.images.views import WholeView
from vlmill.pipeline.signals.base import Detected, Of, SignalBatch, Unit, list_units

Corners = Sequence[tuple[float, float]]
"""A polygon, as (x, y) in pixels."""


@dataclass(frozen=True, config=STRICT)
class ImageDetector:
    """What all signals have that find things in images. Values and settings are those of the class that derives."""

    of: ClassVar[Of] = "images"
    values: ClassVar[tuple[str, ...]]  # ends of its columns

    longest: Side = 1280  # pixels of the longer side; larger pictures are resized to it, smaller ones stay as they are
    batch: Amount = 8  # pictures on their way to the model at once; each is looked at alone
    threads: Annotated[int, Field(ge=1, le=1024)] = 1  # threads of one worker on a CPU
    resources: Resources = field(default_factory=Resources, metadata=RUNTIME)  # CPUs, memory and GPUs of one worker
    seconds: Annotated[float, Field(gt=0, le=86_400)] = field(default=600.0, metadata=RUNTIME)  # a batch may take

    def columns(self, name: str) -> tuple[str, ...]:
        """The name of the signal with each of its ends."""
        return tuple(f"{name}_{end}" for end in self.values)

    def view(self) -> WholeView:
        """The whole picture, at a size at which things in it can be seen."""
        return WholeView(self.longest)

    def list_units(self, sample: Sample) -> Iterator[Unit]:
        """Every image."""
        return list_units(sample, self.of)

    def score(self, model: Any, batch: SignalBatch) -> Detected:
        """Values (size, columns), and what was found in each picture."""
        values = np.zeros((batch.size, len(self.values)), np.float32)
        found = list[tuple[Detection, ...]]()
        for place, (picture,) in enumerate(batch.pictures[: batch.filled]):
            shares, detections = self.look(model, picture)
            values[place] = shares
            found.append(tuple(detections))
        return Detected(values, tuple(found))

    @abstractmethod
    def look(self, model: Any, picture: np.ndarray) -> tuple[Sequence[float], Sequence[Detection]]:
        """The values of a picture (height, width, 3), and what was found in it."""


def make_detection(corners: Corners, picture: np.ndarray, confidence: float, text: str = "") -> Detection:
    """A detection with the upright box around a polygon, cut at the picture's edges."""
    height, width = picture.shape[:2]
    across, down = zip(*corners, strict=True)
    left, right = (round(float(min(max(side / width, 0), 1)), 4) for side in (min(across), max(across)))
    top, bottom = (round(float(min(max(side / height, 0), 1)), 4) for side in (min(down), max(down)))
    return Detection(left, top, right, bottom, round(confidence, 4), text)


def pad_picture(picture: np.ndarray, least: int, multiple: int = 1) -> np.ndarray:
    """A picture (height, width, 3) with white right of it and below, up to a side and a multiple of pixels. Pure."""
    height, width = (-(-max(side, least) // multiple) * multiple for side in picture.shape[:2])
    if (height, width) == picture.shape[:2]:
        return picture
    padded = np.full((height, width, 3), 255, np.uint8)
    padded[: picture.shape[0], : picture.shape[1]] = picture
    return padded


def measure_covered(polygons: Sequence[Corners], picture: np.ndarray) -> float:
    """The share of a picture's pixels that polygons cover; what several cover counts once."""
    height, width = picture.shape[:2]
    mask = Image.new("L", (width, height))
    pen = ImageDraw.Draw(mask)
    for corners in polygons:
        pen.polygon([(float(x), float(y)) for x, y in corners], fill=1)
    return float(np.asarray(mask).mean())
