"""Idefics2: images in their own shape, a perceiver resampler (transformers' `Idefics2ForConditionalGeneration`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from tokenizers import Tokenizer
from transformers import (
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2Processor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig

from vlmill.pipeline.chat.encode import ChatFormat
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import Layout
from vlmill.pipeline.images.navit import NaViT
from vlmill.train.batch import Batch
from vlmill.train.families import language, towers, vision
from vlmill.train.families.base import Processor
from vlmill.train.families.pretrained import read_config
from vlmill.train.families.processors import make_image_processor
from vlmill.train.settings import Component, ModelSettings

HEAD = 96  # width of a perceiver's heads, and 4 queries to a key, as in the paper's model
DEPTH = 3


@dataclass(frozen=True)
class Idefics2:
    """Idefics2 under a NaViT policy."""

    settings: ModelSettings
    policy: NaViT

    model_type: ClassVar[str] = "idefics2"
    new: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Refuse a policy with another number of latents than a checkpoint's, or with images smaller than a patch."""
        if self._latents != self.policy.latents:
            raise RecipeError(
                f"the image policy (navit) has latents {self.policy.latents}, and the checkpoint's resampler has "
                f"{self._latents}"
            )
        if self.policy.shortest < vision.get_patch(self._vision):
            raise RecipeError(
                f"the image policy (navit) has shortest {self.policy.shortest}, less than a patch of "
                f"{vision.get_patch(self._vision)} px"
            )

    @cached_property
    def _vision(self) -> Any:
        """Positions of a pretrained tower are interpolated to the longest side, as the paper does."""
        pretrained = self.settings.vision is not None and self.settings.vision.kind == "pretrained"
        fits = {"image_size": self.policy.longest} if pretrained else {}
        return vision.convert_config(self.settings, "siglip_vision_model", Idefics2VisionConfig, **fits)

    @cached_property
    def _latents(self) -> int:
        if (source := self.settings.checkpoint) is None:
            return self.policy.latents
        config = read_config(source)
        return int(config.perceiver_config.resampler_n_latents)

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """See `Family`."""
        config: dict[str, Any] = {"vision_config": self._vision}
        if self.settings.checkpoint is None:
            text = language.configure_text(self.settings, tokenizer, chat)
            heads = max(1, text.hidden_size // HEAD // 4) * 4
            config["perceiver_config"] = {
                "hidden_size": text.hidden_size,
                "rms_norm_eps": getattr(text, "rms_norm_eps", 1e-6),
                "resampler_n_latents": self.policy.latents,
                "resampler_depth": self.settings.connector.depth or DEPTH,
                "resampler_n_heads": heads,
                "num_key_value_heads": heads // 4,
                "resampler_head_dim": HEAD,
            }
        classes = (Idefics2ForConditionalGeneration, Idefics2Config)
        return cast("PreTrainedModel", towers.assemble_model(classes, self.settings, tokenizer, chat, config))

    def visual_tokens(self, layout: Layout) -> int:
        """See `Family`: as many for every input, whatever its size."""
        return layout.tiles * self._latents

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:  # noqa: ARG002 - nothing depends on it
        """`pixel_values` (1, inputs of all images, 3, height, width), and the mask of what is not padding.

        Inputs are padded below and to the right.
        """
        if not batch.tiles:
            return {}
        images = vision.normalise_pixels(batch, self._vision)
        height, width = (max(image.shape[side] for image in images) for side in (1, 2))
        padded = torch.zeros(1, len(images), 3, height, width, device=batch.ids.device)
        mask = torch.zeros(1, len(images), height, width, dtype=torch.long, device=batch.ids.device)
        for number, image in enumerate(images):
            padded[0, number, :, : image.shape[1], : image.shape[2]] = image
            mask[0, number, : image.shape[1], : image.shape[2]] = 1
        return {"pixel_values": padded, "pixel_attention_mask": mask}

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> Processor:
        """See `Family`."""
        images = make_image_processor(self.model_type, self.policy, self._vision)
        made = Idefics2Processor(images, tokenizer, image_seq_len=self._latents, chat_template=chat.template)
        return cast("Processor", made)

    def component(self, parameter: str) -> Component:
        """See `Family`."""
        return towers.find_component(parameter)
