"""Language models: from settings, local folders or the Hub, with a row for every token of the recipe's tokenizer."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
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
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "persimmon": PersimmonConfig,
    "phi": PhiConfig,
    "phi3": Phi3Config,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "smollm3": SmolLM3Config,
}


def count_vocabulary(tokenizer: Tokenizer) -> int:
    """How many rows an embedding needs for every token."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def configure_text(settings: ModelSettings, tokenizer: Tokenizer, chat: ChatFormat) -> Any:
    """The configuration of a model's language model."""
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
            **({"head_dim": text.hidden_size // text.heads} if text.kind == "qwen3" else {}),
            **marks,
        )
    assert text is not None
    config = read_config(text)
    config.vocab_size = max(config.vocab_size, count_vocabulary(tokenizer))
    config.update(marks)
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
