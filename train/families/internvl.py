"""InternVL: tiles and a thumbnail, pixel shuffle (transformers' `InternVLForConditionalGeneration`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from tokenizers import Tokenizer
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from vlmill.pipeline.chat.encode import ChatFormat
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import Layout
from vlmill.pipeline.images.internvl import InternVL as Policy
from vlmill.train.batch import Batch
from vlmill.train.families import towers, vision
from vlmill.train.families.base import Processor
from vlmill.train.families.processors import VideoProcessor, make_image_processor, name_tokens
from vlmill.train.settings import Component, ModelSettings


@dataclass(frozen=True)
class InternVLFamily:
    """InternVL under its policy, over an InternViT."""

    settings: ModelSettings
    policy: Policy

    model_type: ClassVar[str] = "internvl"
    new: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Refuse a policy that does not fit the vision tower or the shuffle."""
        vision.check_encoder(self._vision, self.policy)
        if self._across % self.policy.shuffle:
            raise RecipeError(
                f"the image policy (internvl) shuffles {self.policy.shuffle} x {self.policy.shuffle} patches, "
                f"and a tile has {self._across} x {self._across}"
            )

    @cached_property
    def _vision(self) -> Any:
        return vision.convert_config(self.settings, "internvl_vision", InternVLVisionConfig)

    @property
    def _across(self) -> int:
        return vision.get_side(self._vision) // vision.get_patch(self._vision)

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """See `Family`."""
        how = vision.get_reading(self._vision)
        config = {
            "vision_config": self._vision,
            "vision_feature_layer": how.layer,
            "vision_feature_select_strategy": how.strategy,
            "downsample_ratio": 1 / self.policy.shuffle,
            "image_seq_length": (self._across // self.policy.shuffle) ** 2,
        }
        classes = (InternVLForConditionalGeneration, InternVLConfig)
        return cast("PreTrainedModel", towers.assemble_model(classes, self.settings, tokenizer, chat, config))

    def visual_tokens(self, layout: Layout) -> int:
        """See `Family`: as many for every tile."""
        return int(layout.tiles * (self._across // self.policy.shuffle) ** 2)

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:  # noqa: ARG002 - nothing depends on it
        """`pixel_values` (tiles of all images, 3, side, side); nothing for a batch without images."""
        return {"pixel_values": torch.stack(vision.normalise_pixels(batch, self._vision))} if batch.tiles else {}

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> Processor:
        """See `Family`. The class asks its tokenizer for the marks of an image."""
        start, end, video = chat.image_tokens.specials
        marks = {"start_image_token": start, "end_image_token": end, "context_image_token": chat.image}
        named = name_tokens(tokenizer, marks | {"video_token": video})
        images = make_image_processor(self.model_type, self.policy, self._vision)
        says = {"image_seq_length": (self._across // self.policy.shuffle) ** 2}
        return VideoProcessor("InternVL", images, named, chat.template, says)

    def component(self, parameter: str) -> Component:
        """See `Family`."""
        return towers.find_component(parameter)
