"""Published models that take conversations, asked how well they foresee the answers. Imports torch, as torch_models."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch.nn import functional
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.signals.conversations import find_answer_tokens, split_marks, write_conversation
from vlmill.pipeline.signals.torch_models import load_model

PROBE = (
    Node("image", "user", image=0),
    Node("text", "user", text="What?"),
    Node("text", "assistant", supervised=True, text="That."),
)
"""A conversation that every chat template has a form for."""


class _MarkedTokens:
    """A tokenizer that takes marks out of a text and keeps where they were. Mixed into the class of a model's own.

    A processor writes an image's tokens into the text before it asks its tokenizer, so this is where places are known.
    """

    offsets: Any = ()
    spans: Any = ()

    def __call__(self, text: Any = None, *arguments: Any, **settings: Any) -> Any:
        """Tokens as the model's own class gives them, of one text."""
        alone = isinstance(text, str)
        clean, self.spans = split_marks(text if alone else text[0])
        settings["return_offsets_mapping"] = True
        encoded = super().__call__(clean if alone else [clean], *arguments, **settings)  # type: ignore[misc]
        offsets = encoded.pop("offset_mapping")
        self.offsets = np.asarray(offsets).reshape(-1, 2).tolist()
        return encoded


@dataclass(frozen=True)
class ChatModel:
    """A model on its device, with the processor or tokenizer that writes conversations for it."""

    model: Any
    device: torch.device
    processor: Any
    tokenizer: Any  # the processor's own
    sees: bool  # whether it takes pictures
    keeps: bool  # whether its forward can leave out the logits that nobody asks for
    specials: tuple[str, ...]  # texts that its tokenizer takes for special tokens

    def encode(self, nodes: Sequence[Node], pictures: Sequence[np.ndarray] | None) -> tuple[Any, list[int]] | None:
        """The inputs of a conversation and the places of its answers' tokens; None where it has no form.

        Args:
            nodes: In order.
            pictures: Of its image nodes, (height, width, 3) uint8 each; None leaves images out.

        Raises:
            ValueError: the processor takes no such picture.
        """
        if any(special in (node.text or "") for node in nodes for special in self.specials):
            return None
        shown, template = pictures is not None, self.processor.apply_chat_template
        text = write_conversation(template, nodes, parts=self.sees, images=shown)
        if text is None:
            return None
        begin = self.tokenizer.bos_token  # as apply_chat_template of processors has it
        settings = {"return_tensors": "pt", "add_special_tokens": self.sees and not (begin and text.startswith(begin))}
        if not self.sees:
            inputs = self.tokenizer([text], **settings)
        elif pictures:
            images = [Image.fromarray(picture) for picture in pictures]
            inputs = self.processor(text=[text], images=[images], **settings)
        else:
            inputs = self.processor(text=[text], **settings)
        return inputs, find_answer_tokens(self.tokenizer.offsets, self.tokenizer.spans)


def load_chat_model(folder: Path, *, gpu: bool, threads: int, images: bool) -> ChatModel:
    """A published model, ready to be asked.

    Args:
        folder: Its files.
        gpu: Compute on the GPU that this process sees.
        threads: On a CPU.
        images: Whether pictures are shown.

    Raises:
        RecipeError: the folder holds no such model, it takes no pictures, or it cannot write a conversation.
    """
    sees = _takes_pictures(folder)
    if images and not sees:
        raise RecipeError(
            f"{folder}: a language model, which takes no pictures; write `image: [false]`, or name a model that "
            "AutoModelForImageTextToText of transformers reads"
        )
    auto = "AutoModelForImageTextToText" if sees else "AutoModelForCausalLM"
    loaded = load_model(folder, auto, gpu=gpu, threads=threads, texts=not sees)
    processor = _load_processor(folder) if sees else loaded.tokenizer
    tokenizer = processor.tokenizer if sees else processor
    if not getattr(tokenizer, "is_fast", False):
        raise RecipeError(f"{folder}: its tokenizer says nothing of the places of tokens; one with tokenizer.json does")
    own = type(tokenizer)
    tokenizer.__class__ = type(own.__name__, (_MarkedTokens, own), {})
    keeps = "logits_to_keep" in inspect.signature(loaded.model.forward).parameters
    specials = tuple(token for token in tokenizer.all_special_tokens if token)
    found = ChatModel(loaded.model, loaded.device, processor, tokenizer, sees, keeps, specials)
    _try_model(found, folder, images=images)
    return found


def _takes_pictures(folder: Path) -> bool:
    try:
        kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
    except (OSError, ValueError) as error:
        raise RecipeError(f"{folder}/config.json cannot be read: {error}") from error
    return kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def _load_processor(folder: Path) -> Any:
    try:
        return transformers.AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise RecipeError(f"{folder} holds no processor that transformers can open here: {error}") from error


def _try_model(model: ChatModel, folder: Path, *, images: bool) -> None:
    """Ask about a grey picture once: what no conversation can be written for is a fault of the model's folder."""
    try:
        encoded = model.encode(PROBE, [np.full((64, 64, 3), 128, np.uint8)] if images else None)
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        raise RecipeError(f"{folder}: its processor takes no conversation: {error}") from error
    if encoded is None or not encoded[1]:
        raise RecipeError(f"{folder}: its chat template does not write a question and an answer as they are")


def _move_tensor(value: torch.Tensor, model: ChatModel) -> torch.Tensor:
    """An input on the model's device; pixels in the dtype of its weights."""
    dtype = next(model.model.parameters()).dtype if value.is_floating_point() else value.dtype
    return value.to(model.device, dtype)


@torch.inference_mode()
def measure_answer_loss(
    model: ChatModel, nodes: Sequence[Node], pictures: Sequence[np.ndarray] | None, most: int
) -> float:
    """Mean loss of the tokens of a conversation's supervised answers, in nats; NaN where there is none.

    Args:
        model: From `load_chat_model`.
        nodes: The conversation.
        pictures: Of its image nodes; None leaves images out.
        most: Tokens that it may have.
    """
    try:
        encoded = model.encode(nodes, pictures)
    except ValueError:  # of a picture that the processor does not take, such as one of a pixel
        return float("nan")
    if encoded is None:
        return float("nan")
    inputs, answers = encoded
    ids = inputs["input_ids"][0]
    if not answers or answers[0] == 0 or len(ids) > most:
        return float("nan")
    given = {name: _move_tensor(value, model) for name, value in inputs.items()}
    before = torch.tensor(answers, device=model.device) - 1
    keep = {"logits_to_keep": before} if model.keeps else {}
    logits = model.model(**given, use_cache=False, **keep).logits[0]
    logits = (logits if model.keeps else logits[before]).to(torch.float32)
    return float(functional.cross_entropy(logits, ids[answers].to(model.device)))
