"""The survey step: where an input file is cut into partitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vlmill.pipeline.core.keys import to_json
from vlmill.pipeline.core.names import CUTS_FILE
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.sources import Source


def cut_rows(weights: list[int], rows: int, size: int) -> list[tuple[int, int]]:
    """Bounds [start, stop) of chunks, in order, with at most `rows` rows and about `size` bytes, one row at least."""
    bounds, start, held = [], 0, 0
    for row, weight in enumerate(weights):
        if row > start and (row - start >= rows or held + weight > size):
            bounds.append((start, row))
            start, held = row, 0
        held += weight
    return [*bounds, (start, len(weights))] if weights else []


@dataclass(frozen=True)
class Survey:
    """Step: where to cut an input file into partitions. Leaves `cuts.json`, a list of [start, stop)."""

    name: ClassVar[str] = "survey"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    source: Source
    rows: int
    size: int

    @property
    def reads(self) -> tuple[str, ...]:
        """The input file alone."""
        return ("input",)

    def made_by(self) -> Mapping[str, str]:
        """Nothing that could differ."""
        return {}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Weigh the rows of the input file and cut."""
        weights = self.source.survey(inputs["input"])
        (folder / CUTS_FILE).write_text(to_json(cut_rows(weights, self.rows, self.size)), encoding="utf-8")
        return {"surveyed": Count(len(weights), len(weights))}
