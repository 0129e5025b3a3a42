"""Model families: how the layouts of an image policy become the inputs of a model class of transformers.

FAMILIES names them for recipes, and for each the image policies that it can be trained under. To add one, write a file with a
frozen dataclass that has the methods of `Family`, and a line here. Classes stand as text, so that reading
a recipe imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Protocol

from pipeline.errors import RecipeError
from pipeline.settings import nearest

if TYPE_CHECKING:
    import numpy as np
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

    from pipeline.encode import ChatFormat
    from pipeline.images import Layout, Policy
    from train.settings import ModelSettings, Part

FAMILIES: Mapping[str, Mapping[str, str]] = {
    "llava": {"letterbox": "train.families.llava:Llava"},
    # one tile at first and AnyRes later is how LLaVA-NeXT was trained; only the newline embedding is new then
    "llava_next": {
        "letterbox": "train.families.llava:Llava",
        "anyres": "train.families.llava_next:LlavaNext",
    },
}


class Family(Protocol):
    """A frozen dataclass of the model's settings and a stage's image policy."""

    new: ClassVar[tuple[str, ...]]  # parameters that a stage before, under another policy of the family, need not have

    def __init__(self, settings: ModelSettings, policy: Policy) -> None:
        """Raises RecipeError if the vision tower cannot take what the policy makes."""

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """The model: new weights drawn from torch's generator, pretrained towers from their folders. In float32, on the CPU."""
        ...

    def visual_tokens(self, layout: Layout) -> int:
        """Features that the model class makes of an image, by transformers' own arithmetic; a policy must count the same."""
        ...

    def inputs(
        self, tiles: Sequence[np.ndarray], layouts: Sequence[Layout], device: torch.device
    ) -> dict[str, torch.Tensor]:
        """What the model's forward takes besides text, from each image's tiles (number, side, side, 3) uint8, in reading order."""
        ...

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> ProcessorMixin:
        """The processor of transformers, set to give from an image what the policy and `inputs` give."""
        ...

    def part(self, parameter: str) -> Part:
        """Which part of the model a parameter belongs to, by its name."""
        ...


def class_of(settings: ModelSettings, policy: Policy) -> str:
    """Where in FAMILIES the class of a recipe's model stands, for one of its image policies.

    Raises:
        RecipeError: there is no such family, or it cannot be trained under this policy.
    """
    if settings.family not in FAMILIES:
        raise RecipeError(f"model.family: there is no {settings.family!r}; {nearest(settings.family, list(FAMILIES))}")
    classes = FAMILIES[settings.family]
    if policy.kind not in classes:
        others = [name for name, kinds in FAMILIES.items() if policy.kind in kinds]
        raise RecipeError(
            f"model.family: {settings.family} takes images of policies of kind {', '.join(classes)}, not {policy.kind}; "
            f"families that take {policy.kind}: {', '.join(others) or 'none'}"
        )
    return classes[policy.kind]


def find(settings: ModelSettings, policy: Policy) -> Family:
    """The family of a recipe's model, for one of its image policies.

    Raises:
        RecipeError: see `class_of`; or the vision tower cannot take what the policy makes.
    """
    module, _, name = class_of(settings, policy).partition(":")
    family: type[Family] = getattr(import_module(module), name)
    return family(settings, policy)
