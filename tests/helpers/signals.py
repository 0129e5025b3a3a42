"""Custom signals without a model, and partitions to ask them about."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.helpers.upstream import picture
from vlmill.pipeline.core.sample import (
    IMAGES,
    ImageStats,
    Node,
    Sample,
    SampleId,
    write_image_stats,
    write_rows,
    write_samples,
)
from vlmill.pipeline.filters.custom import hash_code
from vlmill.pipeline.signals.custom import CustomSignal

SIGNALS = """
import os, time
from dataclasses import dataclass

import numpy as np

@dataclass(frozen=True)
class Redness:
    name = "redness"
    side = 16
    batch = 8

    def score(self, model, batch):
        return batch.images[..., 0].mean((1, 2)) / 255

@dataclass(frozen=True)
class Exclamations:
    name = "exclamations"
    of = "texts"
    mark: str = "!"

    def load(self):
        return self.mark

    def score(self, model, batch):
        return [sum(text.count(model) for text in texts) for texts in batch.texts]

@dataclass(frozen=True)
class Fragile:
    name = "fragile"
    of = "texts"
    batch = 4
    always: bool = False

    def score(self, model, batch):
        if self.always or any("KILL" in text for texts in batch.texts for text in texts):
            os.kill(os.getpid(), 9)
        if any("HANG" in text for texts in batch.texts for text in texts):
            time.sleep(600)
        return [len(texts[0]) if texts else 0 for texts in batch.texts]
"""


def make_signal(kind: str, **settings: Any) -> CustomSignal:
    """One of the signals above, whose code may run."""
    running = {name: settings.pop(name) for name in ("seconds",) if name in settings}
    return CustomSignal(kind, settings, hash_code(SIGNALS), SIGNALS, "signals.py", **running)


def make_talk(*turns: tuple[object, ...]) -> list[object]:
    """A conversation for `write_partition`: of each turn what the user shows and says, and the answer."""
    return [
        Talk("assistant" if place == len(turn) - 1 else "user", number, thing)
        for number, turn in enumerate(turns)
        for place, thing in enumerate(turn)
    ]


class Talk(NamedTuple):
    """A node of a turn. Answers are supervised."""

    role: Literal["user", "assistant"]
    turn: int
    thing: object  # as `write_partition` has it


def write_partition(folder: Path, samples: list[list[object]]) -> dict[str, Path]:
    """The tables of a partition: texts, and numbers of pictures of 40 x 30 px; None is a picture that is damaged."""
    made, images, stats = [], [], []
    for row, things in enumerate(samples):
        nodes = []
        for given in things:
            role, turn, thing = given if isinstance(given, Talk) else Talk("none", 0, given)  # type: ignore[arg-type]
            if isinstance(thing, str):
                nodes.append(Node("text", role, turn, supervised=role == "assistant", text=thing))
                continue
            nodes.append(Node("image", role, turn, image=len(images)))
            data = b"damaged" if thing is None else picture(thing, (40, 30))
            reason = "undecodable" if thing is None else None
            images.append(
                {"image": len(images), "url": None, "reason": None, "detail": None, "media_type": None, "bytes": data}
            )
            stats.append(ImageStats(len(stats), reason, width=40, height=30))
        made.append(Sample(SampleId("made", "a.parquet", row), tuple(nodes)))
    folder.mkdir(parents=True, exist_ok=True)
    write_samples(folder / "samples.parquet", made)
    write_rows(folder / "images.parquet", IMAGES, images)
    write_image_stats(folder / "image_stats.parquet", stats)
    return {name: folder / name for name in ("samples.parquet", "images.parquet", "image_stats.parquet")}
