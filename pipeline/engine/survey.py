"""The first phase, of sources and benchmarks: find input files, hash them, and cut them into partitions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlmill.pipeline.core.names import CUTS_FILE, name_input
from vlmill.pipeline.engine.chain import Chain, ChainStep
from vlmill.pipeline.engine.input_digests import InputDigests
from vlmill.pipeline.engine.store import File, Receipt
from vlmill.pipeline.inputs.files import InputFile, hash_inputs, list_input_files
from vlmill.pipeline.sources import OnBadFile, Source
from vlmill.pipeline.steps.row_sample import RowRange
from vlmill.pipeline.steps.survey import Chunk, Survey, cut_rows, group_chunks

if TYPE_CHECKING:
    from vlmill.pipeline.engine.build import Build

TASK_FILES = 64
"""Input files that one task surveys at most: of remote ones each costs some requests."""
TASK_BYTES = 64 << 20
"""Bytes of input files that one task surveys, or one file."""


@dataclass(frozen=True)
class InputSet:
    """The input files of one source, or of one split of a benchmark."""

    name: str  # what partitions call it
    folder: str  # of its steps, relative to the run's folder
    source: Source
    root: str  # as fsspec takes it
    pattern: str | None  # which files below the root; None for those of a split
    subset: str | None = None
    split: str | None = None
    on_bad_file: OnBadFile = "error"

    def list_files(self) -> list[InputFile]:
        """See list_input_files."""
        ranged = self.source.ranged
        return list_input_files(self.name, self.root, self.pattern, subset=self.subset, split=self.split, ranged=ranged)


@dataclass(frozen=True, slots=True)
class InputRows:
    """Rows [start, stop) of an input file."""

    input_file: InputFile
    file: File  # the input file as an input of tasks
    start: int
    stop: int

    @property
    def range(self) -> RowRange:
        """The rows as steps are given them."""
        return RowRange(self.input_file.name, self.start, self.stop)


@dataclass(frozen=True)
class PlannedPartition:
    """A partition: a chunk of an input file, or neighbouring files of one chunk each.

    In a scaled run those of their rows with a hash below `bound`.
    """

    source: str
    number: int  # of its first file
    chunk: int
    inputs: tuple[InputRows, ...]
    bound: int | None = None  # of the hashes of the rows that are read; None: every row
    raw: tuple[File, ...] = ()  # what was read and fetched of it, where no input file is asked any more

    @property
    def name(self) -> str:
        """`<number of its first file>-<chunk>`."""
        return f"{self.number:05d}-{self.chunk:04d}"

    @property
    def rows(self) -> int:
        """How many rows it has, chosen or not."""
        return sum(found.stop - found.start for found in self.inputs)

    @property
    def ranges(self) -> tuple[RowRange, ...]:
        """Its rows by file, as steps are given them."""
        return tuple(found.range for found in self.inputs)

    @property
    def input_files(self) -> tuple[InputFile, ...]:
        """The files that its rows are read from; none where it was read."""
        return () if self.raw else tuple(found.input_file for found in self.inputs)

    @property
    def files(self) -> tuple[File, ...]:
        """What its chain starts from: what was read and fetched, else the input files."""
        return self.raw or name_inputs(found.file for found in self.inputs)


@dataclass(frozen=True)
class HashInputFiles:
    """Hashes input files in workers."""

    def __call__(self, input_files: Sequence[InputFile]) -> list[File]:
        """The input files as inputs of tasks."""
        hashed = hash_inputs(input_files)
        return [File("input", one.url, *found) for one, found in zip(input_files, hashed, strict=True)]


def list_input_sets(run: Build) -> list[InputSet]:
    """The input files of each source of a build's recipe."""
    return [
        InputSet(
            name,
            f"steps/{name}",
            run.recipe.source(name),
            run.place(settings.root),
            settings.files,
            settings.subset,
            settings.split,
            settings.on_bad_file,
        )
        for name, settings in run.recipe.sources.items()
    ]


def survey_inputs(run: Build, phase: str, input_sets: Sequence[InputSet]) -> dict[str, list[PlannedPartition]]:
    """The partitions of every set by its name, in the order of their rows. Small input files share a chain.

    Raises:
        SourceError: a set has no files, they cannot be listed, or some are bad and not skipped.
    """
    listed = {inputs.name: inputs.list_files() for inputs in input_sets}
    every = [input_file for input_files in listed.values() for input_file in input_files]
    hashed = _hash_input_files(run, phase, every)
    files = dict(zip(every, (hashed[place] for place in range(len(every))), strict=True))
    chains = [chain for inputs in input_sets for chain in list_survey_chains(run, inputs, listed[inputs.name], files)]
    chunks = dict[InputFile, list[Chunk]]()
    for chain, receipts in run.run_chains(phase, chains):
        chunks |= zip(chain.input_files, read_chunks(run.root, receipts[-1][1]), strict=True)
    return {
        name: _plan_partitions(run, name, [(file, files[file], chunks[file]) for file in input_files])
        for name, input_files in listed.items()
    }


