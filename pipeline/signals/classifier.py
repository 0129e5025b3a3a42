"""Signals `image_classifier` and `onnx_classifier`: how likely an image belongs to a label, such as nsfw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, Amount
from vlmill.pipeline.core.resources import Resources
from vlmill.pipeline.core.sample import Sample
from vlmill.pipeline.core.step import RUNTIME
from vlmill.pipeline.images.policy import Side
from vlmill.pipeline.images.views import View
from vlmill.pipeline.signals.base import Of, SignalBatch, Unit, list_units
from vlmill.pipeline.signals.published import PublishedSignal, list_versions
from vlmill.pipeline.signals.weights import WeightsField


@dataclass(frozen=True, config=STRICT)
class ImageClassifier(PublishedSignal):
    """A classifier of transformers: the probability of one label, or its only output as it is."""

    kind: ClassVar[str] = "image_classifier"
    version: ClassVar[int] = 1
    of: ClassVar[Of] = "images"
    auto: ClassVar[str] = "AutoModelForImageClassification"

    label: str | None = None  # as the model calls it; None for a model with one output, such as a regression

    def columns(self, name: str) -> tuple[str, ...]:
        """The probability."""
        return (name,)

    def load(self) -> Any:
        """The model, and the number of its label."""
        from vlmill.pipeline.signals.torch_models import find_label  # noqa: PLC0415

        model = super().load()
        labels = model.model.config.id2label
        label = self.label if self.label is not None or len(labels) > 1 else next(iter(labels.values()))
        return model, find_label(model, str(label))

    def score(self, model: Any, batch: SignalBatch) -> np.ndarray:
        """Probabilities (size, 1)."""
        from vlmill.pipeline.signals.torch_models import classify_images  # noqa: PLC0415

        assert batch.images is not None
        classifier, label = model
        return classify_images(classifier, batch.images, linear=self.label is None)[:, label : label + 1]


@dataclass(frozen=True, config=STRICT)
class OnnxClassifier:
    """One output of an ONNX model that looks at a picture. What its pixels are is said here: the file does not."""

    kind: ClassVar[str] = "onnx_classifier"
    version: ClassVar[int] = 1
    of: ClassVar[Of] = "images"

    model: WeightsField  # the model's file, in ONNX
    side: Side = 224  # pixels of a side of the square that the model takes
    shorter: Side | None = None  # pixels of the shorter side before the centre is cropped; None squashes the whole
    squash: Side | None = None  # side of the square to which the whole is squashed before its centre is cropped
    jpeg: Annotated[int, Field(ge=1, le=95)] | None = None  # quality of a JPEG before the crop; open_nsfw wants 75
    resample: Annotated[int, Field(ge=0, le=3)] = 2  # Pillow's number: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic
    layout: Literal["nchw", "nhwc"] = "nchw"  # of the input: images, channels, rows, columns; or channels last
    channels: Literal["rgb", "bgr"] = "rgb"  # the order of colours that the model takes
    scale: float = 1 / 255  # times each value of 0 to 255, before mean and std
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # what is subtracted from pixels, in the order of `channels`
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)  # that values are divided by, behind mean
    output: Annotated[int, Field(ge=0)] = 0  # place in the model's first output, as one row an image
    batch: Amount = 32  # pictures that the model gets at once
    threads: Annotated[int, Field(ge=1, le=1024)] = 1  # threads of one worker on a CPU
    resources: Resources = field(default_factory=Resources, metadata=RUNTIME)  # CPUs, memory and GPUs of one worker
    seconds: Annotated[float, Field(gt=0, le=86_400)] = field(default=600.0, metadata=RUNTIME)  # a batch may take

    def __post_init__(self) -> None:
        if self.shorter is not None and self.squash is not None:
            raise ValueError("shorter keeps the shape of the picture and squash does not; give one of the two")
        before = self.shorter or self.squash or self.side
        if before < self.side:
            raise ValueError(f"a square of {self.side} px cannot be cut from {before} px; give as many at least")

    def columns(self, name: str) -> tuple[str, ...]:
        """The output."""
        return (name,)

    def view(self) -> View:
        """As the settings say."""
        return View(self.side, self.shorter, self.resample, self.squash, self.jpeg)

    def list_units(self, sample: Sample) -> Iterator[Unit]:
        """Every image."""
        return list_units(sample, self.of)

    def made_by(self) -> Mapping[str, str]:
        """The runtime."""
        return list_versions("onnxruntime")

    def load(self) -> Any:
        """A session."""
        from vlmill.pipeline.signals.onnx_models import open_session  # noqa: PLC0415

        return open_session(self.model.folder, threads=self.threads, gpu=self.resources.gpus > 0)

    def score(self, model: Any, batch: SignalBatch) -> np.ndarray:
        """The output (size, 1)."""
        from vlmill.pipeline.signals.onnx_models import run_session  # noqa: PLC0415

        assert batch.images is not None
        pixels = batch.images[..., ::-1] if self.channels == "bgr" else batch.images
        mean, std = (np.array(values, np.float32) for values in (self.mean, self.std))
        pixels = (pixels.astype(np.float32) * np.float32(self.scale) - mean) / std
        rows = run_session(model, pixels if self.layout == "nhwc" else pixels.transpose(0, 3, 1, 2))
        return rows[:, self.output : self.output + 1]
