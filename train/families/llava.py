"""LLaVA: one tile per image (transformers' `LlavaForConditionalGeneration`).

LLaVA-1.5, Prismatic and MobileVLM are settings of it. A connector that makes another number of visual tokens than there
are patches is of a class of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, cast

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from vlmill.pipeline.chat.encode import ChatFormat
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import Layout
from vlmill.pipeline.images.connector import NUMBERED, count_tile_tokens
from vlmill.pipeline.images.crop import Crop
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.resize import Resize
from vlmill.train.batch import Batch
from vlmill.train.families import towers, vision
from vlmill.train.families.base import Processor
from vlmill.train.families.exported import bring_code
from vlmill.train.families.exported.connected import ConnectedLlava, ConnectedLlavaConfig, ConnectedLlavaNextConfig
from vlmill.train.families.exported.connected_processors import ConnectedLlavaProcessor
from vlmill.train.families.exported.fused import FusedLlava, FusedLlavaConfig, FusedVisionConfig
from vlmill.train.families.processors import make_image_processor
from vlmill.train.settings import Component, ModelSettings

for _kind in (FusedLlavaConfig, ConnectedLlavaConfig, ConnectedLlavaNextConfig):
    AutoConfig.register(_kind.model_type, _kind, exist_ok=True)  # so that an export can be trained on

ACTIVATIONS = {"linear": "linear", "c_abstractor": "silu"}
"""Between the projector's two layers, by connector; GELU behind all others."""


def describe_projector(settings: ModelSettings, tower: Any) -> dict[str, Any]:
    """What the configurations of all LLaVA classes say of the vision tower, its connector and the projector behind."""
    how, kind = vision.get_reading(tower), towers.choose_connector(settings)
    said = {
        "vision_config": tower,
        "vision_feature_layer": how.layer,
        "vision_feature_select_strategy": how.strategy,
        "projector_hidden_act": ACTIVATIONS.get(kind, "gelu"),
    }
    connector = settings.connector
    if not connector.counts:
        return said
    numbers = {name: getattr(connector, name) for name in (*NUMBERED, "depth")}
    return said | {"connector": {"kind": kind, **numbers}}


@dataclass(frozen=True)
class LlavaFamily:
    """LLaVA 1.5 under a policy of one tile per image."""

    settings: ModelSettings
    policy: Letterbox | Resize | Crop

    model_type: ClassVar[str] = "llava"
    new: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Refuse a policy that does not fit the vision tower."""
        vision.check_encoder(self._vision, self.policy, fill=isinstance(self.policy, Letterbox))
        if isinstance(self.policy, Resize) and self.policy.whole:
            raise RecipeError("the image policy (resize) is whole, for cross-attention; LLaVA reads every patch")
        if towers.choose_connector(self.settings) == "fused_mlp" and not self._fused:
            raise RecipeError(
                "model.connector.kind: fused_mlp is Prismatic's, for two vision towers, and here is "
                f"{self._vision.model_type}; write connector: {{kind: mlp}}, or vision: {{kind: fused}}"
            )

    @cached_property
    def _vision(self) -> Any:
        return vision.configure_vision(self.settings, self.policy.side)

    @property
    def _fused(self) -> bool:
        return isinstance(self._vision, FusedVisionConfig)

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """See `Family`."""
        config = describe_projector(self.settings, self._vision) | {"image_seq_length": self._tokens}
        classes: tuple[Any, Any] = (LlavaForConditionalGeneration, LlavaConfig)
        if self.settings.connector.counts:
            classes = bring_code(ConnectedLlava, ConnectedLlavaConfig, ConnectedLlavaProcessor)
        elif self._fused:
            classes = bring_code(FusedLlava, FusedLlavaConfig)
            config["projector_layers"] = 3 if towers.choose_connector(self.settings) == "fused_mlp" else 2
        return cast("PreTrainedModel", towers.assemble_model(classes, self.settings, tokenizer, chat, config))

    @property
    def _tokens(self) -> int:
        tile = count_tile_tokens(self.settings.connector, self.policy)
        return tile.number if tile else int((vision.get_side(self._vision) // vision.get_patch(self._vision)) ** 2)

    def visual_tokens(self, layout: Layout) -> int:  # noqa: ARG002 - every image has as many
        """See `Family`."""
        return self._tokens

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:  # noqa: ARG002 - nothing depends on it
        """`pixel_values` (images, 3, side, side); nothing for a batch without images."""
        return {"pixel_values": torch.stack(vision.normalise_pixels(batch, self._vision))} if batch.tiles else {}

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> Processor:
        """See `Family`."""
        images = make_image_processor(self.model_type, self.policy, self._vision)
        if self.settings.connector.counts:
            counted = {"tile_tokens": self._tokens}
            return make_processor(ConnectedLlavaProcessor, images, self._vision, tokenizer, chat, counted)
        return make_processor(LlavaProcessor, images, self._vision, tokenizer, chat)

    def component(self, parameter: str) -> Component:
        """See `Family`."""
        return towers.find_component(parameter)


def make_processor(
    processor_class: Any,
    images: Any,
    tower: Any,
    tokenizer: Any,
    chat: ChatFormat,
    counted: Mapping[str, int] = MappingProxyType({}),
) -> Processor:
    """A LLaVA processor over an image processor and a tokenizer, with the chat format as its template.

    `counted` is what a processor of ours has to know besides.
    """
    how = vision.get_reading(tower)
    made = processor_class(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=vision.get_patch(tower),
        vision_feature_select_strategy=how.strategy,
        num_additional_image_tokens=how.others,
        image_token=chat.image,
        chat_template=chat.template,
        **counted,
    )
    return cast("Processor", made)
