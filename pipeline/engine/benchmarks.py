"""The benchmarks that training data is held against: read and inspected in lanes of their own, then put into one index.

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
    settings = run.recipe.decontaminating()
    if settings is None:
        return ()
    lanes = _surveys(run)
    cuts = [(lane, receipts[-1][1]) for lane, receipts in run.walk("benchmarks: survey", lanes)]
    bounds = [(lane, json.loads((run.root / receipt.files[0].path).read_bytes())) for lane, receipt in cuts]
    reading = [_reading(run, lane, chunk, *cut) for lane, parts in bounds for chunk, cut in enumerate(parts)]
    files = tuple(
        replace(file, name=f"{lane.origin.source}/{receipt.part}/{file.name}")
        for lane, receipts in run.walk("benchmarks: read", reading)
        for _, receipt in receipts
        for file in receipt.files
        if lane.origin is not None
    )
    walked = list(
        run.walk("benchmarks: index", [Chain("all", (ChainStep(f"{STEPS}/index", settings.index()),), files=files)])
    )
    return _named(walked[0][1][-1][1].files)


def adopt_index(run: Build) -> tuple[File, ...]:
    """The same as the manifest has it, with what it was made of left as it is.

    Raises:
        StoreError: there is no index yet.
    """
    settings = run.recipe.decontaminating()
    if settings is None:
        return ()
    splits = [source for name, benchmark in settings.against.items() for source in benchmark.splits(name)]
    run.folders |= {f"{STEPS}/{source}/{step}" for source in splits for step in ("survey", "read", "inspect")}
    run.folders.add(f"{STEPS}/index")
    (receipt,) = run.manifest(f"{STEPS}/index")
    return _named(receipt.files)


def _named(files: Iterable[File]) -> tuple[File, ...]:
    return tuple(replace(file, name=f"{FOLDER}/{file.name}") for file in files)


def _surveys(run: Build) -> list[Chain]:
    """A lane for each origin file of each split."""
    settings = run.recipe.decontaminating()
    origins = list[tuple[str, InputFile]]()
    for name, benchmark in settings.against.items() if settings else ():
        root, ranged = run.place(benchmark.root), run.recipe.benchmark(name).ranged
        for source, of in benchmark.splits(name).items():
            found = list_input_files(source, root, of.pattern, subset=of.subset, split=of.split, ranged=ranged)
            origins += [(name, origin) for origin in found]
    files: list[File | None] = [None] * len(origins)
    for place, file in run.executor.each(HashInputFile(), [origin for _, origin in origins], lambda origin: origin):
        files[place] = file
    bounds = run.recipe.partition
    return [
        Chain(
            f"{origin.number:05d}",
            (
                ChainStep(
                    f"{STEPS}/{origin.source}/survey",
                    Survey(run.recipe.benchmark(name), bounds.rows, bounds.bytes),
                ),
            ),
            origin,
            (file,),
        )
        for (name, origin), file in zip(origins, files, strict=True)
        if file
    ]


def _reading(run: Build, lane: Chain, chunk: int, start: int, stop: int) -> Chain:
    """Read and inspect rows [start, stop) of the origin that `lane` surveyed."""
    origin = lane.origin
    if origin is None:
        raise RecipeError(f"{lane}: a benchmark without an origin")
    survey = lane.links[0].step
    folder = f"{STEPS}/{origin.source}"
    root = run.place(run.recipe.roots()[origin.source.partition(".")[0]])
    read = Read(survey.source, origin.source, origin.name, start, stop, images=root)  # type: ignore[attr-defined]
    links = (ChainStep(f"{folder}/read", read), ChainStep(f"{folder}/inspect", run.recipe.inspecting()))
    return Chain(f"{origin.number:05d}-{chunk:04d}", links, origin, lane.files)
