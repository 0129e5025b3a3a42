"""What a signal's worker is handed: a few samples of a partition, their pictures drawn under every view.

The step `score` makes chunks from tables (pipeline/steps/score.py), a worker asks its model about them (`worker.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Sample
from vlmill.pipeline.images.views import PictureView, View
from vlmill.pipeline.signals.base import Signal, SignalBatch, Unit

IMAGES = 64
"""Of a chunk, at most: 10 MB for each view of 224 px. A sample with more of them is in several chunks."""

WHOLE_IMAGES = 8
"""Of a chunk of whole pictures, at most, unless one sample has more: 3 MB each at 1024 px."""

TEXT = 1 << 20
"""Characters of the texts of a chunk, about; a sample with more is alone."""


@dataclass(frozen=True, slots=True)
class SamplePiece:
    """A sample, or the part of one that is in a chunk: its nodes from `first` to before `last`."""

    row: int  # in samples.parquet
    sample: Sample
    first: int
    last: int

    def list_units(self, signal: Signal) -> Iterator[Unit]:
        """What a signal asks of it; what is of the whole sample belongs to its first part."""
        for unit in signal.list_units(self.sample):
            if self.first <= max(unit.node, 0) < self.last:
                yield unit


@dataclass(frozen=True, slots=True)
class SignalChunk:
    """Neighbouring samples of a partition with their pictures."""

    pieces: tuple[SamplePiece, ...]
    pictures: Mapping[PictureView, Any] = field(default_factory=dict)  # as the view gathers them
    places: Mapping[int, int] = field(default_factory=dict)  # number of an image -> its place in `pictures`
    lost: Mapping[int, Mapping[PictureView, Reason]] = field(default_factory=dict)  # image -> views that fail on it
    partition: str = ""  # `<source>/<partition>`, where a build asks

    @property
    def images(self) -> int:
        """Different images."""
        return len(self.places)


@dataclass(frozen=True, slots=True)
class AskedUnit:
    """A unit with the row of its sample."""

    row: int
    unit: Unit


def list_asked(chunk: SignalChunk, signal: Signal) -> list[AskedUnit]:
    """What a signal asks of a chunk, ordered by sample and node."""
    return [AskedUnit(piece.row, unit) for piece in chunk.pieces for unit in piece.list_units(signal)]


def find_loss(chunk: SignalChunk, unit: Unit, view: PictureView | None) -> Reason | None:
    """Why a unit cannot be asked about; None where it can."""
    if view is None:
        return None
    lost = (chunk.lost.get(image, {}).get(view) for image in unit.shown)
    apart = any(image not in chunk.places for image in unit.shown)  # more images than a chunk has
    return next((reason for reason in lost if reason is not None), Reason.TOO_MANY_IMAGES if apart else None)


def make_batch(chunk: SignalChunk, units: Sequence[Unit], size: int, view: PictureView | None) -> SignalBatch:
    """A batch of up to `size` units of a chunk, padded to `size` places."""
    images, empty = None, ((),) * (size - len(units))
    pictures: tuple[tuple[np.ndarray, ...], ...] = ()
    if isinstance(view, View):
        images = np.zeros((size, view.side, view.side, 3), np.uint8)
        for place, unit in enumerate(units):
            if unit.image is not None:
                images[place] = chunk.pictures[view][chunk.places[unit.image]]
    elif view is not None:
        pictures = tuple(tuple(chunk.pictures[view][chunk.places[image]] for image in unit.shown) for unit in units)
    return SignalBatch(
        size,
        len(units),
        images,
        texts=(*(unit.texts for unit in units), *empty),
        nodes=(*(unit.nodes for unit in units), *empty),
        numbers=(*(unit.numbers for unit in units), *empty),
        pictures=(*pictures, *((),) * (size - len(pictures))),
    )


def cut_pieces(row: int, sample: Sample, shown: Sequence[bool]) -> Iterator[tuple[SamplePiece, int]]:
    """The parts of a sample that fit a chunk, each with its number of images.

    `shown` says which nodes are images that can be decoded.
    """
    first, images = 0, 0
    for index, is_shown in enumerate(shown):
        if is_shown and images == IMAGES:
            yield SamplePiece(row, sample, first, index), images
            first, images = index, 0
        images += is_shown
    yield SamplePiece(row, sample, first, len(sample.nodes)), images
