"""Model families: how the layouts of an image policy become the inputs of a model class of transformers.

FAMILIES names them for recipes, and for each the image policies and chat formats that it can be trained under. To add
one, write a file with a frozen dataclass that has the methods of `Family`, and an entry here. Classes stand as text, so
that reading a recipe imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from vlmill.pipeline.chat.settings import name_images
from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images.connector import NUMBERED, NUMBERS, count_tile_tokens

if TYPE_CHECKING:
    from vlmill.pipeline.chat.settings import Chat
    from vlmill.pipeline.images import Policy
    from vlmill.train.families.base import Family
    from vlmill.train.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class Declared:
    """What a family says of itself before anything of it is imported."""

    classes: Mapping[str, str]  # by kind of image policy
    connectors: tuple[str, ...]  # that a recipe may choose from
    chat: str = "vlmill"  # of FORMATS: the one whose images its processor spells
    positions: tuple[str, ...] = ("flat",)  # schemes that its tokens may be placed by; the first unless said otherwise
    tower: bool = True  # whether there is a vision tower, which a stage may train
    counts: bool = False  # whether the recipe's connector, not its image policy, may say how many tokens there are


LLAVA = "vlmill.train.families.llava:LlavaFamily"
CONNECTORS = ("mlp", "linear", "pool", "bilinear", "shuffle", "perceiver", "c_abstractor", "ldp", "ldp_v2")
"""Of the LLaVA families whose images are spelt by tiles; OneVision's reduction is its class's own."""
SCHEMES = ("mrope", "flat", "rope_tie", "rope_tie_v2")
UNTEMPLATED = ("idefics", "paligemma")
MOONDREAM = "vlmill.train.families.moondream:Moondream"
ONE_TILE = {"letterbox": LLAVA, "resize": LLAVA, "crop": LLAVA}

FAMILIES: Mapping[str, Declared] = {
    "llava": Declared(ONE_TILE, (*CONNECTORS, "fused_mlp"), counts=True),
    # one tile at first and AnyRes later is how both were trained; only the newline embedding is new then
    "llava_next": Declared(
        ONE_TILE | {"anyres": "vlmill.train.families.llava_next:LlavaNext"}, CONNECTORS, counts=True
    ),
    "llava_onevision": Declared(
        ONE_TILE | {"anyres": "vlmill.train.families.llava_onevision:LlavaOnevision"}, ("mlp", "linear")
    ),
    "moondream": Declared(dict.fromkeys(ONE_TILE, MOONDREAM), ("mlp",)),
    "gemma3": Declared({"pooled": "vlmill.train.families.gemma3:Gemma3"}, ("pool",), "gemma3"),
    "idefics": Declared({"resize": "vlmill.train.families.idefics:Idefics"}, ("perceiver", "direct"), "idefics"),
    "idefics2": Declared({"navit": "vlmill.train.families.idefics2:Idefics2"}, ("perceiver",), "idefics"),
    "idefics3": Declared({"tiles": "vlmill.train.families.idefics3:Idefics3"}, ("shuffle",), "idefics3"),
    "internvl": Declared({"internvl": "vlmill.train.families.internvl:InternVLFamily"}, ("shuffle",), "internvl"),
    "paligemma": Declared({"resize": "vlmill.train.families.paligemma:PaliGemma"}, ("linear",), "paligemma"),
    "fuyu": Declared({"patches": "vlmill.train.families.fuyu:Fuyu"}, ("linear",), "fuyu", tower=False),
    "qwen2_5_vl": Declared({"native": "vlmill.train.families.qwen_vl:Qwen25VL"}, ("merger",), "qwen", SCHEMES),
    "qwen3_vl": Declared({"native": "vlmill.train.families.qwen_vl:Qwen3VL"}, ("merger",), "qwen", SCHEMES),
}


def find_class(settings: ModelSettings, policy: Policy, chat: Chat = "vlmill") -> str:
    """Where in FAMILIES the class of a recipe's model stands, for one of its image policies and its chat format.

    Raises:
        RecipeError: there is no such family, or it cannot be trained under this policy, connector or chat format.
    """
    if settings.family not in FAMILIES:
        raise RecipeError(
            f"model.family: there is no {settings.family!r}; {suggest_names(settings.family, list(FAMILIES))}"
        )
    declared, connector = FAMILIES[settings.family], settings.connector.kind
    if policy.kind not in declared.classes:
        others = [name for name, other in FAMILIES.items() if policy.kind in other.classes]
        raise RecipeError(
            f"model.family: {settings.family} takes images of policies of kind {', '.join(declared.classes)}, not "
            f"{policy.kind}; families that take {policy.kind}: {', '.join(others) or 'none'}"
        )
    if connector not in {None, *declared.connectors}:
        raise RecipeError(
            f"model.connector.kind: {settings.family} has {' or '.join(declared.connectors)}, not {connector}"
        )
    _check_connector(settings, policy)
    if settings.positions not in {None, *declared.positions}:
        raise RecipeError(
            f"model.positions: the language model of {settings.family} places tokens by "
            f"{' or '.join(declared.positions)}, not {settings.positions}; families with three axes: "
            f"{', '.join(name for name, other in FAMILIES.items() if len(other.positions) > 1)}"
        )
    if not isinstance(chat, str) and settings.family in UNTEMPLATED:
        raise RecipeError(
            f"chat: {settings.family} was published without a chat template; write chat: {declared.chat} in the recipe"
        )
    if (images := name_images(chat)) != declared.chat:
        key = "chat" if isinstance(chat, str) else "chat.images"
        raise RecipeError(
            f"{key}: {settings.family} spells images as format {declared.chat!r} does, not {images!r}; "
            f"write {key}: {declared.chat} in the recipe"
        )
    return declared.classes[policy.kind]


def _check_connector(settings: ModelSettings, policy: Policy) -> None:
    """Whether the connector says how many tokens there are, where it has to, and does not where it cannot."""
    connector = settings.connector
    if FAMILIES[settings.family].counts:
        wanted = NUMBERS.get(connector.kind or "")
        if wanted and getattr(connector, wanted) is None:
            raise RecipeError(
                f"model.connector.{wanted} is missing: it says how many visual tokens {connector.kind} makes in family "
                f"{settings.family}"
            )
        count_tile_tokens(connector, policy)
    elif connector.counts:
        name = next(name for name in NUMBERED if getattr(connector, name) is not None)
        raise RecipeError(
            f"model.connector.{name}: the visual tokens of family {settings.family} are those of its image policy "
            f"({policy.kind}); families whose connector says how many there are: "
            f"{', '.join(name for name, other in FAMILIES.items() if other.counts)}"
        )


def find_family(settings: ModelSettings, policy: Policy, chat: Chat = "vlmill") -> Family:
    """The family of a recipe's model, for one of its image policies and its chat format.

    Raises:
        RecipeError: see `find_class`; or the vision tower cannot take what the policy makes, or an export could not
            prepare images so.
    """
    module, _, name = find_class(settings, policy, chat).partition(":")
    from vlmill.train.families.processors import find_image_processor  # noqa: PLC0415 - it imports transformers

    family: type[Family] = getattr(import_module(module), name)
    find_image_processor(family.model_type, policy)
    return family(settings, policy)
