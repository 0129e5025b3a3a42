"""The loss behind the language model's head, without the logits of all tokens at once.

Logits of 8,192 supervised tokens over a vocabulary of 152,000 are 5 GB in float32, and as much again for their softmax
and gradient. So tokens go through the head in chunks, whose logits are computed again in the backward pass.

PyTorch's own `linear_cross_entropy` does the same with a matrix. It returns losses in bfloat16 where the arithmetic is,
and bypasses the head, in which new rows stand (see train/new_rows.py); so it is not what is called here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

LOGITS = 1 << 26
"""Of a chunk: 256 MiB in float32."""


def compute_cross_entropy(head: Any, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each token in float32: (tokens,).

    Args:
        head: a module from hidden states to logits, called as it is.
        hidden: (tokens, width).
        labels: (tokens,) int64.
    """
    rows = max(1, LOGITS // head.weight.shape[0])
    if len(hidden) <= rows:
        return _compute_chunk(head, hidden, labels)
    chunks = zip(torch.split(hidden, rows), torch.split(labels, rows), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([_compute_chunk(head, *chunk) for chunk in chunks])
    losses = [
        checkpoint(_compute_chunk, head, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks
    ]
    return torch.cat(losses)


def _compute_chunk(head: Any, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(head(hidden).float(), labels, reduction="none")
