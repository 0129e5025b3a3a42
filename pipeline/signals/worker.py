"""A signal's model in a child process, and what happens when it dies of what it is asked.

A batch that ends the child, or keeps it longer than it may, is asked again in halves, each padded to the full shape,
until what kills is alone: that gets a reason in the place of a value. A model that dies of an empty batch is itself at
fault, which is an error. The child holds the model from batch to batch.
"""

from __future__ import annotations

import io
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np

from vlmill.pipeline.core.answers import PlacedAnswer
from vlmill.pipeline.core.detections import Detection, PlacedDetection
from vlmill.pipeline.core.errors import RecipeError, StoreError, VlmillError
from vlmill.pipeline.core.sandbox import ChildCrashed, ChildTimedOut, Sandbox
from vlmill.pipeline.core.scores import Scores
from vlmill.pipeline.signals.base import DECIMALS, Detected, ModelSignal, SignalBatch
from vlmill.pipeline.signals.chunks import AskedUnit, SignalChunk, find_loss, list_asked, make_batch

NO_VALUE = "no_value"
"""In the place of a reason: the model gave no number, such as of a text of one token."""

UNBOUNDED = 1 << 46
"""Bytes of address space: torch and CUDA reserve more than they use, so models have no bound of it."""


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """The values of a chunk, and what the model ran on."""

    scores: Scores
    device: Mapping[str, str]
    images: int  # that the model looked at
    detections: tuple[PlacedDetection, ...] = ()
    seconds: float = 0.0  # that its worker took
    answers: tuple[PlacedAnswer, ...] | None = None  # of a server; None where a model computes


@dataclass(frozen=True, slots=True)
class ScoredUnit:
    """What the model says of one unit."""

    values: np.ndarray  # (columns,)
    detections: tuple[Detection, ...] = ()


