"""What a recipe says about training: the `model` block, and the `train` block of each stage.

Read before any work begins, so nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.encode import Loss
from pipeline.settings import STRICT

Part = Literal["projector", "vision", "text"]
"""What a model is made of, as learning rates and freezing name it."""

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=STRICT)
class Training:
    """One stage of training. A part without a learning rate is frozen."""

    learning_rate: dict[Part, Rate]  # of AdamW, at its peak
    rows: Positive = 8  # packed sequences in a step, over all ranks
    steps: Positive | None = None
    epochs: Positive | None = None  # passes over the plan, in place of steps
    accumulation: Positive = 1  # micro-batches that a rank makes of its rows
    warm_up: Annotated[int, Field(ge=0)] = 0  # steps until the peak, linear
    schedule: Literal["cosine", "constant"] = "cosine"  # after it, cosine down to 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # not of norms, biases and single vectors
    betas: tuple[float, float] = (0.9, 0.999)
    clip: Rate | None = 1.0  # of the gradient's norm
    loss: Loss = "answers"
    seed: int = 0  # of new weights and dropout
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the arithmetic; weights are always kept in float32
    checkpoint_every: Positive = 500  # steps
    keep_last: Positive = 2  # checkpoints

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if not self.learning_rate:
            raise ValueError("learning_rate: at least one of projector, vision and text must be trained")
        if self.rows % self.accumulation:
            raise ValueError(f"rows: {self.rows} cannot be cut into {self.accumulation} micro-batches (accumulation)")


@dataclass(frozen=True, config=STRICT)
class VisionTower:
    """A vision transformer with new weights, of transformers' class for `kind`."""

    kind: Literal["siglip", "clip"]
    hidden_size: Positive
    layers: Positive
    heads: Positive
    image_size: Positive  # side of its input, in pixels
    patch_size: Positive


@dataclass(frozen=True, config=STRICT)
class TextModel:
    """A language model with new weights, of transformers' class for `kind`."""

    kind: Literal["llama"]
    hidden_size: Positive
    layers: Positive
    heads: Positive
    positions: Positive = 8192  # longest sequence


@dataclass(frozen=True, config=STRICT)
class Pretrained:
    """A tower from a local folder that transformers' `from_pretrained` reads."""

    kind: Literal["pretrained"]
    path: str


@dataclass(frozen=True, config=STRICT)
class ModelSettings:
    """The model that all stages of a recipe train."""

    family: str  # of FAMILIES
    vision: Annotated[VisionTower | Pretrained, Field(discriminator="kind")]
    text: Annotated[TextModel | Pretrained, Field(discriminator="kind")]


__all__ = ["ModelSettings", "Part", "Pretrained", "TextModel", "Training", "VisionTower"]
_ = field
