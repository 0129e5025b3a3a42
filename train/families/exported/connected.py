"""LLaVA and LLaVA-NeXT with a connector between the vision tower and the projector.

Transformers' classes have the projector alone. These hand it what a connector makes of each tile's features, and so
also tell LLaVA-NeXT's canvas how many of them stand side by side. This file travels with an export, so it imports
nothing of ours but files beside it.
"""

# mypy: disable-error-code="misc, no-untyped-call, no-any-return"
# transformers' classes have no types
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
    unpad_image,
)

from .connectors import BEHIND, CONNECTORS, CAbstractor, Perceiver
from .fused import FusedVisionConfig, FusedVisionModel
from .upsampler import Doubling, Pointwise, Upsampler


def _register_tower() -> None:
    """Fused towers, which transformers does not know, may stand in front of any connector."""
    AutoConfig.register(FusedVisionConfig.model_type, FusedVisionConfig, exist_ok=True)
    AutoModel.register(FusedVisionConfig, FusedVisionModel, exist_ok=True)


class ConnectedLlavaConfig(LlavaConfig):
    """LLaVA's, with the recipe's `connector` block: kind, side, factor, latents, depth, upsample."""

    model_type = "connected_llava"

    connector: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Make configurations of dictionaries."""
        _register_tower()
        super().__post_init__(**kwargs)


class ConnectedLlavaNextConfig(LlavaNextConfig):
    """LLaVA-NeXT's, with the recipe's `connector` block."""

    model_type = "connected_llava_next"

    connector: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Make configurations of dictionaries."""
        _register_tower()
        super().__post_init__(**kwargs)


def count_across(tower: Any) -> int:
    """Patches along a side of a tower's input."""
    side, patch = (
        length[0] if isinstance(length, (list, tuple)) else length for length in (tower.image_size, tower.patch_size)
    )
    return int(side // patch)


class ConnectedProjector(LlavaMultiModalProjector):
    """LLaVA's projector behind a connector, or in front of one, and an upsampler before both if there is one."""

    linear_1: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        settings, across, width = config.connector, count_across(config.vision_config), self.linear_1.in_features
        times = settings.get("upsample")
        self.upsampler = Upsampler(width, times) if times else None
        self.behind, wide = settings["kind"] in BEHIND, self.linear_1.out_features
        self.connector = CONNECTORS[settings["kind"]](wide if self.behind else width, across * (times or 1), settings)
        if not self.behind and self.connector.width != width:
            self.linear_1 = nn.Linear(self.connector.width, wide, bias=config.multimodal_projector_bias)

    def forward(self, features: torch.Tensor, pictures: torch.Tensor | None = None) -> torch.Tensor:
        """(tiles, patches, width of vision) and the pixels (tiles, 3, side, side) -> (tiles, tokens, width of text)."""
        if self.upsampler is not None:
            features = self.upsampler(features, pictures)
        if self.behind:
            return self.connector(super().forward(features))
        return super().forward(self.connector(features))


class _Connected:
    """What the models below share."""

    config: Any
    vision_tower: Any
    multi_modal_projector: Any

    def read_tiles(self, pixels: torch.Tensor) -> torch.Tensor:
        """(tiles, 3, side, side) -> (tiles, tokens, width of text)."""
        seen = self.vision_tower(pixels, output_hidden_states=True, return_dict=True)
        features = seen.hidden_states[self.config.vision_feature_layer]
        if self.config.vision_feature_select_strategy == "default":
            features = features[:, 1:]
        return self.multi_modal_projector(features, pixels)

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        parent: Any = super()
        parent._init_weights(module)  # noqa: SLF001 - transformers asks models for it
        if isinstance(module, Pointwise):
            module.reset_parameters()
        elif isinstance(module, Perceiver):
            init.normal_(module.latents, std=0.02)
        elif isinstance(module, CAbstractor):
            init.normal_(module.positions, std=0.02)
        elif isinstance(module, Doubling):
            init.zeros_(module.temperature)
            init.ones_(module.spread)


class ConnectedLlavaModel(_Connected, LlavaModel):
    """LLaVA without its head."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.multi_modal_projector = ConnectedProjector(config)
        self.post_init()

    def get_image_features(self, pixel_values: torch.Tensor, **_: Any) -> Any:
        """`pooler_output`: a tensor (tokens, width) for each image."""
        return BaseModelOutputWithPooling(pooler_output=list(self.read_tiles(pixel_values)))


class ConnectedLlavaNextModel(_Connected, LlavaNextModel):
    """LLaVA-NeXT without its head."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.multi_modal_projector = ConnectedProjector(config)
        self.post_init()

    def get_image_features(self, pixel_values: torch.Tensor, image_sizes: Any, **_: Any) -> Any:
        """`pooler_output`: a tensor (tokens, width) for each image."""
        side = self.config.vision_config.image_size
        tiles = [image_size_to_num_patches(size, self.config.image_grid_pinpoints, side) for size in image_sizes]
        if pixel_values.dim() == 5:
            pixel_values = torch.cat([image[:number] for image, number in zip(pixel_values, tiles, strict=True)])
        features = self.read_tiles(pixel_values).split(tiles)
        packed, _lengths = self.pack_image_features(features, image_sizes, image_newline=self.image_newline)
        return BaseModelOutputWithPooling(pooler_output=packed)

    def pack_image_features(
        self,
        image_features: Sequence[torch.Tensor],
        image_sizes: Any,
        vision_feature_select_strategy: str | None = None,  # noqa: ARG002 - as the class has it
        image_newline: Any = None,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """As the class does it, with as many tokens a side as the connector makes of a tile."""
        config, packed = self.config, []
        for features, size in zip(image_features, image_sizes, strict=True):
            grid = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, config.vision_config.image_size)
            across = round(features.shape[1] ** 0.5)
            canvas = features[1:].unflatten(1, (across, across)).unflatten(0, grid).permute(4, 0, 2, 1, 3)
            canvas = unpad_image(canvas.flatten(1, 2).flatten(2, 3), size)
            if image_newline is not None:
                newlines = image_newline[:, None, None].expand(-1, canvas.shape[1], 1)
                canvas = torch.cat([canvas, newlines.to(canvas)], dim=-1)
            packed.append(torch.cat([features[0], canvas.flatten(1).T]))
        return packed, torch.tensor([len(image) for image in packed], device=packed[0].device)


class ConnectedLlava(LlavaForConditionalGeneration):
    """LLaVA whose projector gets what a connector makes of each image's patches."""

    config_class = ConnectedLlavaConfig

    def __init__(self, config: ConnectedLlavaConfig) -> None:
        super(LlavaForConditionalGeneration, self).__init__(config)  # whose own makes a model without a connector
        self.model = ConnectedLlavaModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()


class ConnectedLlavaNext(LlavaNextForConditionalGeneration):
    """LLaVA-NeXT whose projector gets what a connector makes of each tile's patches."""

    config_class = ConnectedLlavaNextConfig

    def __init__(self, config: ConnectedLlavaNextConfig) -> None:
        super(LlavaNextForConditionalGeneration, self).__init__(config)  # as above
        self.model = ConnectedLlavaNextModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()
