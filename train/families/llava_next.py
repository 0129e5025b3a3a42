"""LLaVA-NeXT: AnyRes tiles behind an overview (transformers' `LlavaNextForConditionalGeneration`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from tokenizers import Tokenizer
from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

from vlmill.pipeline.chat.encode import ChatFormat
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import Layout
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.connector import count_tile_tokens
from vlmill.train.batch import Batch
from vlmill.train.families import llava, towers, vision
from vlmill.train.families.base import Processor
from vlmill.train.families.exported import bring_code
from vlmill.train.families.exported.connected import ConnectedLlavaNext, ConnectedLlavaNextConfig
from vlmill.train.families.exported.connected_processors import ConnectedLlavaNextProcessor
from vlmill.train.families.processors import make_image_processor, to_pinpoints
from vlmill.train.settings import Component, ModelSettings


def count_shown(layout: Layout, policy: AnyRes, tower: Any, across: int | None = None) -> tuple[int, int]:
    """Rows and columns of tokens on an image's canvas that are not padding, by the model classes' own functions.

    `across` is how many tokens a tile has along a side; None: one of each patch.
    """
    width, height = layout.size
    across = across or vision.get_side(tower) // vision.get_patch(tower)
    rows, columns = get_anyres_image_grid_shape((height, width), to_pinpoints(policy), vision.get_side(tower))
    canvas = torch.empty(1, rows * across, columns * across, device="meta")
    _, down, wide = unpad_image(canvas, (height, width)).shape
    return down, wide


@dataclass(frozen=True)
class LlavaNext:
    """LLaVA 1.6 under an AnyRes policy that keeps every token of every image."""

    settings: ModelSettings
    policy: AnyRes

    model_type: ClassVar[str] = "llava_next"
    new: ClassVar[tuple[str, ...]] = ("model.image_newline",)

    def __post_init__(self) -> None:
        """Refuse a policy that does not fit the vision tower, or that is LLaVA-OneVision's."""
        vision.check_encoder(self._vision, self.policy)
        if self.policy.cap is not None or self.policy.many != "tiles":
            raise RecipeError(
                "the image policy (anyres) has a cap or letterboxes several images; family llava_next takes cap: "
                "null and many: tiles, family llava_onevision takes what it has"
            )

    @cached_property
    def _vision(self) -> Any:
        return vision.configure_vision(self.settings, self.policy.side)

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """See `Family`."""
        config = llava.describe_projector(self.settings, self._vision) | {
            "image_grid_pinpoints": to_pinpoints(self.policy)
        }
        classes: tuple[Any, Any] = (LlavaNextForConditionalGeneration, LlavaNextConfig)
        if self.settings.connector.counts:
            classes = bring_code(ConnectedLlavaNext, ConnectedLlavaNextConfig, ConnectedLlavaNextProcessor)
        return cast("PreTrainedModel", towers.assemble_model(classes, self.settings, tokenizer, chat, config))

    def visual_tokens(self, layout: Layout) -> int:
        """See `Family`: the overview's tokens, and the tokens and newline of each row that is not padding."""
        rows, columns = count_shown(layout, self.policy, self._vision, self._across)
        return int(self._across**2 + rows * (columns + 1))

    @property
    def _across(self) -> int:
        """Tokens along a side of a tile."""
        tile = count_tile_tokens(self.settings.connector, self.policy)
        return (tile and tile.side) or self.policy.side // self.policy.patch

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:  # noqa: ARG002 - nothing depends on it
        """`pixel_values` (tiles of all images, 3, side, side), and `image_sizes` (images, 2): height and width."""
        if not batch.tiles:
            return {}
        sizes = [(layout.size[1], layout.size[0]) for layout in batch.layouts]
        return {
            "pixel_values": torch.stack(vision.normalise_pixels(batch, self._vision)),
            "image_sizes": torch.tensor(sizes, device=batch.ids.device),
        }

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> Processor:
        """See `Family`."""
        images = make_image_processor(self.model_type, self.policy, self._vision)
        if self.settings.connector.counts:
            counted = {"tile_tokens": self._across**2}
            return llava.make_processor(ConnectedLlavaNextProcessor, images, self._vision, tokenizer, chat, counted)
        return llava.make_processor(LlavaNextProcessor, images, self._vision, tokenizer, chat)

    def component(self, parameter: str) -> Component:
        """See `Family`."""
        return towers.find_component(parameter)
