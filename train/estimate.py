"""What a stage's training holds and computes, from its recipe alone: the model is built on the meta device.

Read by `vlmill check --ranks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vlmill.mixtures.build import read_stage_mixture
from vlmill.pipeline.chat.encode import load_tokenizer
from vlmill.pipeline.chat.settings import find_format
from vlmill.train import adapters
from vlmill.train.data import get_tile_side
from vlmill.train.families import find_family
from vlmill.train.flops import count_flops
from vlmill.train.memory import Held, count_held
from vlmill.train.model import make_optimizer
from vlmill.train.settings import read_model_settings, read_training_settings
from vlmill.train.steps import check_shares

if TYPE_CHECKING:
    from vlmill.pipeline.recipe.schema import Recipe, Stage


@dataclass(frozen=True, slots=True)
class TrainingEstimate:
    """Memory of a rank without activations, and floating point operations of a step, forward and backward."""

    stage: str  # its name
    ranks: int  # that share the model
    parameters: int  # of the model
    trained: int  # of these, in the stage
    held: Held  # bytes on a rank
    sequences: int  # of a step
    sequence_length: int  # tokens of each
    text: float  # of a sequence that is one document; the head is left out
    tile: float  # of a tile, projector included
    supervised: float  # of a supervised token in the head

    def __str__(self) -> str:
        """A paragraph for a person."""
        held = self.held
        state = (
            f"{self.stage} on {self.ranks:,} ranks: {self.parameters / 1e9:.3g} billion parameters, "
            f"{self.trained / 1e9:.3g} of them trained. Each rank holds {held.state / 1e9:.3g} GB in float32 "
            f"({held.weights / 1e9:.3g} of weights, {held.gradients / 1e9:.3g} of gradients, {held.moments / 1e9:.3g} "
            "of moments), and activations"
        )
        whole = f"; {held.whole_gradients / 1e9:.3g} GB more with --reduce-after step" if self.ranks > 1 else ""
        copied = f". While a checkpoint is written, {held.copied / 1e9:.3g} GB more of host memory hold its copy"
        work = (
            f"A step has {self.sequences:,} sequences of {self.sequence_length:,} tokens: {self.text / 1e12:.3g} "
            f"TFLOPs of text each, {self.tile / 1e12:.3g} a tile and {self.supervised / 1e9:.3g} GFLOPs a supervised "
            "token"
        )
        return f"{state}{whole}{copied}. {work}"


def estimate_stage(recipe: Recipe, base: Path, stage: Stage, ranks: int) -> TrainingEstimate:
    """The estimate of one stage; configurations of pretrained models are read, and no weights.

    Args:
        recipe: with a model.
        base: the folder that its tokenizer's path starts from.
        stage: of it, with a `train` block.
        ranks: that share the model.

    Raises:
        RecipeError: model, policy and ranks do not fit, or a pretrained model cannot be reached.
    """
    training, mixture = read_training_settings(stage, recipe.scale), read_stage_mixture(recipe, stage)
    check_shares(training, ranks)
    chat, policy = find_format(recipe.chat), recipe.policies[stage.policy]
    family = find_family(read_model_settings(recipe), policy, recipe.chat)
    with torch.device("meta"):
        model = family.build(load_tokenizer(base / (recipe.tokenizer or ""), chat), chat)
        for adapter in training.adapters[:1]:
            adapters.change_adapters(model, family, adapter)
    make_optimizer(model, family, training)  # which says what is trained
    cost = count_flops(model, family, tuple(training.learning_rate))
    length = mixture.sequence_length
    alone = np.array([[length, length * (length + 1) / 2, 0.0], [0.0, 0.0, 1.0]])
    (_, text), (tile, _) = cost.estimate(alone, get_tile_side(policy))
    return TrainingEstimate(
        stage=stage.name,
        ranks=ranks,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        held=count_held(model.parameters(), ranks),
        sequences=training.sequences,
        sequence_length=length,
        text=float(text),
        tile=float(tile),
        supervised=2.0 * cost.head * cost.passes["text"],
    )
