"""LLaVA-OneVision: AnyRes with a bound on the tokens of an image.

transformers' `LlavaOnevisionForConditionalGeneration`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from tokenizers import Tokenizer
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from vlmill.pipeline.chat.encode import ChatFormat
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import Layout
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.train.batch import Batch
from vlmill.train.families import llava, towers, vision
from vlmill.train.families.base import Processor
from vlmill.train.families.llava_next import count_shown
from vlmill.train.families.processors import VideoProcessor, make_image_processor, to_pinpoints
from vlmill.train.settings import Component, ModelSettings


class Letterboxed(int):
    """How many images of a group have one tile, never equal to 1.

    The model class tiles an image that is alone in its group (`n == 1`), and a cut document may have one image left of
    many.
    """

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


@dataclass(frozen=True)
class LlavaOnevision:
    """LLaVA-OneVision under an AnyRes policy with a cap: what is above it is reduced by bilinear interpolation."""

    settings: ModelSettings
    policy: AnyRes

    model_type: ClassVar[str] = "llava_onevision"
    new: ClassVar[tuple[str, ...]] = ("model.image_newline",)

    def __post_init__(self) -> None:
        """Refuse a policy that does not fit the vision tower, or that is LLaVA-NeXT's."""
        vision.check_encoder(self._vision, self.policy)
        if self.policy.cap is None or self.policy.many != "letterbox":
            raise RecipeError(
                "the image policy (anyres) has no cap or tiles several images; family llava_onevision takes a cap "
                "(9 in the paper) and many: letterbox, family llava_next takes what it has"
            )
        if self.policy.fill != vision.get_reading(self._vision).fill:
            raise RecipeError(
                f"the image policy (anyres) has fill {self.policy.fill}, and the model's vision tower takes "
                f"{vision.get_reading(self._vision).fill}; make them equal in the recipe"
            )

    @cached_property
    def _vision(self) -> Any:
        return vision.configure_vision(self.settings, self.policy.side)

    @property
    def _aspect(self) -> str:
        return f"anyres_max_{self.policy.cap}"

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """See `Family`."""
        config = llava.describe_projector(self.settings, self._vision) | {
            "image_grid_pinpoints": to_pinpoints(self.policy),
            "vision_aspect_ratio": self._aspect,
        }
        classes = (LlavaOnevisionForConditionalGeneration, LlavaOnevisionConfig)
        return cast("PreTrainedModel", towers.assemble_model(classes, self.settings, tokenizer, chat, config))

    def visual_tokens(self, layout: Layout) -> int:
        """See `Family`: as LLaVA-NeXT, rows and columns divided where they are too many; or a tile and a newline."""
        tile = (self.policy.side // self.policy.patch) ** 2
        if layout.tiles == 1:
            return tile + 1
        rows, columns = count_shown(layout, self.policy, self._vision)
        excess = math.sqrt(rows * columns / ((self.policy.cap or 1) * tile))
        if excess > 1.1:  # so in the class's `pack_image_features`
            rows, columns = int(rows // excess), int(columns // excess)
        return int(tile + rows * (columns + 1))

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:  # noqa: ARG002 - nothing depends on it
        """As LLaVA-NeXT's, and `batch_num_images`, which says of each image whether it is tiled."""
        if not batch.tiles:
            return {}
        sizes = [(layout.size[1], layout.size[0]) for layout in batch.layouts]
        return {
            "pixel_values": torch.stack(vision.normalise_pixels(batch, self._vision)),
            "image_sizes": torch.tensor(sizes, device=batch.ids.device),
            "batch_num_images": [1 if layout.tiles > 1 else Letterboxed(1) for layout in batch.layouts],
        }

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> Processor:
        """See `Family`."""
        images = make_image_processor(self.model_type, self.policy, self._vision)
        how = vision.get_reading(self._vision)
        says = {
            "num_image_tokens": (self.policy.side // self.policy.patch) ** 2 + how.others,
            "vision_feature_select_strategy": how.strategy,
            "vision_aspect_ratio": self._aspect,
            "image_token": chat.image,
        }
        return VideoProcessor("LlavaOnevision", images, tokenizer, chat.template, says)

    def component(self, parameter: str) -> Component:
        """See `Family`."""
        return towers.find_component(parameter)
