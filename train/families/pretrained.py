"""Configurations and vocabularies of pretrained models, and the dtype of their exports.

They come from local folders or the Hub.
"""

from __future__ import annotations

from typing import Any, get_args

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig
from transformers.utils import cached_file

from vlmill.pipeline.core.errors import RecipeError
from vlmill.train.settings import ExportDtype, FusedTower, ModelSettings, Pretrained

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in get_args(ExportDtype)}
"""What exports may be in, by the names that recipes have for them."""


def read_config(source: Pretrained) -> Any:
    """The configuration of a pretrained model without its dtype.

    Weights are kept in float32, whatever they were published in.

    Raises:
        RecipeError: there is none, or it cannot be reached.
    """
    return set_dtype(_fetch_config(source), torch.float32)


def set_dtype(config: Any, dtype: torch.dtype) -> Any:
    """Let a configuration and all in it say that weights are in `dtype`; returns it."""
    config.dtype = dtype
    for name in config.sub_configs:
        if (component := getattr(config, name)) is not None:
            set_dtype(component, dtype)
    return config


def choose_export_dtype(settings: ModelSettings) -> torch.dtype:
    """What a model is exported in: what the recipe says, or what its pretrained component was published in.

    Of two pretrained towers the language model decides, which has nearly all weights. What does not say counts as
    float32, as does a model with new weights alone.

    Raises:
        RecipeError: see `read_config`.
    """
    if settings.export_dtype is not None:
        return DTYPES[settings.export_dtype]
    if isinstance(whole := settings.checkpoint or settings.text, Pretrained):
        return _get_published_dtype(_fetch_config(whole))
    vision = settings.vision
    towers = (vision.first, vision.second) if isinstance(vision, FusedTower) else (vision,)
    said = {
        _get_published_dtype(_fetch_config(tower), "vision_config") for tower in towers if isinstance(tower, Pretrained)
    }
    return said.pop() if len(said) == 1 else torch.float32


def _get_published_dtype(config: Any, component: str = "") -> torch.dtype:
    """What a configuration, or one in it if it is there, says of its weights."""
    said = getattr(getattr(config, component, config), "dtype", None) or config.dtype
    return said if said in DTYPES.values() else torch.float32


def _fetch_config(source: Pretrained) -> Any:
    try:
        return AutoConfig.from_pretrained(source.path, revision=source.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RecipeError(
            f"model: {source.path} is no folder with a model that transformers reads, nor a model on the Hub "
            f"that can be reached: {reason}"
        ) from error


def read_vocabulary(source: Pretrained) -> dict[str, int] | None:
    """Ids by token of the `tokenizer.json` beside a pretrained model's weights; None if there is none."""
    try:
        path = cached_file(source.path, "tokenizer.json", revision=source.revision)
    except OSError:
        return None
    return None if path is None else Tokenizer.from_file(path).get_vocab(with_added_tokens=True)
