"""Published models of transformers, asked in batches of one shape. Only this file and chat_models.py import torch.

Numbers are float32 on a CPU with a fixed number of threads, and in the dtype of the weights on a GPU with
deterministic kernels: one device class gives the same values again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import functional

from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images.views import Preprocessing, read_preprocessing

LEAST_LENGTH = 16
"""Tokens that a text is padded to at least; then powers of two."""


@dataclass(frozen=True)
class TorchModel:
    """A model on its device, with what prepares its inputs."""

    model: Any
    device: torch.device
    tokenizer: Any = None
    preprocessing: Preprocessing | None = None

    def make_pixels(self, images: np.ndarray) -> torch.Tensor:
        """Normalised pixels (n, 3, side, side) of uint8 pictures (n, side, side, 3)."""
        assert self.preprocessing is not None
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).to(torch.float32)
        mean, std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1)
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        normalised = (pixels * self.preprocessing.scale - mean) / std
        return normalised.to(next(self.model.parameters()).dtype)


def check_gpu() -> None:
    """Refuse to go on where this process sees no GPU.

    Raises:
        RecipeError: so it is.
    """
    if not torch.cuda.is_available():
        raise RecipeError("resources.gpus: this machine has no GPU that torch sees; take 0")


def load_model(
    folder: Path, auto: str, *, gpu: bool, threads: int, texts: bool = False, images: bool = False
) -> TorchModel:
    """A published model, ready to be asked.

    Args:
        folder: Its files.
        auto: The class of transformers that reads it, such as AutoModel.
        gpu: Compute on the GPU that this process sees.
        threads: On a CPU.
        texts: Whether its tokenizer is needed.
        images: Whether its preprocessing is needed.

    Raises:
        RecipeError: the folder holds no such model, or there is no GPU.
    """
    if gpu:
        check_gpu()
    if (folder / "adapter_config.json").exists():
        raise RecipeError(f"{folder}: adapter_config.json: an adapter names another model's folder; merge it first")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may choose another sum each time
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    transformers.logging.set_verbosity_error()
    device = torch.device("cuda" if gpu else "cpu")
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        model = getattr(transformers, auto).from_pretrained(
            folder, use_safetensors=True, dtype="auto" if gpu else torch.float32, attn_implementation="sdpa", **safe
        )  # attention is named here, since a configuration may name code on the Hub for it
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **safe) if texts else None
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(f"{folder} holds no model that {auto} of transformers reads: {error}") from error
    if tokenizer is not None and tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return TorchModel(model.to(device).eval(), device, tokenizer, read_preprocessing(folder) if images else None)


def describe_torch() -> dict[str, str]:
    """The device of this process and the versions that compute, as scores record them."""
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    device = torch.cuda.get_device_name() if on_gpu else f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return {"device": device}


@torch.inference_mode()
def embed_images(model: TorchModel, images: np.ndarray) -> np.ndarray:
    """Vectors of length 1, (n, length) float32, of pictures (n, side, side, 3).

    Those of `get_image_features` for a dual encoder; else the pooled output, or the mean over its patches where the
    model pools nothing.
    """
    pixels = model.make_pixels(images)
    whole = model.model
    found = whole.get_image_features(pixel_values=pixels) if hasattr(whole, "get_image_features") else whole(pixels)
    return _normalise_vectors(found)


@torch.inference_mode()
def embed_texts(model: TorchModel, texts: Sequence[str], size: int) -> np.ndarray:
    """Vectors of length 1, (n, length) float32, of any number of texts, `size` at a time.

    Longer ones are cut at the model's own length; all are padded to it, as SigLIP was trained.
    """
    length = find_text_length(model)
    vectors = []
    for start in range(0, len(texts), size):
        part = list(texts[start : start + size])
        inputs = model.tokenizer(
            part + [""] * (size - len(part)), padding="max_length", truncation=True, max_length=length,
            return_tensors="pt",
        ).to(model.device)  # fmt: skip
        vectors.append(_normalise_vectors(_embed_tokens(model.model, inputs))[: len(part)])
    return np.concatenate(vectors) if vectors else np.empty((0, 0), np.float32)


def _embed_tokens(model: Any, inputs: Any) -> Any:
    """A dual encoder's text features, or the mean of a text encoder's states over its tokens."""
    if hasattr(model, "get_text_features"):
        return model.get_text_features(**inputs)
    states, mask = model(**inputs).last_hidden_state, inputs["attention_mask"].unsqueeze(-1)
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1)


def find_text_length(model: TorchModel) -> int:
    """Tokens of a text at most: positions of the text tower, and 512 of a longer one."""
    config = getattr(model.model.config, "text_config", model.model.config)
    return min(int(getattr(config, "max_position_embeddings", 512)), int(model.tokenizer.model_max_length), 512)


def _normalise_vectors(found: Any) -> np.ndarray:
    """Vectors of length 1 from a tensor, or from a model's output."""
    if not isinstance(found, torch.Tensor):
        pooled = getattr(found, "pooler_output", None)
        found = found.last_hidden_state.mean(1) if pooled is None else pooled
    vectors: np.ndarray = functional.normalize(found.to(torch.float32).flatten(1), dim=-1).cpu().numpy()
    return vectors


