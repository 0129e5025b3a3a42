"""Fetches the images of a run: a barrier in front of `curate`, for sources that name images by address.

Most of it is waiting for servers. So partitions ask for a part of a core each while they fetch, and more of them run
at once than there are cores, where there are rows enough. On all nodes together they are no more than a host may be
asked at a time: each process asks a host for its share of `fetch.per_host`, and for less where a process before it saw
the host fail. With `fetch.after`, filters of texts are asked between read and fetch, and what they drop is not fetched
(steps/skip_images.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING

from vlmill.pipeline.core.files import remove_folder
from vlmill.pipeline.engine.chain import ChainStep
from vlmill.pipeline.engine.executor import IoBound
from vlmill.pipeline.engine.fetched_before import add_fetched_before
from vlmill.pipeline.engine.partition_tables import choose_retry_step
from vlmill.pipeline.fetch import Fetch, Retry, SharedFetch
from vlmill.pipeline.filters import FilterStep
from vlmill.pipeline.recipe.fetch_order import list_filters_before_fetch
from vlmill.pipeline.steps.retry_images import RetryImages
from vlmill.pipeline.steps.skip_images import SkipImages

if TYPE_CHECKING:
    from vlmill.pipeline.engine.build import Build
    from vlmill.pipeline.engine.survey import PlannedPartition

FETCH_CPUS = 0.25
"""Of a core, what a partition asks for while its images are fetched."""

ROWS_EACH = 200
"""Rows that are worth a process more than one for each core: to start it costs as much as to download a hundred
images."""

HOST_LIMITS = "logs/hosts"
"""Where downloading processes tell each other of hosts that fail, in the run's folder."""


def fetch_images(run: Build) -> None:
    """Read the partitions of sources that fetch, and fetch their images."""
    chains = [
        replace(run.chain(found), steps=tuple(run.list_raw_steps(found, retry=run.retry)))
        for found in run.all_partitions()
        if run.recipe.source(found.source).fetches and not found.raw
    ]
    if chains:
        bound = IoBound(FETCH_CPUS, count_downloads(run))
        for _ in run.run_chains("curate: fetch", chains, io_bound=bound, prepare=partial(add_fetched_before, run)):
            pass
        remove_folder(run.root / HOST_LIMITS)


def prepare_fetch(run: Build, source: str) -> Fetch:
    """The fetch step of a source, with what is served while the build runs, and a process's share of a host."""
    fetch = run.recipe.fetch_step(source)
    mirrors = {**fetch.mirrors, **run.serving.get(source, {})}
    settings = {one.name: getattr(fetch, one.name) for one in fields(fetch)}
    settings |= {"mirrors": mirrors, "per_host": max(1, fetch.per_host // count_downloads(run))}
    return SharedFetch(**settings, limits_folder=str(run.root / HOST_LIMITS))


def prepare_retry(run: Build, source: str) -> Retry | RetryImages | None:
    """The step that tries failed images of a source once more, as this build runs it."""
    step = choose_retry_step(run.recipe, source)
    if isinstance(step, Retry):
        return replace(step, fetch=run.fetch_step(source))
    return replace(step, images=run.find_images(source)) if step else None


def list_fetch_steps(run: Build, source: str) -> Iterator[ChainStep]:
    """Filters that images wait for, which images these leave, and the fetching of them."""
    folder = f"steps/{source}"
    if before := list_filters_before_fetch(run.recipe, source):
        yield from (ChainStep(f"{folder}/{filter_.name}", FilterStep(filter_)) for filter_ in before)
        yield ChainStep(f"{folder}/{SkipImages.name}", SkipImages(tuple(filter_.name for filter_ in before)))
    yield ChainStep(f"{folder}/fetch", run.fetch_step(source))


def is_retried(run: Build, partition: PlannedPartition) -> bool:
    """Whether failed images of a partition are tried once more behind the fetching of images."""
    return run.retry and not run.recipe.source(partition.source).fetches


def count_downloads(run: Build) -> int:
    """How many processes download at once, on all nodes."""
    fetching = [name for name in run.partitions if run.recipe.source(name).fetches]
    if not fetching:
        return 1
    least = min(run.recipe.fetch_step(name).per_host for name in fetching)
    partitions = [partition for name in fetching for partition in run.partitions[name]]
    worth = max(run.executor.width, sum(partition.rows for partition in partitions) // ROWS_EACH)
    return max(1, min(least, len(partitions), worth, int(run.executor.width / FETCH_CPUS)))


def join_steps(raw: Iterable[ChainStep], curation: Iterable[ChainStep]) -> tuple[ChainStep, ...]:
    """The steps of a chain; filters that are asked before images are fetched stand there alone."""
    before = tuple(raw)
    asked = {step.folder for step in before if isinstance(step.step, FilterStep)}
    return (*before, *(step for step in curation if step.folder not in asked))
