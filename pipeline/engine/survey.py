"""The first phase, of sources and benchmarks: find input files, hash them, and cut them into partitions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vlmill.pipeline.core.names import CUTS_FILE
from vlmill.pipeline.engine.chain import Chain, ChainStep
from vlmill.pipeline.engine.input_digests import InputDigests
from vlmill.pipeline.engine.store import File
from vlmill.pipeline.inputs.files import InputFile, hash_input, list_input_files
from vlmill.pipeline.sources import OnBadFile, Source
from vlmill.pipeline.steps.survey import Survey

if TYPE_CHECKING:
    from vlmill.pipeline.engine.build import Build


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


@dataclass(frozen=True)
class PlannedPartition:
    """A partition: rows [start, stop) of an input file, in a scaled run those with a hash below `bound`."""

    input_file: InputFile
    file: File
    chunk: int
    start: int
    stop: int
    bound: int | None = None  # of the hashes of the rows that are read; None: every row
    raw: tuple[File, ...] = ()  # what was read and fetched of it, where no input file is asked any more

    @property
    def name(self) -> str:
        """`<file number>-<chunk>`."""
        return f"{self.input_file.number:05d}-{self.chunk:04d}"


@dataclass(frozen=True)
class HashInputFile:
    """Hashes input files in workers."""

    def __call__(self, input_file: InputFile) -> File:
        """The input file as an input of tasks."""
        sha256, size = hash_input(input_file)
        return File("input", input_file.url, sha256, size)


def survey_inputs(run: Build, phase: str, input_sets: Sequence[InputSet]) -> dict[str, list[PlannedPartition]]:
    """The partitions of every set by its name, ordered by their own. A chain for each input file.

    Raises:
        SourceError: a set has no files, they cannot be listed, or some are bad and not skipped.
    """
    by_name = {inputs.name: inputs for inputs in input_sets}
    input_files = [
        input_file
        for inputs in input_sets
        for input_file in list_input_files(
            inputs.name,
            inputs.root,
            inputs.pattern,
            subset=inputs.subset,
            split=inputs.split,
            ranged=inputs.source.ranged,
        )
    ]
    hashed = _hash_input_files(run, phase, input_files)
    chains = [
        _survey_chain(run, by_name[input_file.source], input_file, hashed[place])
        for place, input_file in enumerate(input_files)
    ]
    partitions: dict[str, list[PlannedPartition]] = {inputs.name: [] for inputs in input_sets}
    for chain, receipts in run.run_chains(phase, chains):
        (cuts,) = (file for file in receipts[-1][1].files if file.name == CUTS_FILE)
        assert chain.input_file is not None
        partitions[chain.input_file.source] += [
            PlannedPartition(chain.input_file, chain.files[0], chunk, start, stop)
            for chunk, (start, stop) in enumerate(json.loads((run.root / cuts.path).read_bytes()))
        ]
    return {name: sorted(found, key=lambda partition: partition.name) for name, found in partitions.items()}


def _hash_input_files(run: Build, phase: str, input_files: Sequence[InputFile]) -> dict[int, File]:
    """Input files as inputs of tasks, by their place; those elsewhere that have not changed are not read again."""
    digests = InputDigests.read(run.root)
    hashed = {place: file for place, one in enumerate(input_files) if (file := digests.find(one)) is not None}
    left = [place for place in range(len(input_files)) if place not in hashed]
    run.watcher.phase(f"{phase}: hash", len(left))
    for number, file in run.executor.each(HashInputFile(), [input_files[place] for place in left]):
        hashed[left[number]] = file
        run.watcher.done()
    digests.write(run.root, [(one, hashed[place]) for place, one in enumerate(input_files)])
    return hashed


def _survey_chain(run: Build, inputs: InputSet, input_file: InputFile, file: File) -> Chain:
    bounds = run.recipe.partition
    survey = Survey(inputs.source, bounds.rows, bounds.bytes, input_file.name, inputs.on_bad_file)
    step = ChainStep(f"{inputs.folder}/survey", survey)
    return Chain(f"{input_file.number:05d}", (step,), input_file, (file,))


def limit_rows(partitions: list[PlannedPartition], limit: int | None) -> list[PlannedPartition]:
    """The partitions that hold the first `limit` rows; the last one is cut short."""
    if limit is None:
        return partitions
    kept, left = [], limit
    for partition in partitions:
        if left <= 0:
            break
        kept.append(replace(partition, stop=min(partition.stop, partition.start + left)))
        left -= kept[-1].stop - kept[-1].start
    return kept


def make_placeholder(source: str) -> PlannedPartition:
    """A partition of no file."""
    return PlannedPartition(InputFile(source, 0, "", ""), File("input", "", "", 0), 0, 0, 0)


def adopt_partition(source: str, partition: str, raw: tuple[File, ...]) -> PlannedPartition:
    """A partition by its name, without its input file."""
    number, chunk = (int(digits) for digits in partition.split("-"))
    return PlannedPartition(InputFile(source, number, "", ""), File("input", "", "", 0), chunk, 0, 0, raw=raw)
