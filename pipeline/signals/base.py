"""What a signal is: which images and texts of a sample its model looks at, and what it says of a batch of them.

A signal knows neither samples' tables nor processes: the step `score` (pipeline/steps/score.py) decodes pictures, cuts
batches, runs the model in a child process (pipeline/signals/worker.py) and writes the values beside the data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from vlmill.pipeline.core.detections import Detection
from vlmill.pipeline.core.resources import Resources
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, Node, Sample
from vlmill.pipeline.images.views import PictureView, View, WholeView

SIGNAL_NAME = re.compile(r"[a-z][a-z0-9_]*")
"""What a signal may be called: its name becomes a column in conditions and a folder of the run."""

Of = Literal["images", "texts", "samples", "pairs"]
"""What a value is of: each image; each text; all texts of a sample; each image with the texts that belong to it."""

PairText = Literal["caption", "turn", "neighbours"]
"""The texts of an image: all of its sample's; those of its turn; the nearest before and after it."""

DECIMALS = 4
"""Of a value: what is compared and written is rounded, so that noise of 1e-6 between machines seldom shows."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One thing that a model is asked about."""

    node: int  # index into Sample.nodes, or WHOLE_SAMPLE
    image: int | None = None  # Node.image
    texts: tuple[str, ...] = ()
    images: tuple[int, ...] = ()  # of a whole sample: Node.image of those that go along
    nodes: tuple[Node, ...] = ()  # of a conversation, for what is asked about it as a whole
    numbers: tuple[float, ...] = ()  # that came with the row

    @property
    def shown(self) -> tuple[int, ...]:
        """All images that it needs."""
        return self.images if self.image is None else (self.image, *self.images)


@dataclass(frozen=True, slots=True)
class SignalBatch:
    """What a model is given: always `size` places, of which the first `filled` hold something.

    The shape never changes, so a value does not depend on what else is in its batch.
    """

    size: int
    filled: int
    images: np.ndarray | None = None  # (size, side, side, 3) uint8, black where nothing is
    texts: tuple[tuple[str, ...], ...] = ()  # `size` of them, empty where nothing is
    nodes: tuple[tuple[Node, ...], ...] = ()  # conversations, `size` of them
    pictures: tuple[tuple[np.ndarray, ...], ...] = ()  # whole ones, (height, width, 3) uint8 each; `size` of them
    numbers: tuple[tuple[float, ...], ...] = ()  # that came with rows, `size` of them


@dataclass(frozen=True, slots=True)
class Detected:
    """What a signal says of a batch that finds things in pictures."""

    values: np.ndarray  # (size, columns)
    detections: tuple[tuple[Detection, ...], ...]  # of the places that hold something


class Signal(Protocol):
    """A frozen dataclass whose fields are its parameters."""

    @property
    def kind(self) -> str:
        """What recipes call it."""
        ...

    @property
    def version(self) -> int:
        """Raised whenever the same weights and parameters give other values."""
        ...

    @property
    def of(self) -> Of:
        """What a value is of."""
        ...

    @property
    def resources(self) -> Resources:
        """What a worker takes."""
        ...

    def columns(self, name: str) -> tuple[str, ...]:
        """The columns of its values where a recipe calls it `name`; none where it gives vectors."""
        ...

    def view(self) -> PictureView | None:
        """The pictures that the model takes; None where it looks at texts alone."""
        ...

    def list_units(self, sample: Sample) -> Iterator[Unit]:
        """What it asks of a sample, in the order of nodes. Pure."""
        ...

    def made_by(self) -> Mapping[str, str]:
        """Versions of the libraries that compute."""
        ...


class ModelSignal(Signal, Protocol):
    """A signal whose model runs in a child process of its worker, on batches of one shape."""

    @property
    def batch(self) -> int:
        """Places of a batch."""
        ...

    @property
    def threads(self) -> int:
        """Threads of the model on a CPU. They shape sums of floats, so they are a parameter and in the key."""
        ...

    @property
    def seconds(self) -> float:
        """For one batch, and for loading the model."""
        ...

    def view(self) -> View | WholeView | None:
        """The pictures that the model takes; None where it looks at texts alone."""
        ...

    def load(self) -> Any:
        """The model, on the device that its worker has."""
        ...

    def score(self, model: Any, batch: SignalBatch) -> np.ndarray | Detected:
        """The values of a batch: (size, columns), or (size, length) of vectors; what is padding is not looked at.

        Of a signal that finds things in pictures also these.
        """
        ...


def list_units(sample: Sample, of: Of, text: PairText = "caption") -> Iterator[Unit]:
    """The units of a sample, in the order of nodes; pure.

    Args:
        sample: What is left of it; nodes whose image or text is gone are passed over.
        of: What a value is of.
        text: Of pairs: which texts belong to an image.
    """
    if of == "samples":
        texts = [node.text for node in sample.nodes if node.text]
        if texts:
            yield Unit(WHOLE_SAMPLE, texts=("\n\n".join(texts),))
        return
    for index, node in enumerate(sample.nodes):
        if of == "texts" and node.text:
            yield Unit(index, texts=(node.text,))
        elif of == "images" and node.image is not None:
            yield Unit(index, node.image)
        elif of == "pairs" and node.image is not None:
            yield Unit(index, node.image, _find_texts(sample.nodes, index, text))


def find_text_nodes(nodes: Sequence[Node], index: int, text: PairText) -> list[int]:
    """The places of the texts that belong to an image, in order. Pure."""
    texts = [place for place, node in enumerate(nodes) if node.text]
    if text == "neighbours":
        before = [place for place in texts if place < index]
        return [*before[-1:], *[place for place in texts if place > index][:1]]
    return [place for place in texts if text == "caption" or nodes[place].turn == nodes[index].turn]


def _find_texts(nodes: Sequence[Node], index: int, text: PairText) -> tuple[str, ...]:
    """The texts that belong to an image."""
    belonging = [nodes[place].text or "" for place in find_text_nodes(nodes, index, text)]
    return tuple(belonging) if text == "neighbours" else ("\n".join(belonging),) if belonging else ()
