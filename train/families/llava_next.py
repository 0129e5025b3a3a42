"""LLaVA-NeXT: AnyRes tiles behind an overview (transformers' `LlavaNextForConditionalGeneration`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

from pipeline.encode import ChatFormat
from pipeline.errors import RecipeError
from pipeline.images import Layout
from pipeline.images.anyres import AnyRes
from train.families import towers
from train.settings import ModelSettings, Part


@dataclass(frozen=True)
class LlavaNext:
    """LLaVA 1.6 under an AnyRes policy that keeps every token of every image."""

    settings: ModelSettings
    policy: AnyRes

    new: ClassVar[tuple[str, ...]] = ("model.image_newline",)

    def __post_init__(self) -> None:
        """Refuse a policy that does not fit the vision tower, or that is LLaVA-OneVision's."""
        towers.check_encoder(self._vision, self.policy)
        if self.policy.cap is not None or self.policy.many != "tiles":
            raise RecipeError(
                "the image policy (anyres) has a cap or letterboxes several images; family llava_next takes cap: null and many: tiles"
            )

    @cached_property
    def _vision(self) -> Any:
        return towers.vision_config(self.settings.vision)

    @cached_property
    def _pinpoints(self) -> list[list[int]]:
        return [list(pinpoint) for pinpoint in self.policy.pinpoints]

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """See `Family`."""
        classes = (LlavaNextForConditionalGeneration, LlavaNextConfig)
        return cast(
            "PreTrainedModel",
            towers.assemble(*classes, self.settings, tokenizer, chat, image_grid_pinpoints=self._pinpoints),
        )

    def visual_tokens(self, layout: Layout) -> int:
        """See `Family`: the overview's patches, and a row's patches and its newline for each row that is not padding."""
        width, height = layout.size
        across = self._vision.image_size // self._vision.patch_size
        rows, columns = get_anyres_image_grid_shape((height, width), self._pinpoints, self._vision.image_size)
        canvas = torch.empty(1, rows * across, columns * across, device="meta")
        _, shown_rows, shown_columns = unpad_image(canvas, (height, width)).shape
        return int(across**2 + shown_rows * (shown_columns + 1))

    def inputs(
        self, tiles: Sequence[np.ndarray], layouts: Sequence[Layout], device: torch.device
    ) -> dict[str, torch.Tensor]:
        """`pixel_values` (tiles of all images, 3, side, side) and `image_sizes` (images, 2) as (height, width) of the originals."""
        if not tiles:
            return {}
        sizes = [(layout.size[1], layout.size[0]) for layout in layouts]
        return {
            "pixel_values": towers.pixels(tiles, self._vision, device),
            "image_sizes": torch.tensor(sizes, device=device),
        }

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> ProcessorMixin:
        """See `Family`."""
        images = LlavaNextImageProcessorPil(image_grid_pinpoints=self._pinpoints, **towers.image_settings(self._vision))
        return cast("ProcessorMixin", towers.processor(LlavaNextProcessor, images, self._vision, tokenizer, chat))

    def part(self, parameter: str) -> Part:
        """See `Family`."""
        return towers.part(parameter)
