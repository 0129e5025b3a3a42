"""Step `score`, one for each signal: what a model says of the images and texts of a partition.

Comes after image stats and before the filters that read signals. `read_chunks` decodes the pictures of a partition,
each once for all signals that ask for it; a worker asks the model; the step writes a table. In a build these three run
in processes of their own (pipeline/engine/scoring.py); called alone, the step does all of it here.

The device has a say in the last digits of a value, so the step is impure: its first receipt wins. What it ran on is
recorded beside the values.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vlmill.pipeline.core.answers import write_answers
from vlmill.pipeline.core.detections import write_detections
from vlmill.pipeline.core.names import (
    IMAGE_STATS_FILE,
    IMAGES_FILE,
    MODEL_SUFFIX,
    SAMPLES_FILE,
    SUPPLEMENT_FILE,
    name_answers,
    name_detections,
    name_embeddings,
    name_scores,
    name_verdicts,
)
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Sample, Verdict, read_image_stats, read_samples, write_verdicts
from vlmill.pipeline.core.scores import Scores, write_embeddings, write_scores
from vlmill.pipeline.core.step import RUNTIME, Count, Counts, Inputs
from vlmill.pipeline.images.decode import Undecodable, decode_image
from vlmill.pipeline.images.policy import Unrenderable
from vlmill.pipeline.images.views import PictureView, View, WholeView
from vlmill.pipeline.signals.ask import Ask
from vlmill.pipeline.signals.ask_worker import open_worker
from vlmill.pipeline.signals.base import DECIMALS, Signal
from vlmill.pipeline.signals.chunks import IMAGES, TEXT, WHOLE_IMAGES, SamplePiece, SignalChunk, cut_pieces
from vlmill.pipeline.signals.detector import ImageDetector
from vlmill.pipeline.signals.worker import ScoredChunk
from vlmill.pipeline.steps.image_bytes import Pictures

MOST_PIXELS = 178_956_970
"""Pillow's own limit: image stats has said which images are too large for the recipe."""

KILLED = frozenset({Reason.CRASHED, Reason.TIMED_OUT, Reason.OUT_OF_MEMORY})
"""Why a unit has no value where that is a verdict: the model died of it, or took longer than it may."""

UNANSWERED = frozenset(
    {Reason.BAD_ANSWER, Reason.HTTP_CLIENT_ERROR, Reason.HTTP_SERVER_ERROR, Reason.CONNECTION, Reason.TIMED_OUT}
)
"""The same of a server: it never answered in the declared form, refused, or failed on this alone."""

RECENT = 128
"""Drawn pictures that are kept for the next chunk: web documents repeat their images. Of whole ones a sixteenth."""


