"""The table that a signal of kind `ask` leaves beside its values: what a server answered to each request.

Written by the step `score`; read by reports, by nodes that are made of answers, and by later builds, which ask nothing
that was answered before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlmill.pipeline.core.sample import read_rows, write_rows


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request: an answer of the declared form, or a reason why there is none."""

    request: str  # sha256 over all that was asked: model, prompt, texts, pictures, parameters
    text: str | None = None  # as the server gave it, without surrounding blanks
    reason: str | None = None  # a Reason
    detail: str = ""  # of the reason: what the server said
    served: str = ""  # the model, as the server calls it
    input_tokens: int = 0  # of all tries, as the server counts them
    output_tokens: int = 0
    requests: int = 1  # that were sent for it
    failures: int = 0  # of these: the server failed or was busy
    bad: int = 0  # of these: answers that were not of the declared form


@dataclass(frozen=True, slots=True)
class PlacedAnswer:
    """An answer to what was asked about an image, a text or a sample."""

    sample: int  # row in samples.parquet
    node: int  # index into Sample.nodes, or WHOLE_SAMPLE
    answer: Answer


ANSWERS = pa.schema(
    [
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("node", pa.int32(), nullable=False),
        pa.field("request", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("served", pa.string(), nullable=False),
        *(
            pa.field(name, pa.int64(), nullable=False)
            for name in ("input_tokens", "output_tokens", "requests", "failures", "bad")
        ),
    ]
)

FIELDS = tuple(item.name for item in fields(Answer))


def write_answers(path: Path, placed: Iterable[PlacedAnswer]) -> None:
    """Write answers, ordered by sample and node."""
    ordered = sorted(placed, key=lambda one: (one.sample, one.node))
    write_rows(path, ANSWERS, ({"sample": one.sample, "node": one.node, **asdict(one.answer)} for one in ordered))


def read_answers(path: Path) -> Iterator[PlacedAnswer]:
    """The answers of a partition, ordered by sample and node; one that was given to several stands several times."""
    for row in read_rows(path):
        yield PlacedAnswer(row["sample"], row["node"], make_answer(row))


def make_answer(row: dict[str, Any]) -> Answer:
    """The answer in a row of the table, or in a line of a journal."""
    return Answer(**{name: row[name] for name in FIELDS})
