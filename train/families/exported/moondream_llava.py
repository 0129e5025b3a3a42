"""moondream's model: LLaVA with a wide projector, and a head with a bias, which Phi 1 to 2 have.

Transformers' LLaVA has neither, so this file travels with an export: `from_pretrained(folder, trust_remote_code=True)`
reads its copy there. It therefore imports nothing of ours.
"""

# mypy: disable-error-code="misc, no-untyped-call"
# transformers' classes have no types
from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from transformers import AutoConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.configuration_utils import SubConfigSpec


class MoondreamConfig(LlavaConfig):
    """LLaVA's, of a SigLIP and a Phi unless it says other ones."""

    model_type = "moondream_llava"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(AutoConfig, model_type="siglip_vision_model"),
        "text_config": SubConfigSpec(AutoConfig, model_type="phi"),
    }

    projector_times: int = 4  # as wide as the language model is the projector inside


class MoondreamProjector(nn.Module):
    """`VisionProjection` of github.com/vikhyat/moondream: (..., width of vision) to (..., width of text)."""

    def __init__(self, config: MoondreamConfig) -> None:
        super().__init__()
        text = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, config.projector_times * text)
        self.act = nn.GELU(approximate="tanh")
        self.linear_2 = nn.Linear(config.projector_times * text, text)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Two layers."""
        projected: torch.Tensor = self.linear_2(self.act(self.linear_1(features)))
        return projected


class MoondreamLlava(LlavaForConditionalGeneration):
    """LLaVA with moondream's projector and a head with a bias."""

    config_class = MoondreamConfig

    def __init__(self, config: MoondreamConfig) -> None:
        super().__init__(config)
        self.model.multi_modal_projector = MoondreamProjector(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size)
        self.post_init()
