"""What the LLaVA families share: their two towers, from settings or from local folders, and pixels as towers take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, CLIPVisionConfig, LlamaConfig, SiglipVisionConfig
from transformers.image_utils import (
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from pipeline.encode import ChatFormat, mark_id
from pipeline.errors import RecipeError
from train.settings import ModelSettings, Part, Pretrained, TextModel, VisionTower


@dataclass(frozen=True, slots=True)
class Reading:
    """How a kind of vision tower is fed and read."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    layer: int  # of hidden states that the projector gets
    others: int  # tokens besides the patches (CLS), left out

    @property
    def strategy(self) -> str:
        """What transformers calls leaving out the first token, or none."""
        return "default" if self.others else "full"


READINGS = {
    "siglip_vision_model": Reading(tuple(IMAGENET_STANDARD_MEAN), tuple(IMAGENET_STANDARD_STD), -1, 0),
    "clip_vision_model": Reading(tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD), -2, 1),
}
"""By transformers' model type, as the LLaVA papers read them: SigLIP's last layer, CLIP's last but one without its CLS token."""


def vision_config(settings: VisionTower | Pretrained) -> Any:
    """The configuration of the vision tower.

    Raises:
        RecipeError: the folder holds no tower that READINGS knows.
    """
    if isinstance(settings, VisionTower):
        kind = {"siglip": SiglipVisionConfig, "clip": CLIPVisionConfig}[settings.kind]
        return kind(
            hidden_size=settings.hidden_size,
            intermediate_size=4 * settings.hidden_size,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            image_size=settings.image_size,
            patch_size=settings.patch_size,
            **({"vision_use_head": False} if settings.kind == "siglip" else {}),  # its pooling is never read
        )
    config = AutoConfig.from_pretrained(settings.path, local_files_only=True)
    config = getattr(config, "vision_config", config)
    if config.model_type not in READINGS:
        raise RecipeError(
            f"model.vision.path: {settings.path} holds a {config.model_type}; a tower must be {' or '.join(READINGS)}"
        )
    if config.model_type == "siglip_vision_model":
        config.vision_use_head = False
    return config


def text_config(settings: TextModel | Pretrained, tokenizer: Tokenizer, chat: ChatFormat) -> Any:
    """The configuration of the language model, with room for every token of the tokenizer."""
    vocabulary = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    marks = {f"{name}_token_id": mark_id(tokenizer, getattr(chat, name)) for name in ("bos", "eos", "pad")}
    if isinstance(settings, TextModel):
        return LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=settings.hidden_size,
            intermediate_size=8 * settings.hidden_size // 3,  # Llama's share for a gated network
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            max_position_embeddings=settings.positions,
            **marks,
        )
    config = AutoConfig.from_pretrained(settings.path, local_files_only=True)
    config.vocab_size = max(config.vocab_size, vocabulary)
    config.update(marks)
    return config


def load_pretrained(model: Any, settings: ModelSettings) -> None:
    """Put the weights of pretrained towers into a new model. Embeddings that a tokenizer adds stay new."""
    if isinstance(settings.vision, Pretrained):
        tower = model.model.vision_tower
        vision = type(tower).from_pretrained(settings.vision.path, config=tower.config, local_files_only=True)
        tower.load_state_dict(vision.state_dict())
    if isinstance(settings.text, Pretrained):
        text = AutoModelForCausalLM.from_pretrained(settings.text.path, local_files_only=True, dtype=torch.float32)
        text.resize_token_embeddings(model.config.text_config.vocab_size)
        model.model.language_model.load_state_dict(text.base_model.state_dict())
        model.lm_head.load_state_dict(text.get_output_embeddings().state_dict())


def assemble(
    model_class: Any,
    config_class: Any,
    settings: ModelSettings,
    tokenizer: Tokenizer,
    chat: ChatFormat,
    **extra: Any,
) -> Any:
    """A LLaVA class over the two towers, in float32; `extra` is what its configuration has besides."""
    vision, text = vision_config(settings.vision), text_config(settings.text, tokenizer, chat)
    reading = READINGS[vision.model_type]
    config = config_class(
        vision_config=vision,
        text_config=text,
        image_token_index=mark_id(tokenizer, chat.image),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=reading.layer,
        vision_feature_select_strategy=reading.strategy,
        tie_word_embeddings=text.tie_word_embeddings,
        **extra,
    )
    model = model_class(config)
    load_pretrained(model, settings)
    return model


def processor(processor_class: Any, images: Any, vision: Any, tokenizer: Any, chat: ChatFormat) -> Any:
    """A LLaVA processor over an image processor and a tokenizer, with the chat format as its template."""
    reading = READINGS[vision.model_type]
    return processor_class(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=reading.strategy,
        num_additional_image_tokens=reading.others,
        image_token=chat.image,
        chat_template=chat.template,
    )


def image_settings(vision: Any) -> dict[str, Any]:
    """What the image processors of both LLaVA classes are told: one tile is the encoder's square, pixels are normalised."""
    reading, side = READINGS[vision.model_type], vision.image_size
    square = {"height": side, "width": side}
    return {
        "size": square,
        "crop_size": square,
        "image_mean": list(reading.mean),
        "image_std": list(reading.std),
    }


def check_encoder(vision: Any, policy: Any, **more: tuple[int, ...]) -> None:
    """Refuse a policy whose tiles are not what the vision tower takes.

    Raises:
        RecipeError: names what differs: the side, the patch, or among `more` the fill.
    """
    fill = tuple(int(255 * mean) for mean in READINGS[vision.model_type].mean)
    wants = {"side": vision.image_size, "patch": vision.patch_size, "fill": fill}
    for name, has in {"side": policy.side, "patch": policy.patch, **more}.items():
        if wants[name] != has:
            raise RecipeError(
                f"the image policy ({policy.kind}) has {name} {has}, and the model's vision tower "
                f"({vision.model_type}) takes {wants[name]}; make them equal in the recipe"
            )


def pixels(tiles: Sequence[np.ndarray], vision: Any, device: torch.device) -> torch.Tensor:
    """All tiles of all images, normalised: (sum of tiles, 3, side, side) float32, in order.

    The arithmetic of `rescale` and `normalize` in transformers' image_transforms, in their order.
    """
    reading = READINGS[vision.model_type]
    stacked = torch.from_numpy(np.concatenate(tiles)).to(device).permute(0, 3, 1, 2).float() * (1 / 255)
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (reading.mean, reading.std))
    return (stacked - mean) / std


def part(parameter: str) -> Part:
    """The part that a parameter of a LLaVA class belongs to."""
    if parameter.startswith("model.vision_tower."):
        return "vision"
    if parameter.startswith(("model.multi_modal_projector.", "model.image_newline")):
        return "projector"
    return "text"
