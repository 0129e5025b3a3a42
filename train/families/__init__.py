"""Model families: how the layouts of an image policy become the inputs of a model class of transformers.

FAMILIES names them for recipes, and for each the image policies and chat formats that it can be trained under. To add one,
write a file with a frozen dataclass that has the methods of `Family`, and an entry here. Classes stand as text, so that
reading a recipe imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from vlmill.pipeline.core.config import nearest
from vlmill.pipeline.core.errors import RecipeError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from vlmill.pipeline.chat.encode import ChatFormat
    from vlmill.pipeline.images import Layout, Policy
    from vlmill.train.data import Batch
    from vlmill.train.export import Processor
    from vlmill.train.settings import ModelSettings, Part


@dataclass(frozen=True, slots=True)
class Declared:
    """What a family says of itself before anything of it is imported."""

    classes: Mapping[str, str]  # by kind of image policy
    connectors: tuple[str, ...]  # that a recipe may choose from
    chat: str = "vlmill"  # of FORMATS: the one whose images its processor spells


LLAVA = "vlmill.train.families.llava:Llava"
ONE_TILE = {"letterbox": LLAVA, "resize": LLAVA, "crop": LLAVA}

FAMILIES: Mapping[str, Declared] = {
    "llava": Declared(ONE_TILE, ("mlp", "linear")),
    # one tile at first and AnyRes later is how both were trained; only the newline embedding is new then
    "llava_next": Declared(ONE_TILE | {"anyres": "vlmill.train.families.llava_next:LlavaNext"}, ("mlp", "linear")),
    "llava_onevision": Declared(
        ONE_TILE | {"anyres": "vlmill.train.families.llava_onevision:LlavaOnevision"}, ("mlp", "linear")
    ),
    "idefics": Declared({"resize": "vlmill.train.families.idefics:Idefics"}, ("perceiver", "direct"), "idefics"),
    "idefics2": Declared({"navit": "vlmill.train.families.idefics2:Idefics2"}, ("perceiver",), "idefics"),
    "idefics3": Declared({"tiles": "vlmill.train.families.idefics3:Idefics3"}, ("shuffle",), "idefics3"),
    "internvl": Declared({"internvl": "vlmill.train.families.internvl:InternVL"}, ("shuffle",), "internvl"),
}


class Family(Protocol):
    """A frozen dataclass of the model's settings and a stage's image policy."""

    new: ClassVar[tuple[str, ...]]  # parameters that a stage before, under another policy of the family, need not have

    def __init__(self, settings: ModelSettings, policy: Policy) -> None:
        """Raises RecipeError if the vision tower cannot take what the policy makes."""

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """The model: new weights drawn from torch's generator, pretrained ones read. In float32, on the CPU."""
        ...

    def visual_tokens(self, layout: Layout) -> int:
        """Features that the model class makes of an image, by transformers' own arithmetic; a policy must count the same."""
        ...

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:
        """What the model's forward takes besides tokens and positions, from a batch on its device.

        An image is seen by its own document alone. An attention mask is among them only if the class needs one for that.
        """
        ...

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> Processor:
        """The processor of transformers, set to give from an image what the policy and `inputs` give."""
        ...

    def part(self, parameter: str) -> Part:
        """Which part of the model a parameter belongs to, by its name."""
        ...


def class_of(settings: ModelSettings, policy: Policy, chat: str = "vlmill") -> str:
    """Where in FAMILIES the class of a recipe's model stands, for one of its image policies and its chat format.

    Raises:
        RecipeError: there is no such family, or it cannot be trained under this policy, connector or chat format.
    """
    if settings.family not in FAMILIES:
        raise RecipeError(f"model.family: there is no {settings.family!r}; {nearest(settings.family, list(FAMILIES))}")
    declared, connector = FAMILIES[settings.family], settings.connector.kind
    if policy.kind not in declared.classes:
        others = [name for name, other in FAMILIES.items() if policy.kind in other.classes]
        raise RecipeError(
            f"model.family: {settings.family} takes images of policies of kind {', '.join(declared.classes)}, not {policy.kind}; "
            f"families that take {policy.kind}: {', '.join(others) or 'none'}"
        )
    if connector not in {None, *declared.connectors}:
        raise RecipeError(
            f"model.connector.kind: {settings.family} has {' or '.join(declared.connectors)}, not {connector}"
        )
    if chat != declared.chat:
        raise RecipeError(
            f"chat: {settings.family} spells images as format {declared.chat!r} does, not {chat!r}; "
            f"write chat: {declared.chat} in the recipe"
        )
    return declared.classes[policy.kind]


def find(settings: ModelSettings, policy: Policy, chat: str = "vlmill") -> Family:
    """The family of a recipe's model, for one of its image policies and its chat format.

    Raises:
        RecipeError: see `class_of`; or the vision tower cannot take what the policy makes.
    """
    module, _, name = class_of(settings, policy, chat).partition(":")
    family: type[Family] = getattr(import_module(module), name)
    return family(settings, policy)
