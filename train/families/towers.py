"""What the LLaVA families share: their two towers, from settings or from local folders, and pixels as towers take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, CLIPVisionConfig, LlamaConfig, PreTrainedModel, SiglipVisionConfig
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from pipeline.encode import ChatFormat, mark_id
from pipeline.errors import RecipeError
from train.settings import ModelSettings, Part, Pretrained, TextModel, VisionTower

VISION = {
    # config class, mean, standard deviation, layer that is read, tokens besides the patches (CLS)
    "siglip_vision_model": (SiglipVisionConfig, IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, -1, 0),
    "clip_vision_model": (CLIPVisionConfig, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, -2, 1),
}
"""Vision towers, as the LLaVA papers read them: SigLIP's last layer whole, CLIP's last but one without its CLS token."""
