"""Blocks: tokens that see one another in both directions, in language models that are causal otherwise.

Transformers' classes make the masks of blocks from `token_type_ids`, and of packed documents from positions, but of
both together wrong ones (5.23): Gemma 3's layers of a window look for a document's images at their places in the first
document, and to PaliGemma all prompts of a sequence are one block. So batches bring masks of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from vlmill.pipeline.chat.encode import IGNORE
from vlmill.train.batch import Batch


def find_image_blocks(config: Any, batch: Batch) -> torch.Tensor:
    """Each image is a block (Gemma 3): the tokens of one that stand together in a document.

    Args:
        config: of the model.
        batch: on any device.

    Returns:
        (sequences, length) int64: the number of each token's block in its sequence, from 0; -1 where there is none.
    """
    return _number_blocks(batch.ids == config.image_token_id, batch.documents)


def find_prompts(config: Any, batch: Batch) -> torch.Tensor:  # noqa: ARG001 - as all of BLOCKS
    """What stands before the first supervised token of a document is a block (PaliGemma); see `find_image_blocks`."""
    taught = (batch.labels != IGNORE).long()
    begins = torch.ones_like(taught, dtype=torch.bool)
    begins[:, 1:] = batch.documents.diff(dim=1) != 0
    before = torch.where(begins, taught.cumsum(1) - taught, 0).cummax(1).values
    return _number_blocks(taught.cumsum(1) == before, batch.documents)


BLOCKS: Mapping[str, Callable[[Any, Batch], torch.Tensor]] = {
    "gemma3": find_image_blocks,
    "paligemma": find_prompts,
}
"""By the model type of transformers' class."""


def _number_blocks(inside: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
    """Numbers for stretches of tokens of one document, -1 elsewhere; (sequences, length)."""
    begins = inside.clone()
    begins[:, 1:] &= ~inside[:, :-1] | (documents.diff(dim=1) != 0)
    return torch.where(inside, begins.cumsum(1) - 1, -1)


def make_block_mask(
    documents: torch.Tensor, blocks: torch.Tensor, window: int | None = None, *, additive: bool = False
) -> torch.Tensor:
    """What each token sees: those before it in its document, itself, and its block.

    Args:
        documents: (sequences, length), see `Batch`.
        blocks: (sequences, length), as `find_image_blocks` has them.
        window: a token sees none that are so many places before it or more; None: all.
        additive: whether what is added to scores is wanted, as transformers' eager attention takes it, not booleans.

    Returns:
        (sequences, 1, length, length), by the token that looks and the one that is looked at.
    """
    place = torch.arange(documents.shape[1], device=documents.device)
    seen = (blocks[:, :, None] == blocks[:, None, :]) & (blocks[:, :, None] >= 0)
    seen |= place[:, None] >= place
    seen &= documents[:, :, None] == documents[:, None, :]
    if window is not None:
        seen &= place > place[:, None] - window
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None] if additive else seen[:, None]


def count_block_pairs(blocks: torch.Tensor) -> int:
    """Pairs of tokens that are seen besides those of causal attention: each with those behind it in its block."""
    length = blocks.shape[1] + 1
    rows = torch.arange(len(blocks), device=blocks.device)[:, None] * length
    sizes = torch.bincount((rows + blocks)[blocks >= 0])
    return int((sizes * (sizes - 1) // 2).sum())
