"""Language models: from settings, local folders or the Hub, with a row for every token of the recipe's tokenizer."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PersimmonConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from vlmill.pipeline.chat.encode import ChatFormat, get_mark_id
from vlmill.pipeline.core.errors import RecipeError
from vlmill.train.families.pretrained import read_config
from vlmill.train.settings import ModelSettings, Pretrained, TextModel

CONFIGS = {
    "gemma": GemmaConfig,
    "gemma3": Gemma3TextConfig,
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "persimmon": PersimmonConfig,
    "phi": PhiConfig,
    "phi3": Phi3Config,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "smollm3": SmolLM3Config,
}


GEMMA3_WINDOW, GEMMA3_EVERY = 1024, 6
"""Tokens that most layers of a Gemma 3 see, from 4B on, and which layers see all: every sixth (arXiv 2503.19786)."""


def count_vocabulary(tokenizer: Tokenizer) -> int:
    """How many rows an embedding needs for every token."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def configure_text(settings: ModelSettings, tokenizer: Tokenizer, chat: ChatFormat) -> Any:
    """The configuration of a model's language model.

    Raises:
        RecipeError: a pretrained one is a whole model, or cannot be read.
    """
    text = settings.text
    said = {"bos": chat.bos, "eos": chat.eos, "pad": chat.pad}  # a published tokenizer may have no BOS
    marks = {f"{name}_token_id": get_mark_id(tokenizer, mark) if mark else None for name, mark in said.items()}
    if isinstance(text, TextModel):
        if text.kind == "persimmon" and text.kv_heads not in {None, text.heads}:
            raise RecipeError(
                f"model.text.kv_heads is {text.kv_heads}; a persimmon has as many as heads ({text.heads}): leave it out"
            )
        plain = text.kind in {"persimmon", "phi"}  # a network without a gate
        return CONFIGS[text.kind](
            vocab_size=count_vocabulary(tokenizer),
            hidden_size=text.hidden_size,
            intermediate_size=4 * text.hidden_size if plain else 8 * text.hidden_size // 3,
            num_hidden_layers=text.layers,
            num_attention_heads=text.heads,
            num_key_value_heads=text.kv_heads or text.heads,
            max_position_embeddings=text.positions,
            tie_word_embeddings=text.tied,
            **_configure_heads(text),
            **marks,
        )
    assert text is not None
    config = read_config(text)
    if hasattr(config, "vision_config"):
        raise RecipeError(
            f"model.text.path: {text.path} ({config.model_type}) is a whole model; model.checkpoint takes one, in the "
            "family of its class"
        )
    config.vocab_size = max(config.vocab_size, count_vocabulary(tokenizer))
    config.update(marks)
    return config


def _configure_heads(text: TextModel) -> dict[str, Any]:
    """What configurations of some kinds say of the width of heads, and of which layers see all tokens (Gemma 3)."""
    width = text.hidden_size // text.heads
    if text.kind == "gemma3":
        layers = {"sliding_window": GEMMA3_WINDOW, "sliding_window_pattern": min(GEMMA3_EVERY, text.layers)}
        return {"head_dim": width, "query_pre_attn_scalar": width, **layers}
    return {"head_dim": width} if text.kind in {"gemma", "qwen3"} else {}


def check_kind(config: Any, wanted: str, settings: ModelSettings) -> Any:
    """The configuration of a language model as it is.

    Raises:
        RecipeError: it is of another model type than the one that the family's class is made for.
    """
    if config.model_type != wanted:
        raise RecipeError(
            f"model.text: family {settings.family} has the layers of {wanted}, not of {config.model_type}"
        )
    return config


def load_text(model: Any, base: Any, source: Pretrained) -> None:
    """Put pretrained weights into the language model `base` of a new model and into its head.

    Rows of tokens that the recipe's tokenizer adds are left to `vlmill.train.new_rows`.

    Raises:
        RecipeError: the pretrained model has what the model class has no place for.
    """
    text = AutoModelForCausalLM.from_pretrained(
        source.path, revision=source.revision, dtype=torch.float32, trust_remote_code=False
    )
    text.resize_token_embeddings(model.get_input_embeddings().num_embeddings, mean_resizing=False)
    head, ours = text.get_output_embeddings().state_dict(), model.get_output_embeddings()
    if ours.bias is not None:
        head.setdefault("bias", torch.zeros_like(ours.bias))
    elif "bias" in head and head.pop("bias").any():
        raise RecipeError(
            f"model.text.path: the head of {source.path} ({text.config.model_type}) has a bias, and that of "
            f"{type(model).__name__} has none; take a language model without (Phi 3, not Phi 1 or 2), or family "
            "moondream"
        )
    missing, unexpected = base.load_state_dict(text.base_model.state_dict(), strict=False)
    lacking = [name for name in missing if name.startswith(("embed_tokens", "layers", "norm", "final_layernorm"))]
    if lacking or unexpected:
        raise RecipeError(
            f"model.text.path: {source.path} ({text.config.model_type}) is no language model for "
            f"{type(model).__name__}: it lacks {lacking[:3] or 'nothing'}, and has {unexpected[:3] or 'nothing'} "
            "besides"
        )
    ours.load_state_dict(head)