@torch.inference_mode()
def classify_images(model: TorchModel, images: np.ndarray, *, linear: bool) -> np.ndarray:
    """Probabilities (n, labels) float32 of a classifier; with `linear` its outputs as they are, such as a score."""
    logits = model.model(pixel_values=model.make_pixels(images)).logits.to(torch.float32)
    found: np.ndarray = (logits if linear else logits.softmax(-1)).cpu().numpy()
    return found


def find_label(model: TorchModel, label: str) -> int:
    """The number of a label of a classifier.

    Raises:
        RecipeError: it has no such label.
    """
    known = {str(name): int(number) for number, name in model.model.config.id2label.items()}
    if label not in known:
        raise RecipeError(f"label: the model has no {label!r}; allowed: {', '.join(known)}")
    return known[label]


@torch.inference_mode()
def measure_losses(model: TorchModel, texts: Sequence[str], size: int, most: int) -> np.ndarray:
    """Mean loss of the tokens behind the first of each text, (n,) float32; NaN for fewer than two tokens.

    What a causal model of transformers returns as `loss` for `labels=input_ids`. Texts are cut at `most` tokens and
    padded to a power of two, `size` at a time of one length, so that a text's value depends on itself alone.
    """
    tokens = [model.tokenizer(text, truncation=True, max_length=most)["input_ids"] for text in texts]
    losses = np.full(len(texts), np.nan, np.float32)
    for length, places in _group_by_length([len(found) for found in tokens], most):
        for start in range(0, len(places), size):
            part = places[start : start + size]
            losses[part] = _measure_rows(model, [tokens[place] for place in part], size, length)
    return losses


def _group_by_length(lengths: Sequence[int], most: int) -> Iterator[tuple[int, list[int]]]:
    """Padded length -> places of the texts that are padded to it, shortest first."""
    groups = dict[int, list[int]]()
    for place, length in enumerate(lengths):
        if length > 1:
            padded = min(max(LEAST_LENGTH, 1 << (length - 1).bit_length()), max(most, LEAST_LENGTH))
            groups.setdefault(padded, []).append(place)
    yield from sorted(groups.items())


def _measure_rows(model: TorchModel, rows: Sequence[Sequence[int]], size: int, length: int) -> np.ndarray:
    """Mean losses of up to `size` rows of tokens, padded to (size, length)."""
    ids, mask = (torch.zeros(size, length, dtype=torch.long) for _ in range(2))
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)] = torch.tensor(row), 1
    mask[len(rows) :, 0] = 1  # a row that sees nothing has no softmax
    ids, mask = ids.to(model.device), mask.to(model.device)
    logits = model.model(input_ids=ids, attention_mask=mask).logits.to(torch.float32)
    each = functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    seen = mask[:, 1:].to(torch.float32)
    found: np.ndarray = ((each * seen).sum(1) / seen.sum(1).clamp(min=1))[: len(rows)].cpu().numpy()
    return found