def _plan_partitions(
    run: Build, name: str, surveyed: Sequence[tuple[InputFile, File, list[Chunk]]]
) -> list[PlannedPartition]:
    """The partitions of a set, from each of its files with its hash and its chunks."""

    def take_rows(number: int, chunk: int) -> InputRows:
        input_file, file, chunks = surveyed[number]
        return InputRows(input_file, file, *chunks[chunk][:2])

    bounds = run.recipe.partition
    groups = group_chunks([chunks for _, _, chunks in surveyed], bounds.rows, bounds.bytes)
    return [PlannedPartition(name, *places[0], tuple(take_rows(*place) for place in places)) for places in groups]


def read_chunks(root: Path, surveyed: Receipt) -> list[list[Chunk]]:
    """The chunks of each input file of a survey task, in the order of the files."""
    (cuts,) = (file for file in surveyed.files if file.name == CUTS_FILE)
    found = json.loads((root / cuts.path).read_bytes())
    return [[(start, stop, size) for start, stop, size in chunks] for chunks in found]


def name_inputs(files: Iterable[File]) -> tuple[File, ...]:
    """Input files under the names that a task knows them by."""
    return tuple(replace(file, name=name_input(place)) for place, file in enumerate(files))


def _hash_input_files(run: Build, phase: str, input_files: Sequence[InputFile]) -> dict[int, File]:
    """Input files as inputs of tasks, by their place; those elsewhere that have not changed are not read again."""
    digests = InputDigests.read(run.root)
    hashed = {place: file for place, one in enumerate(input_files) if (file := digests.find(one)) is not None}
    left = [place for place in range(len(input_files)) if place not in hashed]
    run.watcher.phase(f"{phase}: hash", len(left))
    tasks = _group_hashed(input_files, left)
    for number, files in run.executor.each(
        HashInputFiles(), [[input_files[place] for place in task] for task in tasks]
    ):
        for place, file in zip(tasks[number], files, strict=True):
            hashed[place] = file
            run.watcher.done()
    digests.write(run.root, [(one, hashed[place]) for place, one in enumerate(input_files)])
    return hashed


def _group_hashed(input_files: Sequence[InputFile], places: Sequence[int]) -> list[list[int]]:
    """The files that one task hashes, by their places: one, or neighbours elsewhere that are small."""
    groups, room = list[list[int]](), 0
    for place in places:
        file = input_files[place]
        size = TASK_BYTES if file.on_disk or not file.size else file.size
        if size > room or len(groups[-1]) >= TASK_FILES:
            groups.append([])
            room = TASK_BYTES
        groups[-1].append(place)
        room -= size
    return groups


def list_survey_chains(
    run: Build, inputs: InputSet, input_files: Sequence[InputFile], files: Mapping[InputFile, File]
) -> Iterator[Chain]:
    """A task for each file, or for neighbours that are small; files behind them change the last of these alone."""
    bounds = run.recipe.partition
    for start, stop, _ in cut_rows([files[file].size for file in input_files], TASK_FILES, TASK_BYTES):
        members = tuple(input_files[start:stop])
        names = tuple(file.name for file in members)
        survey = Survey(inputs.source, bounds.rows, bounds.bytes, names, inputs.on_bad_file)
        step = ChainStep(f"{inputs.folder}/survey", survey)
        yield Chain(f"{start:05d}", (step,), members, name_inputs(files[file] for file in members))


def limit_rows(partitions: list[PlannedPartition], limit: int | None) -> list[PlannedPartition]:
    """The partitions that hold the first `limit` rows; the last one is cut short."""
    if limit is None:
        return partitions
    kept, left = [], limit
    for partition in partitions:
        if left <= 0:
            break
        inputs = list[InputRows]()
        for found in partition.inputs:
            if left > 0:
                inputs.append(replace(found, stop=min(found.stop, found.start + left)))
                left -= inputs[-1].stop - inputs[-1].start
        kept.append(replace(partition, inputs=tuple(inputs)))
    return kept


def make_placeholder(source: str) -> PlannedPartition:
    """A partition of no file."""
    return PlannedPartition(source, 0, 0, ())


def adopt_partition(source: str, partition: str, raw: tuple[File, ...]) -> PlannedPartition:
    """A partition by its name, without its input files."""
    number, chunk = (int(digits) for digits in partition.split("-"))
    return PlannedPartition(source, number, chunk, (), raw=raw)
