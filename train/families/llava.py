"""LLaVA: one tile per image (transformers' `LlavaForConditionalGeneration`).

LLaVA-1.5, Prismatic and MobileVLM are settings of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from tokenizers import Tokenizer
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from vlmill.pipeline.chat.encode import ChatFormat
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import Layout
from vlmill.pipeline.images.crop import Crop
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.resize import Resize
from vlmill.train.batch import Batch
from vlmill.train.families import towers, vision
from vlmill.train.families.base import Processor
from vlmill.train.families.fused import FusedLlava, FusedLlavaConfig, FusedVisionConfig
from vlmill.train.families.processors import make_image_processor
from vlmill.train.settings import Component, ModelSettings


def describe_projector(settings: ModelSettings, tower: Any) -> dict[str, Any]:
    """What the configurations of all LLaVA classes say of the vision tower and the projector behind it."""
    how = vision.get_reading(tower)
    return {
        "vision_config": tower,
        "vision_feature_layer": how.layer,
        "vision_feature_select_strategy": how.strategy,
        "projector_hidden_act": "linear" if towers.choose_connector(settings) == "linear" else "gelu",
    }


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
        config = describe_projector(self.settings, self._vision) | {"image_seq_length": self._patches}
        classes: tuple[Any, Any] = (LlavaForConditionalGeneration, LlavaConfig)
        if self._fused:
            classes = (FusedLlava, FusedLlavaConfig)
            config["projector_layers"] = 3 if towers.choose_connector(self.settings) == "fused_mlp" else 2
            FusedLlavaConfig.register_for_auto_class()
            FusedLlava.register_for_auto_class("AutoModelForImageTextToText")
        return cast("PreTrainedModel", towers.assemble_model(classes, self.settings, tokenizer, chat, config))

    @property
    def _patches(self) -> int:
        return int((vision.get_side(self._vision) // vision.get_patch(self._vision)) ** 2)

    def visual_tokens(self, layout: Layout) -> int:  # noqa: ARG002 - every image has as many
        """See `Family`."""
        return self._patches

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:  # noqa: ARG002 - nothing depends on it
        """`pixel_values` (images, 3, side, side); nothing for a batch without images."""
        return {"pixel_values": torch.stack(vision.normalise_pixels(batch, self._vision))} if batch.tiles else {}

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> Processor:
        """See `Family`."""
        images = make_image_processor(self.model_type, self.policy, self._vision)
        return make_processor(LlavaProcessor, images, self._vision, tokenizer, chat)

    def component(self, parameter: str) -> Component:
        """See `Family`."""
        return towers.find_component(parameter)


def make_processor(processor_class: Any, images: Any, tower: Any, tokenizer: Any, chat: ChatFormat) -> Processor:
    """A LLaVA processor over an image processor and a tokenizer, with the chat format as its template."""
    how = vision.get_reading(tower)
    made = processor_class(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=vision.get_patch(tower),
        vision_feature_select_strategy=how.strategy,
        num_additional_image_tokens=how.others,
        image_token=chat.image,
        chat_template=chat.template,
    )
    return cast("Processor", made)
