"""The benchmarks that training data is held against: read and through image stats in chains of their own, then put into one index.

They never become shards. Their files lie under steps/benchmarks/<benchmark>, with the split in its name: mmmu.validation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.decontaminate.index import FOLDER
from vlmill.pipeline.engine.chain import Chain, ChainStep, HashInputFile
from vlmill.pipeline.engine.store import File
from vlmill.pipeline.inputs.files import InputFile, list_input_files
from vlmill.pipeline.steps.read import Read
from vlmill.pipeline.steps.survey import Survey

if TYPE_CHECKING:
    from vlmill.pipeline.engine.build import Build

STEPS = f"steps/{FOLDER}"


def build_index(run: Build) -> tuple[File, ...]:
    """The index of the recipe's benchmarks, made if it is not there, its files named `benchmarks/<file>`; none without a block."""
    settings = run.recipe.decontaminate
    if settings is None:
        return ()
    chains = _surveys(run)
    cuts = [(chain, receipts[-1][1]) for chain, receipts in run.run_chains("benchmarks: survey", chains)]
    bounds = [(chain, json.loads((run.root / receipt.files[0].path).read_bytes())) for chain, receipt in cuts]
    reading = [
        _reading(run, chain, chunk, *cut) for chain, partitions in bounds for chunk, cut in enumerate(partitions)
    ]
    files = tuple(
        replace(file, name=f"{chain.input_file.source}/{receipt.partition}/{file.name}")
        for chain, receipts in run.run_chains("benchmarks: read", reading)
        for _, receipt in receipts
        for file in receipt.files
        if chain.input_file is not None
    )
    done = list(
        run.run_chains(
            "benchmarks: index", [Chain("all", (ChainStep(f"{STEPS}/index", settings.index()),), files=files)]
        )
    )
    return _named(done[0][1][-1][1].files)


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
    return _named(receipt.files)


def _named(files: Iterable[File]) -> tuple[File, ...]:
    return tuple(replace(file, name=f"{FOLDER}/{file.name}") for file in files)


def _surveys(run: Build) -> list[Chain]:
    """A chain for each input file of each split."""
    settings = run.recipe.decontaminate
    if settings is None:
        return []
    input_files = list[tuple[str, InputFile]]()
    for name, benchmark in settings.against.items():
        root, ranged = run.place(benchmark.root), benchmark.options.ranged
        for source, of in benchmark.splits(name).items():
            found = list_input_files(source, root, of.pattern, subset=of.subset, split=of.split, ranged=ranged)
            input_files += [(name, input_file) for input_file in found]
    files: list[File | None] = [None] * len(input_files)
    for place, file in run.executor.each(
        HashInputFile(), [input_file for _, input_file in input_files], lambda input_file: input_file
    ):
        files[place] = file
    bounds = run.recipe.partition
    return [
        Chain(
            f"{input_file.number:05d}",
            (
                ChainStep(
                    f"{STEPS}/{input_file.source}/survey",
                    Survey(settings.against[name].options, bounds.rows, bounds.bytes),
                ),
            ),
            input_file,
            (file,),
        )
        for (name, input_file), file in zip(input_files, files, strict=True)
        if file
    ]


def _reading(run: Build, chain: Chain, chunk: int, start: int, stop: int) -> Chain:
    """Read and image stats rows [start, stop) of the input file that `chain` surveyed."""
    input_file = chain.input_file
    if input_file is None:
        raise RecipeError(f"{chain}: a benchmark without an input file")
    survey = chain.steps[0].step
    folder = f"{STEPS}/{input_file.source}"
    root = run.place(run.recipe.roots()[input_file.source.partition(".")[0]])
    read = Read(survey.source, input_file.source, input_file.name, start, stop, images=root)  # type: ignore[attr-defined]
    steps = (ChainStep(f"{folder}/read", read), ChainStep(f"{folder}/image_stats", run.recipe.image_stats))
    return Chain(f"{input_file.number:05d}-{chunk:04d}", steps, input_file, chain.files)
