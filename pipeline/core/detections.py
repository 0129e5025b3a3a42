"""The table that a signal leaves beside its values where it finds things in an image: their boxes, and what they say.

Written by the step `score`, one row a detection; read by `run.detections()` and by whoever looks at what a value came
from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from vlmill.pipeline.core.sample import write_rows


@dataclass(frozen=True, slots=True)
class Detection:
    """One thing that was found in an image.

    The box is upright. Its sides are shares of the image's width and height, from the upper left corner, so that they
    hold under every image policy.
    """

    left: float
    top: float
    right: float
    bottom: float
    confidence: float  # of the model, 0 to 1
    text: str = ""  # that was read there


@dataclass(frozen=True, slots=True)
class PlacedDetection:
    """A detection in the image of a node."""

    sample: int  # row in samples.parquet
    node: int  # index into Sample.nodes
    detection: Detection


DETECTIONS = pa.schema(
    [
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("node", pa.int32(), nullable=False),
        *(pa.field(name, pa.float32(), nullable=False) for name in ("left", "top", "right", "bottom", "confidence")),
        pa.field("text", pa.string(), nullable=False),
    ]
)


def write_detections(path: Path, placed: Iterable[PlacedDetection]) -> None:
    """Write detections, ordered by sample and node, and in a node as the signal lists them."""
    ordered = sorted(placed, key=lambda one: (one.sample, one.node))
    write_rows(path, DETECTIONS, ({"sample": one.sample, "node": one.node, **asdict(one.detection)} for one in ordered))
