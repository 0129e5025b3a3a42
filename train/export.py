"""The folder that transformers runs without us: model, processor, tokenizer, chat template, generation settings."""

from __future__ import annotations

import json
import uuid
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
import transformers
from tokenizers import Tokenizer
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from vlmill.pipeline.chat.encode import ChatFormat, get_mark_id
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import follow_umask
from vlmill.train.checkpoint import PARTIAL, commit_folder
from vlmill.train.export_readme import write_readme
from vlmill.train.families.pretrained import set_dtype
from vlmill.train.families.processors import VideoProcessor

if TYPE_CHECKING:
    from vlmill.train.families.base import Family


ADAPTER = "adapter_config.json"


def export_model(
    target: Path,
    model: PreTrainedModel,
    family: Family,
    tokenizer: Tokenizer,
    chat: ChatFormat,
    dtype: torch.dtype = torch.float32,
    *,
    unbuilt: bool = False,
) -> Path:
    """Write the folder, whole or not at all, in place of an older one.

    `AutoModelForImageTextToText`, `AutoProcessor` and `pipeline("image-text-to-text")` take it; its README.md says what
    they have to be told, and where the run was `unbuilt`, that. All weights in it are in `dtype`, and all its
    configurations say so; the model stays as it is.
    """
    partial = target.with_name(f"{PARTIAL}{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    model = cast_model(model, dtype)
    model.generation_config = make_generation_config(tokenizer, chat)
    for config in (model.config, model.config.get_text_config()):
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if hasattr(config, name):
                setattr(config, name, getattr(model.generation_config, name))
    model.save_pretrained(partial)
    for weights in partial.glob("*.safetensors"):
        follow_umask(weights)
    processor = family.processor(to_transformers(tokenizer, chat), chat)
    processor.save_pretrained(partial)
    code, video = any(partial.glob("*.py")), isinstance(processor, VideoProcessor)
    asked = (partial / "chat_template.jinja").exists()
    text = write_readme(
        type(model).__name__, transformers.__version__, asked=asked, code=code, video=video, unbuilt=unbuilt
    )
    (partial / "README.md").write_text(text)
    return commit_folder(partial, target)


def cast_model(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A copy of a model in another dtype, weights and configurations; what has the dtype already is shared."""
    weights = {id(weight): nn.Parameter(weight.detach().to(dtype)) for weight in model.parameters()}
    others = {id(buffer): buffer.to(dtype) for buffer in model.buffers() if buffer.is_floating_point()}
    copied = deepcopy(model, {**weights, **others})  # by way of what has been copied, so that tied weights stay tied
    set_dtype(copied.config, dtype)
    return copied


def load_export(folder: Path, like: PreTrainedModel, tokenizer: Tokenizer) -> PreTrainedModel:
    """The model in a folder that `export_model` wrote, or another of the same class and tokenizer. In float32.

    Only numbers are read: the class is that of `like`, weights are safetensors, and code that `auto_map` or the
    configuration names is not run.

    Args:
        folder: with `config.json`, weights and `tokenizer.json`.
        like: a model of the class that is wanted.
        tokenizer: that it has to have been trained with.

    Raises:
        StoreError: the folder holds something else.
    """
    names = ("config.json", "tokenizer.json")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise StoreError(
            f"{folder} holds no exported model: {', '.join(missing)} is missing; take DIR/train/STAGE/export"
        )
    said = json.loads((folder / names[0]).read_bytes())
    for name, what, of in (("model_type", "of type", "family"), ("connector", "with the connector", "connector")):
        if said.get(name) != (wanted := getattr(like.config, name, None)):
            raise StoreError(f"{folder} holds a model {what} {said.get(name)}, and the stage's {of} is {wanted}")
    if Tokenizer.from_file(str(folder / names[1])).get_vocab() != tokenizer.get_vocab():
        raise StoreError(f"{folder} holds another tokenizer than the one that the run's samples were measured with")
    if (folder / ADAPTER).exists():
        raise StoreError(
            f"{folder / ADAPTER}: an adapter names another model's folder; merge it, and save the whole model"
        )
    try:
        found = type(like).from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=like.config._attn_implementation,  # noqa: SLF001 - else one that config.json has from the Hub
        )
    except OSError as error:
        raise StoreError(
            f"{folder} holds no weights that can be read ({error}); model.safetensors is missing"
        ) from error
    return cast("PreTrainedModel", found)


def to_transformers(tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers has it. It recognises special tokens in texts, as its chat template needs.

    It pads left, so that answers to several questions begin where each question ends. Its EOS is what ends a turn
    under a format of ours, and what a published tokenizer has: its template may name it.
    """
    loose = Tokenizer.from_str(tokenizer.to_str())
    return PreTrainedTokenizerFast(tokenizer_object=loose, padding_side="left", **chat.tokens)


def make_generation_config(tokenizer: Tokenizer, chat: ChatFormat) -> GenerationConfig:
    """Greedy, until the turn or the document ends."""
    return GenerationConfig(
        bos_token_id=get_mark_id(tokenizer, chat.bos) if chat.bos else None,
        eos_token_id=[get_mark_id(tokenizer, mark) for mark in chat.stops],
        pad_token_id=get_mark_id(tokenizer, chat.pad),
        do_sample=False,
    )
