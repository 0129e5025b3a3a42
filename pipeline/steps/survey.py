"""The survey step: where input files are cut, and which of the chunks share a partition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vlmill.pipeline.core.errors import BadFileError
from vlmill.pipeline.core.keys import to_json
from vlmill.pipeline.core.names import BAD_FILES, CUTS_FILE, name_input
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.sources import OnBadFile, Source

Chunk = tuple[int, int, int]
"""Rows [start, stop) of an input file, and their bytes."""

SHARED_BYTES = 16 << 20
"""Bytes of a partition that files share, at most. What it costs beyond its rows is by then little beside what these
cost, and as many PDFs (some hundred pages) or images still make enough partitions for the cores of a machine."""


def cut_rows(weights: Sequence[int], rows: int, size: int) -> list[Chunk]:
    """The chunks of rows with these bytes, in order, with at most `rows` rows and about `size` bytes, one row at least.

    Pure.
    """
    chunks, start, held = list[Chunk](), 0, 0
    for row, weight in enumerate(weights):
        if row > start and (row - start >= rows or held + weight > size):
            chunks.append((start, row, held))
            start, held = row, 0
        held += weight
    return [*chunks, (start, len(weights), held)] if weights else []


def group_chunks(files: Iterable[Sequence[Chunk]], rows: int, size: int) -> list[list[tuple[int, int]]]:
    """The partitions of a source, each a list of (number of the file, number of the chunk), in order. Pure.

    Neighbouring files of one chunk each share a partition as long as it has at most `rows` rows and `size` bytes. The
    chunks of other files have one each. Files without rows are in none. What more files at the end change is the last
    partition alone.

    Args:
        files: The chunks of each file of the source, ordered by name.
        rows: At most so many in a partition that files share.
        size: Bytes, likewise; SHARED_BYTES where that is less.
    """
    groups, room = list[list[tuple[int, int]]](), (0, 0)  # room: rows and bytes that the last partition has left
    for number, chunks in enumerate(files):
        if len(chunks) == 1:
            ((start, stop, weight),) = chunks
            if stop - start > room[0] or weight > room[1]:
                groups.append([])
                room = rows, min(size, SHARED_BYTES)
            groups[-1].append((number, 0))
            room = room[0] - (stop - start), room[1] - weight
        elif chunks:
            groups += ([(number, chunk)] for chunk in range(len(chunks)))
            room = 0, 0
    return groups


@dataclass(frozen=True)
class Survey:
    """Step: where to cut input files into chunks. Leaves `cuts.json`, for each file a list of [start, stop, bytes].

    A bad file has none, where it is skipped; `bad_files.json` then has a list of such files, and what is wrong with
    each.
    """

    name: ClassVar[str] = "survey"
    version: ClassVar[int] = 4
    pure: ClassVar[bool] = True

    source: Source
    rows: int
    size: int
    files: tuple[str, ...]  # relative to the source's root, with "/"
    on_bad_file: OnBadFile = "error"

    @property
    def reads(self) -> tuple[str, ...]:
        """The input files alone."""
        return tuple(map(name_input, range(len(self.files))))

    def made_by(self) -> Mapping[str, str]:
        """Nothing that could differ."""
        return {}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Weigh the rows of each input file and cut. Raises BadFileError for all bad files that are not skipped."""
        files, rows, cuts = Count(), 0, list[list[Chunk]]()
        faults, bad = list[str](), list[dict[str, str]]()
        for place, name in enumerate(self.files):
            path, weights = inputs[name_input(place)], list[int]()
            try:
                weights = self.source.survey(path)
                files.keep()
            except BadFileError as error:
                faults += error.faults
                files.lose(Reason.BAD_FILE)
                bad.append({"file": name, "fault": str(error).removeprefix(f"{path}: ")})
            rows += len(weights)
            cuts.append(cut_rows(weights, self.rows, self.size))
        if faults and self.on_bad_file == "error":
            raise BadFileError(*faults)
        if bad:
            (folder / BAD_FILES).write_text(to_json(bad), encoding="utf-8")
        (folder / CUTS_FILE).write_text(to_json(cuts), encoding="utf-8")
        return {"files": files, "surveyed": Count(rows, rows)}
