"""Idefics3 and SmolVLM: tiles and an overview, pixel shuffle (transformers' `Idefics3ForConditionalGeneration`).

SmolVLM is the same model with 512 px tiles and a shuffle of 4; transformers' class of that name differs in video alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from tokenizers import Tokenizer
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig

from vlmill.pipeline.chat.encode import ChatFormat
from vlmill.pipeline.chat.image_tokens import MOST
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import Layout
from vlmill.pipeline.images.tiles import Tiles
from vlmill.train.batch import Batch
from vlmill.train.families import towers, vision
from vlmill.train.families.base import Processor
from vlmill.train.families.processors import make_image_processor
from vlmill.train.settings import Component, ModelSettings


@dataclass(frozen=True)
class Idefics3:
    """Idefics3 under a policy of tiles."""

    settings: ModelSettings
    policy: Tiles

    model_type: ClassVar[str] = "idefics3"
    new: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Refuse a policy that does not fit the vision tower or the shuffle, or whose grids have no names."""
        vision.check_encoder(self._vision, self.policy)
        if self._across % self.policy.shuffle:
            raise RecipeError(
                f"the image policy (tiles) shuffles {self.policy.shuffle} x {self.policy.shuffle} patches, and a "
                f"tile has {self._across} x {self._across}"
            )
        if self.policy.longest > MOST * self.policy.side:
            raise RecipeError(
                f"the image policy (tiles) has longest {self.policy.longest}; Idefics3's processor has names for "
                f"{MOST} tiles of {self.policy.side} px a side"
            )

    @cached_property
    def _vision(self) -> Any:
        fits = {"image_size": self.policy.side} if self._pretrained else {}
        return vision.convert_config(self.settings, "siglip_vision_model", Idefics3VisionConfig, **fits)

    @property
    def _pretrained(self) -> bool:
        return self.settings.vision is not None and self.settings.vision.kind == "pretrained"

    @property
    def _across(self) -> int:
        return vision.get_side(self._vision) // vision.get_patch(self._vision)

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """See `Family`."""
        config = {"vision_config": self._vision, "scale_factor": self.policy.shuffle}
        classes = (Idefics3ForConditionalGeneration, Idefics3Config)
        return cast("PreTrainedModel", towers.assemble_model(classes, self.settings, tokenizer, chat, config))

    def visual_tokens(self, layout: Layout) -> int:
        """See `Family`: as many for every tile."""
        return int(layout.tiles * (self._across // self.policy.shuffle) ** 2)

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:  # noqa: ARG002 - nothing depends on it
        """`pixel_values` (1, tiles of all images, 3, side, side); nothing for a batch without images.

        The class drops tiles whose pixels are all 0.0, which no normalised 8-bit pixel is.
        """
        return {"pixel_values": torch.stack(vision.normalise_pixels(batch, self._vision))[None]} if batch.tiles else {}

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> Processor:
        """See `Family`."""
        images = make_image_processor(self.model_type, self.policy, self._vision)
        tokens = (self._across // self.policy.shuffle) ** 2
        made = Idefics3Processor(images, tokenizer, image_seq_len=tokens, chat_template=chat.template)
        return cast("Processor", made)

    def component(self, parameter: str) -> Component:
        """See `Family`."""
        return towers.find_component(parameter)
