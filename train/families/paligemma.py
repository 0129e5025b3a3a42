"""PaliGemma: images and prompt seen in both directions (transformers' `PaliGemmaForConditionalGeneration`).

What stands before the first supervised token of a document is its prompt; all behind it is causal, further prompts too.
Positions begin at 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from tokenizers import Tokenizer
from transformers import (
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from vlmill.pipeline.chat.encode import ChatFormat
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import Layout
from vlmill.pipeline.images.resize import Resize
from vlmill.train.batch import Batch
from vlmill.train.families import blocks, towers, vision
from vlmill.train.families.base import Processor
from vlmill.train.families.language import check_kind
from vlmill.train.families.pretrained import read_config
from vlmill.train.families.processors import make_image_processor, name_tokens
from vlmill.train.settings import Component, ModelSettings, Pretrained, TextModel


@dataclass(frozen=True)
class PaliGemma:
    """PaliGemma, on a Gemma of the first generation, under a policy that resizes images."""

    settings: ModelSettings
    policy: Resize

    model_type: ClassVar[str] = "paligemma"
    new: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Refuse another tower than a SigLIP, or a policy that does not fit it."""
        vision.check_form(self._vision, "siglip_vision_model", self.settings)
        vision.check_encoder(self._vision, self.policy)
        if self.policy.whole:
            raise RecipeError("the image policy (resize) is whole, for cross-attention; PaliGemma reads every patch")

    @cached_property
    def _vision(self) -> Any:
        """Positions of a pretrained tower are interpolated to the policy's side, as those of 448 and 896 px were."""
        config = vision.configure_vision(self.settings)
        if isinstance(self.settings.vision, Pretrained):
            config.image_size = self.policy.side
        return config

    @property
    def _tokens(self) -> int:
        return int((vision.get_side(self._vision) // vision.get_patch(self._vision)) ** 2)

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """See `Family`.

        Raises:
            RecipeError: the language model is no Gemma; that of PaliGemma 2 caps its logits, which the loss does not
                do here, and has windows, which its class does not part from packed documents.
        """
        checkpoint, text = self.settings.checkpoint, self.settings.text
        if checkpoint is not None:
            check_kind(read_config(checkpoint).get_text_config(), "gemma", self.settings)
        config: dict[str, Any] = {"vision_config": self._vision}
        if text is not None:
            width = text.hidden_size if isinstance(text, TextModel) else read_config(text).get_text_config().hidden_size
            config |= {"projection_dim": width, "hidden_size": width}
        classes = (PaliGemmaForConditionalGeneration, PaliGemmaConfig)
        model = towers.assemble_model(
            classes, self.settings, tokenizer, chat, config, lambda text: check_kind(text, "gemma", self.settings)
        )
        return cast("PreTrainedModel", model)

    def visual_tokens(self, layout: Layout) -> int:  # noqa: ARG002 - every image has as many
        """See `Family`."""
        return self._tokens

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:
        """`pixel_values` (images, 3, side, side), what belongs to a prompt, what each token sees, and positions.

        `token_type_ids` (sequences, length), 0 in prompts, are what the class makes masks from where it is given none,
        as when it generates; `attention_mask` as `make_block_mask` has it.
        """
        found = blocks.find_prompts(model.config, batch)
        eager = model.config.get_text_config()._attn_implementation == "eager"  # noqa: SLF001 - there is no other way to ask
        shown = {"pixel_values": torch.stack(vision.normalise_pixels(batch, self._vision))} if batch.tiles else {}
        return {
            **shown,
            "token_type_ids": (found < 0).long(),
            "attention_mask": blocks.make_block_mask(batch.documents, found, additive=eager),
            "position_ids": batch.positions + 1,
        }

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> Processor:
        """See `Family`. The class asks its image processor for the tokens of an image."""
        images = make_image_processor(self.model_type, self.policy, self._vision)
        images.image_seq_length = self._tokens
        named = name_tokens(tokenizer, {"image_token": chat.image})
        return cast("Processor", PaliGemmaProcessor(images, named, chat_template=chat.template))

    def component(self, parameter: str) -> Component:
        """See `Family`."""
        return towers.find_component(parameter)