@dataclass(frozen=True)
class ScoreSignal:
    """Writes `NAME.scores.parquet` (or vectors), what computed it, and verdicts on what ends the model.

    Of a signal that finds things in images also `NAME.detections.parquet`, where a server is asked
    `NAME.answers.parquet`. Counts `scored`: units with a value; what has none by its reason where the model died of it
    or a server did not answer, else it is kept.
    """

    called: str  # as the recipe calls the signal
    signal: Signal
    scored: Sequence[ScoredChunk] | None = field(default=None, metadata=RUNTIME)  # by workers; None: ask the model here

    pure: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """As the recipe calls it."""
        return self.called

    @property
    def version(self) -> int:
        """The signal's own."""
        return self.signal.version

    @property
    def reads(self) -> tuple[str, ...]:
        """Samples, images (and what a retry fetched) and image stats."""
        return (SAMPLES_FILE, IMAGES_FILE, SUPPLEMENT_FILE, IMAGE_STATS_FILE)

    def made_by(self) -> Mapping[str, str]:
        """The signal's own. The device stands beside the values: partitions may be scored on several."""
        return self.signal.made_by()

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write the tables of a partition."""
        scored = self.scored if self.scored is not None else _score_here(self, inputs)
        scores = merge_scores([chunk.scores for chunk in scored], len(self.signal.columns(self.name)))
        columns = self.signal.columns(self.name)
        if columns:
            write_scores(folder / name_scores(self.name), scores, columns)
        else:
            write_embeddings(folder / name_embeddings(self.name), scores, self.name)
        lost = UNANSWERED if isinstance(self.signal, Ask) else KILLED
        if isinstance(self.signal, Ask):
            write_answers(folder / name_answers(self.name), (one for chunk in scored for one in chunk.answers or ()))
        if isinstance(self.signal, ImageDetector):
            write_detections(folder / name_detections(self.name), (one for chunk in scored for one in chunk.detections))
        write_verdicts(folder / name_verdicts(self.name), _list_verdicts(self.name, scores, lost))
        (folder / f"{self.name}{MODEL_SUFFIX}").write_text(_describe_model(self.signal, scored), encoding="utf-8")
        return {"scored": _count_units(scores, lost)}


def read_chunks(inputs: Inputs, views: Sequence[PictureView]) -> Iterator[SignalChunk]:
    """The samples of a partition in order, a few at a time, with their pictures under every view. Memory is bounded.

    An image that cannot be drawn under a view has a reason there. What was taken down is left out.
    """
    stats = read_image_stats(inputs[IMAGE_STATS_FILE], ())
    reader = _PictureReader(Pictures(inputs), tuple(dict.fromkeys(views)))
    most = WHOLE_IMAGES if any(isinstance(view, WholeView) for view in views) else IMAGES
    pieces, images, characters = list[SamplePiece](), 0, 0
    for row, sample in enumerate(read_samples(inputs[SAMPLES_FILE])):
        if sample.taken_down:
            continue
        shown = [node.image is not None and stats[node.image].reason is None for node in sample.nodes]
        seen = _leave_out_lost(sample, shown)
        length = sum(len(node.text or "") for node in sample.nodes)
        for piece, number in cut_pieces(row, seen, shown):
            if pieces and (images + number > most or characters + length > TEXT):
                yield reader.make_chunk(pieces)
                pieces, images, characters = [], 0, 0
            pieces.append(piece)
            images, characters = images + number, characters + length
    if pieces:
        yield reader.make_chunk(pieces)


def _leave_out_lost(sample: Sample, shown: Sequence[bool]) -> Sample:
    """The sample without the images that cannot be decoded; its nodes keep their places."""
    nodes = tuple(
        node if node.image is None or is_shown else replace(node, image=None)
        for node, is_shown in zip(sample.nodes, shown, strict=True)
    )
    return replace(sample, nodes=nodes)


Drawn = tuple[dict[PictureView, Any], dict[PictureView, Reason]]
"""An image under every view, and why not under some."""


@dataclass
class _PictureReader:
    """Draws images of a partition by number."""

    pictures: Pictures
    views: tuple[PictureView, ...]
    recent: OrderedDict[int, Drawn] = field(default_factory=OrderedDict)

    def make_chunk(self, pieces: Sequence[SamplePiece]) -> SignalChunk:
        """The pieces with their pictures."""
        if not self.views:
            return SignalChunk(tuple(pieces))
        nodes = (node for piece in pieces for node in piece.sample.nodes[piece.first : piece.last])
        numbers = list(dict.fromkeys(node.image for node in nodes if node.image is not None))
        found = [self._draw(number) for number in numbers]
        pictures = {view: view.gather([drawn.get(view) for drawn, _ in found]) for view in self.views}
        lost = {number: reasons for number, (_, reasons) in zip(numbers, found, strict=True) if reasons}
        return SignalChunk(tuple(pieces), pictures, {number: place for place, number in enumerate(numbers)}, lost)

    def _draw(self, number: int) -> Drawn:
        if number in self.recent:
            self.recent.move_to_end(number)
            return self.recent[number]
        drawn, reasons = dict[PictureView, Any](), dict[PictureView, Reason]()
        try:
            image = decode_image(self.pictures.read(number), MOST_PIXELS)
        except Undecodable as error:
            reasons = dict.fromkeys(self.views, error.reason)
        else:
            for view in self.views:
                try:
                    drawn[view] = view.draw(image)
                except Unrenderable:
                    reasons[view] = Reason.UNRENDERABLE
        self.recent[number] = drawn, reasons
        if len(self.recent) > (RECENT // 16 if any(isinstance(view, WholeView) for view in self.views) else RECENT):
            self.recent.popitem(last=False)
        return drawn, reasons


def _score_here(step: ScoreSignal, inputs: Inputs) -> list[ScoredChunk]:
    """Ask the model in a child of this process, or the server."""
    view = step.signal.view()
    with open_worker(step.name, step.signal) as worker:
        return [worker.score_chunk(chunk) for chunk in read_chunks(inputs, [view] if view else [])]


def merge_scores(parts: Iterable[Scores], columns: int) -> Scores:
    """The scores of chunks as those of their partition, ordered by sample and node.

    `columns` is the number of values where none of the parts has any.
    """
    found = list(parts)
    width = max([columns, *(part.values.shape[1] for part in found)])
    if not columns:
        width = max(width, 1)
    values = [
        part.values if part.values.shape[1] == width else np.full((len(part.samples), width), np.nan, np.float32)
        for part in found
    ]
    samples = np.concatenate([np.empty(0, np.int32), *(part.samples for part in found)])
    nodes = np.concatenate([np.empty(0, np.int32), *(part.nodes for part in found)])
    order = np.lexsort((nodes, samples))
    reasons = [reason for part in found for reason in part.reasons]
    whole = np.concatenate([np.empty((0, width), np.float32), *values])
    return Scores(samples[order], nodes[order], tuple(reasons[place] for place in order), whole[order])


def _list_verdicts(name: str, scores: Scores, lost: frozenset[Reason]) -> Iterator[Verdict]:
    """What the model died of, or a server did not answer, is lost, with the reason."""
    for sample, node, reason in zip(scores.samples, scores.nodes, scores.reasons, strict=True):
        if reason in lost:
            yield Verdict(int(sample), int(node), name, Reason(reason))


def _count_units(scores: Scores, lost: frozenset[Reason]) -> Count:
    count = Count()
    for reason in scores.reasons:
        if reason in lost:
            count.lose(Reason(reason))
        else:
            count.keep()
    return count


def _describe_model(signal: Signal, scored: Sequence[ScoredChunk]) -> str:
    """What computed the values: devices, and the shape that sums of floats depend on."""
    devices = {json.dumps(dict(chunk.device), sort_keys=True) for chunk in scored if chunk.device}
    about: dict[str, Any] = {
        "devices": [json.loads(device) for device in sorted(devices)],
        "kind": signal.kind,
        **_describe_shape(signal),
        "decimals": DECIMALS,
        "made_by": dict(signal.made_by()),
    }
    return json.dumps(about, sort_keys=True, indent=1) + "\n"


def _describe_shape(signal: Signal) -> dict[str, Any]:
    """What values depend on beside the weights."""
    if isinstance(signal, Ask):
        return signal.describe()
    view = signal.view()
    return {
        **{name: getattr(signal, name) for name in ("batch", "threads")},
        "side": view.side if isinstance(view, View) else None,
        **({"longest": view.longest} if isinstance(view, WholeView) else {}),
        "dtype": "uint8",
    }
