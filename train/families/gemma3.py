"""Gemma 3: a square whose patches are averaged in groups (transformers' `Gemma3ForConditionalGeneration`).

The tokens of an image see one another in both directions. Most layers of the language model see a window of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from tokenizers import Tokenizer
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from vlmill.pipeline.chat.encode import ChatFormat, get_mark_id
from vlmill.pipeline.images import Layout
from vlmill.pipeline.images.pooled import Pooled
from vlmill.train.batch import Batch
from vlmill.train.families import blocks, towers, vision
from vlmill.train.families.base import Processor
from vlmill.train.families.language import check_kind
from vlmill.train.families.processors import make_image_processor, name_tokens
from vlmill.train.settings import Component, ModelSettings, Pretrained


@dataclass(frozen=True)
class Gemma3:
    """Gemma 3 under a policy that averages patches."""

    settings: ModelSettings
    policy: Pooled

    model_type: ClassVar[str] = "gemma3"
    new: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Refuse another tower than a SigLIP, or a policy that does not fit it."""
        vision.check_form(self._vision, "siglip_vision_model", self.settings)
        vision.check_encoder(self._vision, self.policy)

    @cached_property
    def _vision(self) -> Any:
        """Positions of a pretrained tower are interpolated to the policy's side, as Gemma 3's were."""
        config = vision.configure_vision(self.settings)
        if isinstance(self.settings.vision, Pretrained):
            config.image_size = self.policy.side
        return config

    @property
    def _tokens(self) -> int:
        return int((vision.get_side(self._vision) // vision.get_patch(self._vision) // self.policy.pool) ** 2)

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """See `Family`. New weights of its projector are zero, as the class has them."""
        start, end = (get_mark_id(tokenizer, mark) for mark in chat.image_tokens.specials)
        config = {"vision_config": self._vision, "mm_tokens_per_image": self._tokens}
        classes = (Gemma3ForConditionalGeneration, Gemma3Config)
        model = towers.assemble_model(
            classes, self.settings, tokenizer, chat, config, lambda text: check_kind(text, "gemma3_text", self.settings)
        )
        model.config.boi_token_index, model.config.eoi_token_index = start, end
        return cast("PreTrainedModel", model)

    def visual_tokens(self, layout: Layout) -> int:  # noqa: ARG002 - every image has as many
        """See `Family`."""
        return self._tokens

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:
        """`pixel_values` (images, 3, side, side), which tokens are an image's, and what each token sees.

        `token_type_ids` (sequences, length) are what the class makes masks from where it is given none, as when it
        generates; `attention_mask` has one for each kind of layer, see `make_block_mask`.
        """
        text: Any = model.config.get_text_config()
        found = blocks.find_image_blocks(model.config, batch)
        eager = text._attn_implementation == "eager"  # noqa: SLF001 - there is no other way to ask
        seen = {
            kind: blocks.make_block_mask(batch.documents, found, window, additive=eager)
            for kind, window in (("full_attention", None), ("sliding_attention", text.sliding_window))
        }
        shown = {"pixel_values": torch.stack(vision.normalise_pixels(batch, self._vision))} if batch.tiles else {}
        return {**shown, "token_type_ids": (found >= 0).long(), "attention_mask": seen}

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> Processor:
        """See `Family`. The class asks its tokenizer for the marks of an image."""
        start, end = chat.image_tokens.specials
        named = name_tokens(tokenizer, {"boi_token": start, "eoi_token": end, "image_token": chat.image})
        images = make_image_processor(self.model_type, self.policy, self._vision)
        made = Gemma3Processor(images, named, chat_template=chat.template, image_seq_length=self._tokens)
        return cast("Processor", made)

    def component(self, parameter: str) -> Component:
        """See `Family`."""
        return towers.find_component(parameter)
