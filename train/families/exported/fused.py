"""Prismatic's vision: two towers over one image, their patches side by side, in front of LLaVA's projector or theirs.

Transformers has no class for it, so this file travels with an export: `from_pretrained(folder, trust_remote_code=True)`
reads its copy there. It therefore imports nothing of ours.
"""

# mypy: disable-error-code="misc, no-untyped-call"
# transformers' classes have no types
from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.modeling_outputs import BaseModelOutputWithPooling


class FusedVisionConfig(PreTrainedConfig):
    """Two vision towers of equally many patches, and how each is fed and read."""

    model_type = "fused_vision"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "first": SubConfigSpec(AutoConfig, model_type="dinov2"),
        "second": SubConfigSpec(AutoConfig, model_type="siglip_vision_model"),
    }

    first: Any = None
    second: Any = None
    means: list[list[float]] | None = None  # of the pixels that each tower takes
    stds: list[list[float]] | None = None
    mean: list[float] | None = None  # of the pixels that the model is given
    std: list[float] | None = None
    layers: list[int] | None = None  # of hidden states that each is read at
    others: list[int] | None = None  # tokens of each in front of the patches, left out
    image_size: int = 384
    patch_size: int = 14
    hidden_size: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        """Make configurations of dictionaries; features are as wide as both towers together."""
        super().__post_init__(**kwargs)
        self.hidden_size = sum(tower.hidden_size for tower in (self.first, self.second))


class FusedVisionModel(PreTrainedModel):
    """The patches (images, patches, width of both) of two towers, as the only hidden state."""

    config_class = FusedVisionConfig
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: FusedVisionConfig) -> None:
        super().__init__(config)
        self.first = AutoModel.from_config(config.first)
        self.second = AutoModel.from_config(config.second)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """Each tower gets the pixels normalised as it was trained on them."""
        config, features = self.config, []
        raw = pixel_values * _make_column(config.std, pixel_values) + _make_column(config.mean, pixel_values)
        for place, tower in enumerate((self.first, self.second)):
            pixels = (raw - _make_column(config.means[place], raw)) / _make_column(config.stds[place], raw)
            hidden = tower(pixels, output_hidden_states=True, return_dict=True).hidden_states[config.layers[place]]
            features.append(hidden[:, config.others[place] :])
        together = torch.cat(features, dim=-1)
        return BaseModelOutputWithPooling(last_hidden_state=together, hidden_states=(together,))


def _make_column(values: list[float], like: torch.Tensor) -> torch.Tensor:
    return like.new_tensor(values).view(1, 3, 1, 1)


class FusedProjector(nn.Module):
    """Prismatic's (arXiv 2402.07865; `FusedMLPProjector` of github.com/TRI-ML/prismatic-vlms): three linear layers.

    (..., width of both towers) to four times that width, to the language model's, and to the same once more.
    """

    def __init__(self, config: FusedLlavaConfig) -> None:
        super().__init__()
        fused, text = config.vision_config.hidden_size, config.text_config.hidden_size
        self.linear_1 = nn.Linear(fused, 4 * fused)
        self.linear_2 = nn.Linear(4 * fused, text)
        self.linear_3 = nn.Linear(text, text)
        self.act = nn.GELU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """A GELU stands between two layers."""
        hidden: torch.Tensor = self.linear_2(self.act(self.linear_1(features)))
        projected: torch.Tensor = self.linear_3(self.act(hidden))
        return projected


class FusedLlavaConfig(LlavaConfig):
    """LLaVA's, over two vision towers."""

    model_type = "fused_llava"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": FusedVisionConfig,
        "text_config": SubConfigSpec(AutoConfig, model_type="llama"),
    }

    projector_layers: int = 2  # LLaVA's projector; 3: Prismatic's


class FusedLlava(LlavaForConditionalGeneration):
    """LLaVA over two vision towers."""

    config_class = FusedLlavaConfig

    def __init__(self, config: FusedLlavaConfig) -> None:
        AutoModel.register(FusedVisionConfig, FusedVisionModel, exist_ok=True)  # which LLaVA's own constructor asks
        super().__init__(config)
        if config.projector_layers == 3:
            self.model.multi_modal_projector = FusedProjector(config)
            self.post_init()
