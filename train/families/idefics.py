"""Idefics (Flamingo): gated cross-attention to resampled images (transformers' `IdeficsForVisionText2Text`).

An image is one placeholder, and a token sees the last image before it in its document, as in the papers. The class
replaces a missing attention mask by ones, under which packed documents would see each other: so it is given one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import (
    IdeficsConfig,
    IdeficsForVisionText2Text,
    IdeficsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics.configuration_idefics import IdeficsVisionConfig

from vlmill.pipeline.chat.encode import ChatFormat, get_mark_id
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import Layout
from vlmill.pipeline.images.resize import Resize
from vlmill.train.batch import Batch
from vlmill.train.families import language, towers, vision
from vlmill.train.families.base import Processor
from vlmill.train.families.processors import make_image_processor
from vlmill.train.settings import Component, ModelSettings

LATENTS, DEPTH, HEAD = 64, 6, 96
"""Of the perceiver resampler, as in the paper's models; HEAD is the width of its heads."""


@dataclass(frozen=True)
class Idefics:
    """Idefics under a policy that resizes images and has one placeholder for each."""

    settings: ModelSettings
    policy: Resize

    model_type: ClassVar[str] = "idefics"
    new: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Refuse a policy that does not fit the vision tower or has a placeholder for every patch."""
        vision.check_encoder(self._vision, self.policy)
        if not self.policy.whole:
            raise RecipeError(
                "the image policy (resize) has a placeholder for every patch; family idefics takes whole: true"
            )

    @cached_property
    def _vision(self) -> Any:
        return vision.convert_config(self.settings, "clip_vision_model", IdeficsVisionConfig)

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """See `Family`."""
        if self.settings.checkpoint is not None:
            return cast(
                "PreTrainedModel",
                towers.assemble_model((IdeficsForVisionText2Text, IdeficsConfig), self.settings, tokenizer, chat, {}),
            )
        text = language.configure_text(self.settings, tokenizer, chat)
        self._check_text(text)
        connector = self.settings.connector
        names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        more = ("hidden_act", "rms_norm_eps", "rope_parameters", "max_position_embeddings", "tie_word_embeddings")
        tokens = ("bos_token_id", "eos_token_id", "pad_token_id")
        config = IdeficsConfig(
            **{name: getattr(text, name) for name in (*names, *more, *tokens)},
            vision_config=self._vision.to_dict(),
            use_resampler=towers.choose_connector(self.settings) == "perceiver",
            perceiver_config={
                "use_resampler": True,
                "resampler_n_latents": LATENTS,
                "resampler_depth": connector.depth or DEPTH,
                "resampler_n_heads": max(1, self._vision.embed_dim // HEAD),
                "resampler_head_dim": HEAD,
            },
            cross_layer_interval=connector.interval,
            freeze_text_layers=False,
            freeze_vision_layers=False,
            image_token_id=get_mark_id(tokenizer, chat.image),
        )
        model = IdeficsForVisionText2Text(config)
        towers.load_towers(model, self.settings, model.model)
        return cast("PreTrainedModel", model)

    def _check_text(self, text: Any) -> None:
        """The class has its copy of Llama's layers, and cross-attention before some of them."""
        if text.model_type != "llama" or text.num_key_value_heads != text.num_attention_heads:
            raise RecipeError(
                "model.text: family idefics has the layers of a Llama with as many key heads as heads, not of "
                f"{text.model_type} with {text.num_key_value_heads} of {text.num_attention_heads}"
            )
        if text.num_hidden_layers % self.settings.connector.interval:
            raise RecipeError(
                f"model.connector.interval: {self.settings.connector.interval} does not divide "
                f"{text.num_hidden_layers} layers"
            )

    def visual_tokens(self, layout: Layout) -> int:  # noqa: ARG002 - every image has one placeholder
        """See `Family`."""
        return 1

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:
        """What each token sees, and the images of each sequence; where there are none, a black one that no token sees.

        `pixel_values` (sequences, most images of a sequence, 3, side, side), `image_attention_mask` (sequences, length,
        most images) and an additive `attention_mask` (sequences, 1, length, length).
        """
        shown = batch.ids == model.config.image_token_id
        seen, side = find_last_seen(shown, batch.documents), vision.get_side(self._vision)
        most = max(1, int(shown.sum(1).max()))
        pixels = torch.zeros(len(seen), most, 3, side, side, device=seen.device)
        if batch.tiles:
            row, place = shown.nonzero(as_tuple=True)
            pixels[row, seen[row, place]] = torch.stack(vision.normalise_pixels(batch, self._vision))
        return {
            "pixel_values": pixels,
            "image_attention_mask": functional.one_hot(seen + 1, most + 1)[..., 1:],
            "attention_mask": make_causal_mask(batch.documents),
        }

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> Processor:
        """See `Family`.

        The class writes BOS itself and takes images between texts, so there is no chat template that fits it.

        Behind the tokenizer's EOS it lets no token see the images before, so here that is the mark that ends a
        document.
        """
        tokenizer.eos_token = chat.eos
        images = make_image_processor(self.model_type, self.policy, self._vision)
        return cast("Processor", IdeficsProcessor(images, tokenizer, add_end_of_utterance_token=False))

    def component(self, parameter: str) -> Component:
        """See `Family`."""
        return towers.find_component(parameter)


def find_last_seen(shown: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
    """The number within its sequence of the last image at or before each token of its document, -1 where there is none.

    Args:
        shown: (sequences, length) where placeholders stand.
        documents: (sequences, length) the number of each token's document in its sequence.
    """
    count = shown.cumsum(1)
    begins = torch.ones_like(shown, dtype=torch.bool)
    begins[:, 1:] = documents.diff(dim=1) != 0
    before = torch.where(begins, count - shown.long(), 0).cummax(1).values
    return torch.where(count > before, count - 1, -1)


def make_causal_mask(documents: torch.Tensor) -> torch.Tensor:
    """What is added to attention scores (sequences, 1, length, length).

    Nothing towards what a token sees, the least number elsewhere.
    """
    place = torch.arange(documents.shape[1], device=documents.device)
    seen = (documents[:, :, None] == documents[:, None, :]) & (place[:, None] >= place)
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None]
