"""Fuyu: raw patches through one linear layer, no vision tower (transformers' `FuyuForCausalLM`).

A patch is a token, a row of patches a line of text with a mark behind it, and a token's position its place in its
document. So nothing of an image is lost before the language model, whose training is all that there is to train
(Adept 2023; the input half of https://kexue.fm/archives/9984).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from tokenizers import Tokenizer
from transformers import FuyuConfig, FuyuForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from vlmill.pipeline.chat.encode import ChatFormat
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import Layout
from vlmill.pipeline.images.patches import Patches
from vlmill.train.batch import Batch
from vlmill.train.families import towers, vision
from vlmill.train.families.base import Processor
from vlmill.train.families.exported.fuyu_processor import FuyuLinesProcessor
from vlmill.train.families.pretrained import read_config
from vlmill.train.families.processors import find_image_processor
from vlmill.train.settings import Component, ModelSettings, RawPatches


@dataclass(frozen=True)
class Fuyu:
    """Fuyu under a policy of raw patches."""

    settings: ModelSettings
    policy: Patches

    model_type: ClassVar[str] = "fuyu"
    new: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Refuse a vision tower, and patches of another size than the policy cuts."""
        if self.policy.patch != self._patch:
            raise RecipeError(
                f"the image policy (patches) has patch {self.policy.patch}, and the model's linear layer takes patches "
                f"of {self._patch} px; make them equal in the recipe"
            )

    @cached_property
    def _patch(self) -> int:
        if (source := self.settings.checkpoint) is not None:
            return int(read_config(source).patch_size)
        if not isinstance(self.settings.vision, RawPatches):
            raise RecipeError(
                "model.vision: family fuyu has no vision tower; write vision: {kind: patches, patch_size: "
                f"{self.policy.patch}}}"
            )
        return self.settings.vision.patch_size

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """See `Family`."""
        classes = (FuyuForCausalLM, FuyuConfig)
        return cast(
            "PreTrainedModel",
            towers.assemble_model(classes, self.settings, tokenizer, chat, {"patch_size": self._patch}),
        )

    def visual_tokens(self, layout: Layout) -> int:
        """See `Family`."""
        width, height = layout.canvas
        return -(-width // self._patch) * -(-height // self._patch)

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:
        """`pixel_values` (patches of all images, patch * patch * 3); nothing for a batch without images."""
        if not batch.tiles:
            return {}
        images = vision.scale_pixels(batch, vision.RAW)
        patches = torch.cat([self._cut_patches(image) for image in images])
        return {"pixel_values": patches.to(model.dtype)}  # the class has no tower that would do it

    def _cut_patches(self, image: torch.Tensor) -> torch.Tensor:
        """(3, height, width) -> (patches, patch * patch * 3): `patchify_image` of transformers' image processor."""
        channels, height, width = image.shape
        rows, columns = height // self._patch, width // self._patch
        cut = image.reshape(channels, rows, self._patch, columns, self._patch).permute(1, 3, 2, 4, 0)
        return cut.reshape(rows * columns, -1)

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> Processor:
        """See `Family`. It is of a class of ours, whose file the export brings along."""
        said = {"image_mean": list(vision.RAW.mean), "image_std": list(vision.RAW.std)}
        images = find_image_processor(self.model_type, self.policy)(self.policy, said)
        FuyuLinesProcessor.register_for_auto_class("AutoProcessor")
        return cast("Processor", FuyuLinesProcessor(images, tokenizer, chat.template))

    def component(self, parameter: str) -> Component:
        """See `Family`. The linear layer is the projector; nothing is of a vision tower."""
        return towers.find_component(parameter)
