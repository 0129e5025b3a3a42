"""The benchmarks that training data is compared with.

They are read and pass image stats in chains of their own, then become one index.

They never become shards. Their files lie under steps/benchmarks/<benchmark>, with the split in its name:
mmmu.validation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from vlmill.pipeline.decontaminate.index import FOLDER
from vlmill.pipeline.engine.chain import Chain, ChainStep
from vlmill.pipeline.engine.store import File
from vlmill.pipeline.engine.survey import InputSet, PlannedPartition, survey_inputs
from vlmill.pipeline.steps.read import Read

if TYPE_CHECKING:
    from vlmill.pipeline.engine.build import Build

STEPS = f"steps/{FOLDER}"


def build_index(run: Build) -> tuple[File, ...]:
    """The index of the recipe's benchmarks, made if it is missing; none without a block.

    Its files are named `benchmarks/<file>`.
    """
    settings = run.recipe.decontaminate
    if settings is None:
        return ()
    surveyed = survey_inputs(run, "benchmarks: survey", list(_list_splits(run)))
    reading = [_make_reading_chain(run, partition) for partitions in surveyed.values() for partition in partitions]
    files = tuple(
        replace(file, name=f"{chain.input_files[0].source}/{receipt.partition}/{file.name}")
        for chain, receipts in run.run_chains("benchmarks: read", reading)
        for _, receipt in receipts
        for file in receipt.files
    )
    done = list(
        run.run_chains(
            "benchmarks: index", [Chain("all", (ChainStep(f"{STEPS}/index", settings.index()),), files=files)]
        )
    )
    return _name_files(done[0][1][-1][1].files)


def adopt_index(run: Build) -> tuple[File, ...]:
    """The same as the manifest has it, with what it was made of left as it is.

    Raises:
        StoreError: there is no index yet.
    """
    settings = run.recipe.decontaminate
    if settings is None:
        return ()
    splits = [source for name, benchmark in settings.against.items() for source in benchmark.splits(name)]
    run.folders |= {f"{STEPS}/{source}/{step}" for source in splits for step in ("survey", "read", "image_stats")}
    run.folders.add(f"{STEPS}/index")
    (receipt,) = run.manifest(f"{STEPS}/index")
    return _name_files(receipt.files)


def _name_files(files: Iterable[File]) -> tuple[File, ...]:
    return tuple(replace(file, name=f"{FOLDER}/{file.name}") for file in files)


def _list_splits(run: Build) -> Iterator[InputSet]:
    """The input files of each split of each benchmark."""
    settings = run.recipe.decontaminate
    for name, benchmark in settings.against.items() if settings else ():
        root = run.place(benchmark.root)
        for split, of in benchmark.splits(name).items():
            yield InputSet(split, f"{STEPS}/{split}", benchmark.options, root, of.pattern, of.subset, of.split)


def _make_reading_chain(run: Build, partition: PlannedPartition) -> Chain:
    """Read and image stats of a partition."""
    against = run.recipe.decontaminate.against if run.recipe.decontaminate else {}
    folder, benchmark = f"{STEPS}/{partition.source}", partition.source.partition(".")[0]
    read = Read(
        source=against[benchmark].options,
        name_of_source=partition.source,
        ranges=partition.ranges,
        images=run.place(run.recipe.roots()[benchmark]),
    )
    steps = (ChainStep(f"{folder}/read", read), ChainStep(f"{folder}/image_stats", run.recipe.image_stats))
    return Chain(partition.name, steps, partition.input_files, partition.files)
