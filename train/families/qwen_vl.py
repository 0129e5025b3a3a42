"""Qwen2.5-VL and Qwen3-VL: images at native resolution, positions on three axes (transformers' classes of that name).

A still image is its own next frame, as temporal patches of two want it. All images of a batch are one sequence of
patches, and the class keeps them apart: Qwen2.5-VL's tower attends in windows but for some layers, Qwen3-VL's hands
features of some layers to the first ones of the language model (DeepStack).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig

from vlmill.pipeline.chat.encode import ChatFormat, get_mark_id
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import Layout
from vlmill.pipeline.images.native import Native
from vlmill.train.batch import Batch
from vlmill.train.families import towers, vision
from vlmill.train.families.base import Processor
from vlmill.train.families.exported import bring_code, positions
from vlmill.train.families.pretrained import read_config
from vlmill.train.families.processors import VideoProcessor, make_image_processor
from vlmill.train.settings import Component, ModelSettings, TextModel

for _kind in (positions.PositionedQwen2_5_VLConfig, positions.PositionedQwen3VLConfig):
    AutoConfig.register(_kind.model_type, _kind, exist_ok=True)  # so that an export can be trained on


@dataclass(frozen=True)
class Qwen25VL:
    """Qwen2.5-VL under a policy of native resolution."""

    settings: ModelSettings
    policy: Native

    model_type: ClassVar[str] = "qwen2_5_vl"
    new: ClassVar[tuple[str, ...]] = ()
    classes: ClassVar[tuple[Any, Any]] = (Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig)
    text: ClassVar[tuple[str, Any]] = ("qwen2", Qwen2_5_VLTextConfig)
    processors: ClassVar[tuple[str, str]] = ("Qwen2_5_VL", "Qwen2VL")  # of all, and of videos, without the last words

    def __post_init__(self) -> None:
        """Refuse another tower than the class has, or a policy that does not fit it."""
        tower = self._vision
        if tower.model_type != f"{self.model_type}_vision":
            raise RecipeError(
                f"model.vision: family {self.settings.family} has a tower of the form of {self.model_type}_vision, not "
                f"{tower.model_type}"
            )
        for name, has, wanted in (
            ("patch", self.policy.patch, tower.patch_size),
            ("merge", self.policy.merge, tower.spatial_merge_size),
        ):
            if has != wanted:
                raise RecipeError(
                    f"the image policy (native) has {name} {has}, and the model's vision tower ({tower.model_type}) "
                    f"takes {wanted}; make them equal in the recipe"
                )

    @cached_property
    def _vision(self) -> Any:
        """The tower, whose features are as wide as the language model's."""
        config, text = vision.configure_vision(self.settings), self.settings.text
        if text is not None:
            config.out_hidden_size = text.hidden_size if isinstance(text, TextModel) else read_config(text).hidden_size
        return config

    @cached_property
    def scheme(self) -> str:
        """Of positions: the recipe's, or that of the checkpoint."""
        source = self.settings.checkpoint
        found = "mrope" if source is None else getattr(read_config(source), "positions", "mrope")
        return self.settings.positions or found

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """See `Family`. Under another scheme than M-RoPE the model is of a class of ours."""
        start, end, video = chat.image_tokens.specials
        marks = {"vision_start_token_id": start, "vision_end_token_id": end, "video_token_id": video}
        config = {name: get_mark_id(tokenizer, mark) for name, mark in marks.items()} | {"vision_config": self._vision}
        model = towers.assemble_model(self.classes, self.settings, tokenizer, chat, config, self._convert_text)
        for name in marks:
            setattr(model.config, name, config[name])
        if self.scheme == "mrope":
            vars(model.config).pop("positions", None)
        else:
            positions.use_scheme(model, self.scheme)
            bring_code(type(model), type(model.config))
        return cast("PreTrainedModel", model)

    def _convert_text(self, text: Any) -> Any:
        """The configuration of a language model as the class has it, with sections of the rotary frequencies."""
        kind, config_class = self.text
        if text.model_type not in {kind, config_class.model_type}:
            raise RecipeError(
                f"model.text: family {self.settings.family} has the layers of {kind}, not of {text.model_type}"
            )
        names = set(inspect.signature(config_class.__init__).parameters) - {"self", "kwargs"}
        kept = {name: value for name, value in text.to_dict().items() if name in names}
        if kept.get("head_dim", 0) is None:
            del kept["head_dim"]
        width = kept.get("head_dim") or text.hidden_size // text.num_attention_heads
        rope = dict(text.rope_parameters) | {"mrope_section": self.divide_frequencies(width // 2)}
        made = config_class(**kept | {"rope_parameters": rope})
        made.tie_word_embeddings = text.tie_word_embeddings
        return made

    @staticmethod
    def divide_frequencies(number: int) -> list[int]:
        """How many frequencies turn with time, rows and columns: 16, 24 and 24 of 64, as published."""
        across = max(1, number * 3 // 8)
        return [number - 2 * across, across, across]

    def visual_tokens(self, layout: Layout) -> int:
        """See `Family`."""
        rows, columns = self._count_groups(layout)
        return rows * columns

    def _count_groups(self, layout: Layout) -> tuple[int, int]:
        """Rows and columns of an image's visual tokens."""
        width, height = layout.canvas
        side = self._vision.patch_size * self._vision.spatial_merge_size
        return height // side, width // side

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:
        """Patches of all images, their grids, which tokens are an image's, and positions.

        `pixel_values` (patches, values of one), `image_grid_thw` (images, 3): frames, rows and columns of patches;
        `mm_token_type_ids` (sequences, length); `position_ids` (4, sequences, length): places in documents, from which
        the class infers their borders, then the three axes.
        """
        shown, merge = batch.ids == model.config.image_token_id, self._vision.spatial_merge_size
        grids = [self._count_groups(layout) for layout in batch.layouts]
        axes = positions.place_tokens(getattr(model.config, "positions", "mrope"), shown, batch.documents, grids)
        found = {"position_ids": torch.cat([batch.positions[None].to(axes), axes])}
        if not batch.tiles:
            return found
        images = vision.normalise_pixels(batch, self._vision)
        frames = [[1, rows * merge, columns * merge] for rows, columns in grids]
        return found | {
            "pixel_values": torch.cat([self._cut_patches(image) for image in images]),
            "image_grid_thw": torch.tensor(frames, device=batch.ids.device),
            "mm_token_type_ids": shown.int(),
        }

    def _cut_patches(self, image: torch.Tensor) -> torch.Tensor:
        """(3, height, width) -> (patches, 3 * frames * patch * patch), those of a visual token one behind the other.

        `patchify` of transformers' Qwen2VLImageProcessorPil.
        """
        patch, merge, frames = (
            getattr(self._vision, name) for name in ("patch_size", "spatial_merge_size", "temporal_patch_size")
        )
        channels, height, width = image.shape
        rows, columns = height // patch // merge, width // patch // merge
        cut = image.reshape(channels, rows, merge, patch, columns, merge, patch).permute(1, 4, 2, 5, 0, 3, 6)
        twice = cut[:, :, :, :, :, None].expand(-1, -1, -1, -1, -1, frames, -1, -1)
        return twice.reshape(rows * columns * merge**2, -1)

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> Processor:
        """See `Family`."""
        images = make_image_processor(self.model_type, self.policy, self._vision)
        kind, videos = self.processors
        return VideoProcessor(kind, images, tokenizer, chat.template, {}, videos)

    def component(self, parameter: str) -> Component:
        """See `Family`."""
        return towers.find_component(parameter)


@dataclass(frozen=True)
class Qwen3VL(Qwen25VL):
    """Qwen3-VL under a policy of native resolution."""

    model_type: ClassVar[str] = "qwen3_vl"
    classes: ClassVar[tuple[Any, Any]] = (Qwen3VLForConditionalGeneration, Qwen3VLConfig)
    text: ClassVar[tuple[str, Any]] = ("qwen3", Qwen3VLTextConfig)
    processors: ClassVar[tuple[str, str]] = ("Qwen3VL", "Qwen3VL")

    @staticmethod
    def divide_frequencies(number: int) -> list[int]:
        """How many frequencies turn with time, rows and columns: 24, 20 and 20 of 64 as published, interleaved."""
        across = max(1, number * 5 // 16)
        return [number - 2 * across, across, across]
