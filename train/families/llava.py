"""LLaVA: one letterboxed tile per image (transformers' `LlavaForConditionalGeneration`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from pipeline.encode import ChatFormat
from pipeline.images import Layout
from pipeline.images.letterbox import Letterbox
from train.families import towers
from train.settings import ModelSettings, Part


@dataclass(frozen=True)
class Llava:
    """LLaVA 1.5 under a letterbox policy."""

    settings: ModelSettings
    policy: Letterbox

    new: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Refuse a policy that does not fit the vision tower."""
        towers.check_encoder(self._vision, self.policy, fill=self.policy.fill)

    @cached_property
    def _vision(self) -> Any:
        return towers.vision_config(self.settings.vision)

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """See `Family`."""
        return cast(
            "PreTrainedModel",
            towers.assemble(LlavaForConditionalGeneration, LlavaConfig, self.settings, tokenizer, chat),
        )

    def visual_tokens(self, layout: Layout) -> int:  # noqa: ARG002 - every image has as many
        """See `Family`."""
        return int((self._vision.image_size // self._vision.patch_size) ** 2)

    def inputs(
        self,
        tiles: Sequence[np.ndarray],
        layouts: Sequence[Layout],  # noqa: ARG002 - squares need no sizes
        device: torch.device,
    ) -> dict[str, torch.Tensor]:
        """`pixel_values` (images, 3, side, side); nothing for a batch without images."""
        return {"pixel_values": towers.pixels(tiles, self._vision, device)} if tiles else {}

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> ProcessorMixin:
        """See `Family`."""
        images = LlavaImageProcessorPil(do_pad=True, **towers.image_settings(self._vision))
        return cast("ProcessorMixin", towers.processor(LlavaProcessor, images, self._vision, tokenizer, chat))

    def part(self, parameter: str) -> Part:
        """See `Family`."""
        return towers.part(parameter)
