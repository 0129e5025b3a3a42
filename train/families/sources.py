"""Configurations and vocabularies of pretrained models, from local folders or the Hub."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer
from transformers import AutoConfig
from transformers.utils import cached_file

from pipeline.errors import RecipeError
from train.settings import Pretrained


def configuration(source: Pretrained) -> Any:
    """What a pretrained model says of itself.

    Raises:
        RecipeError: there is none, or it cannot be reached.
    """
    try:
        return AutoConfig.from_pretrained(source.path, revision=source.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RecipeError(
            f"model: {source.path} is no folder with a model that transformers reads, nor a model on the Hub that can be reached: {reason}"
        ) from error


def vocabulary(source: Pretrained) -> dict[str, int] | None:
    """Ids by token of the `tokenizer.json` beside a pretrained model's weights; None if there is none."""
    try:
        path = cached_file(source.path, "tokenizer.json", revision=source.revision)
    except OSError:
        return None
    return None if path is None else Tokenizer.from_file(path).get_vocab(with_added_tokens=True)
