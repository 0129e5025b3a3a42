"""The folder that transformers runs without us: model, processor, tokenizer, chat template, generation settings."""

from __future__ import annotations

import uuid
from pathlib import Path

from tokenizers import Tokenizer
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from pipeline.encode import ChatFormat, mark_id
from train.checkpoint import PARTIAL, commit
from train.families import Family


def export(target: Path, model: PreTrainedModel, family: Family, tokenizer: Tokenizer, chat: ChatFormat) -> Path:
    """Write the folder, whole or not at all, in place of an older one.

    `AutoModelForImageTextToText`, `AutoProcessor` and `pipeline("image-text-to-text")` take it as it is.
    """
    partial = target.with_name(f"{PARTIAL}{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    model.generation_config = generation(tokenizer, chat)
    model.save_pretrained(partial)
    family.processor(hugging_face(tokenizer, chat), chat).save_pretrained(partial)
    return commit(partial, target)


def hugging_face(tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers has it. It recognises special tokens in texts, as its chat template needs."""
    loose = Tokenizer.from_str(tokenizer.to_str())
    return PreTrainedTokenizerFast(tokenizer_object=loose, bos_token=chat.bos, eos_token=chat.eos, pad_token=chat.pad)


def generation(tokenizer: Tokenizer, chat: ChatFormat) -> GenerationConfig:
    """Greedy, until the turn or the document ends."""
    bos, eos, pad, end = (mark_id(tokenizer, mark) for mark in (chat.bos, chat.eos, chat.pad, chat.end))
    return GenerationConfig(bos_token_id=bos, eos_token_id=[end, eos], pad_token_id=pad, do_sample=False)
