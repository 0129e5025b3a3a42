"""How packed documents attend to themselves alone, at the speed of the hardware.

Without a mask and a cache transformers infers the borders of documents from positions in them (see train/data.py). Its
SDPA path lays them down as a mask of length x length, which no flash kernel takes, and repeats keys and values for all
heads. On a GPU a stage is trained with PyTorch's variable-length attention in its place: it is given where documents
begin and never looks across. FlexAttention would be exact, too, and compiles anew for new shapes of batches. Vision
towers need none of this: their inputs are of one size, or padded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vlmill.train.families.blocks import BLOCKS
from vlmill.train.families.language import CONFIGS

VARLEN = "vlmill_varlen"
"""What transformers' registers of attention functions and of masks know it by."""

WIDEST = 256
"""Of a head, as the flash kernels have it."""


@contextmanager
def attend_packed(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Within it the language model attends by `attend_varlen`; afterwards as before.

    Only where device, arithmetic and model can.

    Only packed sequences without a mask and a cache may go through the model meanwhile, and through
    `vlmill.train.model.compute_features`.
    """
    if not (use_flash(device, dtype) and supports_flash(model)):
        yield
        return
    ALL_ATTENTION_FUNCTIONS.register(VARLEN, attend_varlen)
    ALL_MASK_ATTENTION_FUNCTIONS.register(VARLEN, flash_attention_mask)  # none, if there is no padding mask
    before = model.config.get_text_config()._attn_implementation  # noqa: SLF001 - there is no other way to ask
    model.set_attn_implementation({"text_config": VARLEN})
    try:
        yield
    finally:
        model.set_attn_implementation({"text_config": before})


def use_flash(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a device has the flash kernels for this arithmetic: bfloat16, from Ampere (compute capability 8.0) on."""
    return device.type == "cuda" and dtype == torch.bfloat16 and torch.cuda.get_device_capability(device) >= (8, 0)


def supports_flash(model: PreTrainedModel) -> bool:
    """Whether `attend_varlen` computes what the model's own attention does.

    Not for classes that are given a mask (Idefics, and those with blocks), nor for language models that tests have not
    compared with it.
    """
    text: Any = model.config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    known = text.model_type in {config.model_type for config in CONFIGS.values()}
    return (
        model._supports_flash_attn  # noqa: SLF001 - transformers' own flag of its classes
        and known
        and model.config.model_type not in BLOCKS
        and not getattr(text, "attention_dropout", 0)
        and width % 8 == 0
        and width <= WIDEST
    )


def find_borders(model: PreTrainedModel, documents: torch.Tensor) -> dict[str, Any]:
    """Arguments of forward about documents besides positions: none, but within `attend_packed`.

    Args:
        model: on the device of `documents`.
        documents: (sequences, length), the number of each token's document in its sequence, see `Batch`; sequences are
            laid end to end.

    Returns:
        Where documents begin, and the end of the last (int32), and how long the longest is; under transformers' names
            for it.
    """
    if model.config.get_text_config()._attn_implementation != VARLEN:  # noqa: SLF001
        return {}
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents.diff(dim=1) != 0
    starts = torch.nonzero(begins.flatten()).flatten().to(torch.int32)
    bounds = torch.cat([starts, starts.new_tensor([documents.numel()])])
    longest = int(bounds.diff().max())
    return {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}


def attend_varlen(
    _layer: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside documents, with the signature of transformers' attention functions.

    Args:
        _layer: not needed.
        query: (sequences, heads, length, width).
        key: (sequences, fewer or as many heads, length, width).
        value: the same.
        attention_mask: must be None.
        scaling: of scores; None: by the root of the width.
        cu_seq_lens_q: see `find_borders`.
        max_length_q: the longest document.
        sliding_window: tokens that a token sees, itself among them; None: all before it.

    Returns:
        (sequences, length, heads, width), and no weights.

    Raises:
        ValueError: there is a mask.
    """
    if attention_mask is not None:
        raise ValueError("variable-length attention takes the borders of documents and no mask")
    sequences, _heads, length, _width = query.shape
    kind = (
        query.device.type
    )  # rotary embeddings leave queries in float32 under autocast, which does not know this kernel
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    queries, keys, values = (each.transpose(1, 2).flatten(0, 1).to(dtype) for each in (query, key, value))
    found = varlen_attn(
        queries,
        keys,
        values,
        cu_seq_lens_q,
        cu_seq_lens_q,
        max_length_q,
        max_length_q,
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(found, torch.Tensor)  # with no auxiliary output asked for
    return found.reshape(sequences, length, *found.shape[1:]), None
