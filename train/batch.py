"""Micro-batches: packed sequences as the model's forward takes them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vlmill.pipeline.chat.encode import IGNORE
from vlmill.pipeline.images import Layout
from vlmill.train.device import move_tensor

PADDING = -1
"""The source of a token that belongs to none."""

PLANES = ("ids", "labels", "positions", "documents", "sources")
"""What a batch says of every token."""


@dataclass(frozen=True, slots=True)
class Document:
    """One segment: what the model reads, and what it should have said."""

    source: int
    ids: Sequence[int]
    labels: Sequence[int]  # IGNORE where nothing is supervised
    tiles: tuple[Sequence[np.ndarray], ...] = ()  # per image its encoder inputs: (height, width, 3) uint8
    layouts: tuple[Layout, ...] = ()  # per image
    weights: np.ndarray | None = None  # per supervised token, see loss_weights.py; None: 1 each

    @property
    def supervised(self) -> int:
        """Tokens that are supervised."""
        return len(self.labels) - list(self.labels).count(IGNORE)


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed sequences, padded to one length. Images are those of all sequences, in reading order.

    The padding of a sequence counts as a document.
    """

    ids: torch.Tensor  # (sequences, length) int64
    labels: torch.Tensor  # (sequences, length) int64, not shifted; the first token of a document is never supervised
    positions: torch.Tensor  # (sequences, length) int64, of each token in its document, from 0
    documents: torch.Tensor  # (sequences, length) int64, the number of its document in the sequence, from 0
    sources: torch.Tensor  # (sequences, length) int64, PADDING where there is none
    tiles: tuple[Sequence[np.ndarray], ...]  # encoder inputs of each image, as the policy rendered them
    layouts: tuple[Layout, ...]  # of each image
    weights: torch.Tensor  # (supervised tokens,) float32, in reading order
    blank: bool = False  # whether its only image is one that no document shows

    def to(self, device: torch.device) -> Batch:
        """The same with its tokens on a device."""
        planes: dict[str, Any] = {name: move_tensor(getattr(self, name), device) for name in PLANES}
        return replace(self, **planes)

    @property
    def shown(self) -> int:
        """Tiles of documents."""
        return 0 if self.blank else sum(map(len, self.tiles))

    @property
    def supervised(self) -> int:
        """Tokens that are supervised."""
        return int((self.labels != IGNORE).sum())

    @property
    def tokens(self) -> int:
        """Tokens without the padding."""
        return int((self.sources != PADDING).sum())


def pad_sequences(
    sequences: Sequence[Sequence[Document]], pad: int, blank: Document | None = None, *, left: bool = False
) -> Batch:
    """Lay each sequence's documents end to end, and pad all sequences to the longest.

    Args:
        sequences: of documents.
        pad: the padding token.
        blank: a document of one image that stands behind the first sequence's if no document has any. A model that is
            sharded over ranks needs all of them to run its vision tower, and a gradient of zero is not the same as
            none.
        left: pad before the documents, as generation wants it.
    """
    if blank is not None and sequences and not any(document.tiles for sequence in sequences for document in sequence):
        return replace(pad_sequences([[*sequences[0], blank], *sequences[1:]], pad, left=left), blank=True)
    length = max(sum(len(document.ids) for document in sequence) for sequence in sequences)
    planes = np.empty((len(PLANES), len(sequences), length), np.int64)
    ids, labels, positions, documents, sources = planes
    ids[:], labels[:], positions[:], documents[:], sources[:] = pad, IGNORE, np.arange(length), 0, PADDING
    for number, sequence in enumerate(sequences):
        end = length - sum(len(document.ids) for document in sequence) if left else 0
        for place, document in enumerate(sequence, start=end > 0):
            start, end = end, end + len(document.ids)
            ids[number, start:end], labels[number, start:end] = document.ids, document.labels
            positions[number, start:end], sources[number, start:end] = np.arange(end - start), document.source
            documents[number, start:] = place
        positions[number, end:] = np.arange(length - end)
        documents[number, end:] += 1
    shown = [document for sequence in sequences for document in sequence]
    tiles = tuple(tile for document in shown for tile in document.tiles)
    layouts = tuple(layout for document in shown for layout in document.layouts)
    filled = dict(zip(PLANES, torch.from_numpy(planes), strict=True))
    weights = [one.weights if one.weights is not None else np.ones(one.supervised) for one in shown]
    weighed = torch.from_numpy(np.concatenate(weights or [np.empty(0)]).astype(np.float32))
    return Batch(**filled, tiles=tiles, layouts=layouts, weights=weighed)


def collect_batches(
    step: list[list[Future[Sequence[Document]]]], pad: int, blank: Document | None
) -> tuple[Batch, ...]:
    """The micro-batches of a step whose documents are being read; waits for them.

    `pad` and `blank` as in `pad_sequences`.
    """
    return tuple(pad_sequences([future.result() for future in micro], pad, blank) for micro in step)