@dataclass
class SignalWorker:
    """Asks one signal's model, which is loaded with the first batch if it is not before."""

    name: str  # as the recipe calls the signal
    signal: ModelSignal
    device: dict[str, str] = field(default_factory=dict)
    sound: bool = False  # whether the model ever survived a batch

    def __post_init__(self) -> None:
        self.sandbox: Sandbox[[ModelSignal, SignalBatch | None], Any] = Sandbox(
            score_in_child, self.signal.seconds, UNBOUNDED
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        self.sandbox.close()

    def load(self) -> None:
        """Load the model.

        Raises:
            RecipeError: it cannot be loaded.
            StoreError: the child dies of it.
        """
        self._call_child(None)

    def score_chunk(self, chunk: SignalChunk) -> ScoredChunk:
        """The values of all units of a chunk, ordered by sample and node.

        Raises:
            RecipeError: the model cannot be loaded, or fails with an error.
            StoreError: the model dies, whatever it is asked.
        """
        began, view, asked = perf_counter(), self.signal.view(), list_asked(chunk, self.signal)
        found: dict[int, ScoredUnit | str] = {
            place: str(reason)
            for place, item in enumerate(asked)
            if (reason := find_loss(chunk, item.unit, view)) is not None
        }
        open_ = [place for place in range(len(asked)) if place not in found]
        open_.sort(key=lambda place: sum(map(len, asked[place].unit.texts)))  # texts of one length go together
        for start in range(0, len(open_), self.signal.batch):
            found |= self._score_units(chunk, asked, open_[start : start + self.signal.batch])
        pictures = 0 if view is None else len({image for place in open_ for image in asked[place].unit.shown})
        detections = tuple(
            PlacedDetection(asked[place].row, asked[place].unit.node, one)
            for place, unit in sorted(found.items())
            if isinstance(unit, ScoredUnit)
            for one in unit.detections
        )
        took = perf_counter() - began
        answered = any(isinstance(unit, ScoredUnit) for unit in found.values())  # not: of an earlier partition
        device = self.device if answered else {}
        return ScoredChunk(_gather_scores(asked, found), device, pictures, detections, took)

    def _score_units(
        self, chunk: SignalChunk, asked: Sequence[AskedUnit], places: Sequence[int]
    ) -> dict[int, ScoredUnit | str]:
        """The values of up to a batch of units, or reasons, by place."""
        batch = make_batch(chunk, [asked[place].unit for place in places], self.signal.batch, self.signal.view())
        try:
            units = self._ask_child(batch)
        except (ChildCrashed, ChildTimedOut) as error:
            if len(places) == 1:
                return {places[0]: self._score_alone(batch, error)}
            middle = len(places) // 2
            return self._score_units(chunk, asked, places[:middle]) | self._score_units(chunk, asked, places[middle:])
        return dict(zip(places, units, strict=False))

    def _score_alone(self, batch: SignalBatch, error: ChildCrashed | ChildTimedOut) -> ScoredUnit | str:
        """The value of one unit whose batch ended the child, or the reason. A child that died is no proof against it.

        Raises:
            StoreError: the model dies of an empty batch too.
        """
        try:
            if not self.sound:
                self._ask_child(make_batch(SignalChunk(()), (), batch.size, self.signal.view()))
        except (ChildCrashed, ChildTimedOut) as again:
            raise StoreError(
                f"the model of signal {self.name!r} dies of an empty batch ({again}): it may lack memory, or its "
                "batch is too large; nothing that was asked is at fault"
            ) from error
        try:
            return self._ask_child(batch)[0]
        except (ChildCrashed, ChildTimedOut) as again:
            return str(again.reason)

    def _ask_child(self, batch: SignalBatch) -> list[ScoredUnit]:
        """What the model says of each place of a batch, values rounded.

        Raises:
            ChildCrashed: the child died; ChildTimedOut after the signal's seconds.
        """
        answers = self._call_child(batch)
        values = _read_answer(answers, batch.size)
        self.device = {str(key): str(value) for key, value in answers[0].items()}
        self.sound = True
        detections = _read_detections(answers, batch.filled)
        return [
            ScoredUnit(row, detections[place] if place < len(detections) else ()) for place, row in enumerate(values)
        ]

    def _call_child(self, batch: SignalBatch | None) -> list[Any]:
        """The child's answers: what the model runs on, and what it says of a batch, if there is one."""
        answers: list[Any] = []
        try:
            for answer in self.sandbox.run(self.signal, batch):
                if isinstance(answer, dict) and "error" in answer:
                    raise RecipeError(f"signals.{self.name}: {answer['error']}")
                answers.append(answer)
        except (ChildCrashed, ChildTimedOut) as error:
            self.sandbox.close()
            if not answers:
                raise StoreError(f"the model of signal {self.name!r} cannot be loaded: {error}") from error
            raise
        except RuntimeError as error:
            raise RecipeError(f"signals.{self.name} failed:\n{error}") from None
        return answers


def _read_answer(answers: Sequence[Any], size: int) -> np.ndarray:
    """The array in a child's answer. Objects in it are not read.

    Raises:
        ChildCrashed: there is none of the right shape.
    """
    try:
        values: np.ndarray = np.load(io.BytesIO(answers[1]), allow_pickle=False)
    except (ValueError, EOFError, OSError, IndexError, TypeError) as error:
        raise ChildCrashed(f"its answer cannot be read: {error}") from None
    if values.ndim != 2 or len(values) != size:
        raise ChildCrashed(f"its answer has the shape {values.shape}, not ({size}, values)")
    return values


def _read_detections(answers: Sequence[Any], filled: int) -> list[tuple[Detection, ...]]:
    """The detections in a child's answer, by place; none of a signal that finds nothing in pictures.

    Raises:
        ChildCrashed: they cannot be read.
    """
    if len(answers) < 3:
        return []
    try:
        found = [tuple(_read_detection(*one) for one in place) for place in answers[2]]
    except (TypeError, ValueError) as error:
        raise ChildCrashed(f"its answer cannot be read: {error}") from None
    if len(found) != filled:
        raise ChildCrashed(f"its answer has detections of {len(found)} pictures, not {filled}")
    return found


def _read_detection(left: Any, top: Any, right: Any, bottom: Any, confidence: Any, text: Any) -> Detection:
    return Detection(float(left), float(top), float(right), float(bottom), float(confidence), str(text))


def _gather_scores(asked: Sequence[AskedUnit], found: Mapping[int, ScoredUnit | str]) -> Scores:
    """Values and reasons of all units, in order."""
    widths = [unit.values.size for unit in found.values() if isinstance(unit, ScoredUnit)]
    values = np.full((len(asked), widths[0] if widths else 0), np.nan, np.float32)
    reasons = list[str | None]()
    for place in range(len(asked)):
        unit = found[place]
        if isinstance(unit, str):
            reasons.append(unit)
        else:
            values[place] = unit.values
            reasons.append(None if np.isfinite(unit.values).all() else NO_VALUE)
    samples, nodes = (
        np.array(found, np.int32) for found in ([item.row for item in asked], [item.unit.node for item in asked])
    )
    return Scores(samples, nodes, tuple(reasons), values)


# -- in the child ------------------------------------------------------------------------------------------------------

_LOADED: list[tuple[ModelSignal, Any]] = []
"""The model of this process."""


def score_in_child(signal: ModelSignal, batch: SignalBatch | None) -> Iterator[Any]:
    """What the child does: what the model runs on, once it is loaded, then the values as an array's bytes.

    Then what was found in each picture, of a signal that finds things there. Without a batch the model is loaded alone.
    """
    try:
        if not _LOADED or _LOADED[0][0] != signal:
            _LOADED[:] = [(signal, signal.load())]
        yield describe_device()
        if batch is None:
            return
        said = signal.score(_LOADED[0][1], batch)
    except VlmillError as error:
        yield {"error": str(error)}
        return
    buffer = io.BytesIO()
    np.save(buffer, quantise_values(np.asarray(said.values if isinstance(said, Detected) else said), batch.size))
    yield buffer.getvalue()
    if isinstance(said, Detected):
        yield [[astuple(one) for one in place] for place in said.detections]


def quantise_values(values: np.ndarray, size: int) -> np.ndarray:
    """Values as (size, columns) float32, rounded; a single one for each place may come as (size,). Pure."""
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or len(values) != size:
        raise ValueError(f"score gives an array of the shape {values.shape}; a batch has {size} places, so ({size},)")
    found: np.ndarray = np.round(values.astype(np.float64), DECIMALS).astype(np.float32)
    return found + np.float32(0)  # no -0.0


def describe_device() -> dict[str, str]:
    """The device class of this process, as scores record it."""
    if "torch" in sys.modules:
        from vlmill.pipeline.signals.torch_models import describe_torch  # noqa: PLC0415

        return describe_torch()
    return {"device": f"cpu {platform.machine()}"}
