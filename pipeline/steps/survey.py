"""The survey step: where an input file is cut into partitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vlmill.pipeline.core.errors import BadFileError
from vlmill.pipeline.core.keys import to_json
from vlmill.pipeline.core.names import BAD_FILE, CUTS_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.sources import OnBadFile, Source


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
    """Step: where to cut an input file into partitions. Leaves `cuts.json`, a list of [start, stop).

    A bad file has none, where it is skipped; `bad_file.json` then says what is wrong with it.
    """

    name: ClassVar[str] = "survey"
    version: ClassVar[int] = 3
    pure: ClassVar[bool] = True

    source: Source
    rows: int
    size: int
    file: str = ""  # relative to the source's root, with "/"
    on_bad_file: OnBadFile = "error"

    @property
    def reads(self) -> tuple[str, ...]:
        """The input file alone."""
        return ("input",)

    def made_by(self) -> Mapping[str, str]:
        """Nothing that could differ."""
        return {}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Weigh the rows of the input file and cut. Raises BadFileError for a bad file that is not skipped."""
        files, weights = Count(), list[int]()
        try:
            weights = self.source.survey(inputs["input"])
            files.keep()
        except BadFileError as error:
            if self.on_bad_file == "error":
                raise
            files.lose(Reason.BAD_FILE)
            fault = str(error).removeprefix(f"{inputs['input']}: ")
            (folder / BAD_FILE).write_text(to_json({"file": self.file, "fault": fault}), encoding="utf-8")
        (folder / CUTS_FILE).write_text(to_json(cut_rows(weights, self.rows, self.size)), encoding="utf-8")
        return {"files": files, "surveyed": Count(len(weights), len(weights))}
