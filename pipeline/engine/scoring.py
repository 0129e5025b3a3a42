"""The flow of signals: partitions are fed as chunks of decoded pictures and texts, models answer, scores are committed.

The executor runs it (flow.py); the step that commits is `score` (pipeline/steps/score.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vlmill.pipeline.core.files import read_json, write_atomically
from vlmill.pipeline.core.meter import METER
from vlmill.pipeline.core.resources import Resources
from vlmill.pipeline.engine.chain import Chain, ChainStep, TaskTiming, write_manifest
from vlmill.pipeline.engine.store import File, Receipt, Store, Task
from vlmill.pipeline.engine.timings import TimingLog
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.signals.ask import Ask
from vlmill.pipeline.signals.ask_worker import AskWorker, open_worker
from vlmill.pipeline.signals.base import Signal
from vlmill.pipeline.signals.chunks import SignalChunk
from vlmill.pipeline.signals.journal import remove_journals
from vlmill.pipeline.signals.weights import resolve_weights
from vlmill.pipeline.signals.worker import ScoredChunk, SignalWorker
from vlmill.pipeline.steps.quantiles import ComputeQuantiles
from vlmill.pipeline.steps.score import ScoreSignal, read_chunks

if TYPE_CHECKING:
    from vlmill.pipeline.engine.build import Build


@dataclass(frozen=True)
class ScoringJob:
    """A partition whose tables lack the values of some signals."""

    source: str
    partition: str
    files: Mapping[str, File]  # by name, as steps see them
    signals: tuple[str, ...]

    def make_task(self, step: ScoreSignal) -> Task:
        """The task of a signal over the partition."""
        return Task.over(self.files, f"steps/{self.source}/{step.name}", self.partition, step)


@dataclass(frozen=True)
class ScoredPartition:
    """What a partition came to: a receipt for each signal by its name, and how long its workers took."""

    receipts: Mapping[str, Receipt]
    timings: tuple[TaskTiming, ...]


@dataclass(frozen=True)
class SignalStage:
    """A signal's workers."""

    name: str
    signal: Signal
    root: Path  # of the run

    @property
    def overlaps(self) -> bool:
        """A server is asked about the next chunk while the last answers are on their way."""
        return isinstance(self.signal, Ask)

    @property
    def resources(self) -> Resources:
        """As the recipe says."""
        return self.signal.resources

    @property
    def unit(self) -> str:
        """What progress counts of it."""
        return "texts" if self.signal.view() is None else "images"

    def open_worker(self) -> AnsweringWorker:
        """A worker."""
        return AnsweringWorker(open_worker(self.name, self.signal, self.root))


@dataclass(frozen=True)
class AnsweringWorker:
    """A signal's worker as flows know workers."""

    worker: SignalWorker | AskWorker

    def load(self) -> None:
        """Load the model."""
        self.worker.load()

    def answer(self, item: SignalChunk) -> tuple[ScoredChunk, int]:
        """The scores of a chunk, and how many images or texts the model looked at."""
        scored = self.worker.score_chunk(item)
        return scored, scored.images or len(scored.scores.samples)

    def close(self) -> None:
        """Let go of the model."""
        self.worker.close()


@dataclass(frozen=True)
class ScoringFlow:
    """Scores partitions of a run under some signals."""

    root: Path
    signals: Mapping[str, Signal]

    @cached_property
    def stages(self) -> dict[str, SignalStage]:
        """A stage for each signal."""
        return {name: SignalStage(name, signal, self.root) for name, signal in self.signals.items()}

    def choose_stages(self, job: ScoringJob) -> Sequence[str]:
        """The signals that the partition lacks."""
        return job.signals

    def feed(self, job: ScoringJob) -> Iterator[SignalChunk]:
        """The chunks of a partition, with pictures under the views that its signals ask for."""
        views = [view for name in job.signals if (view := self.signals[name].view()) is not None]
        chunks = read_chunks({name: self.root / file.path for name, file in job.files.items()}, views)
        return (replace(chunk, partition=f"{job.source}/{job.partition}") for chunk in chunks)

    def finish(self, job: ScoringJob, answers: Mapping[str, Sequence[ScoredChunk]]) -> ScoredPartition:
        """Commit the scores of every signal."""
        store = Store(self.root)
        steps = {name: ScoreSignal(name, self.signals[name]) for name in job.signals}
        receipts = {
            name: store.perform(job.make_task(replace(step, scored=tuple(answers[name]))))
            for name, step in steps.items()
        }
        took = {name: round(sum(chunk.seconds for chunk in answers[name]), 4) for name in receipts}
        timings = (TaskTiming(f"steps/{job.source}/{name}", found.key, took[name]) for name, found in receipts.items())
        return ScoredPartition(receipts, tuple(timings))


BASE = "logs/signals.json"
"""Where relative paths of weights started from in the last build: for commands that know the run's folder alone."""


def find_signal_weights(recipe: Recipe, root: Path, base: Path | None) -> Recipe:
    """The recipe whose signals have the sha256 of their weights, and absolute paths.

    Args:
        recipe: As it was read.
        root: The run's folder.
        base: Where relative paths start from; None for where they did in the last build.

    Raises:
        RecipeError: weights are not there, or not those that the recipe says.
    """
    noted = root / BASE
    if base is None:
        base = Path(read_json(noted)["base"]) if noted.exists() else root
    else:
        write_atomically(noted, {"base": str(base.absolute())})
    start = base
    found = {name: resolve_weights(signal, f"signals.{name}", start) for name, signal in recipe.signals.items()}
    return replace(recipe, signals=found)


def score_partitions(run: Build, phase: str, names: Sequence[str]) -> None:
    """Score what has no scores yet of the partitions of a build that are curated, and write the manifests.

    Args:
        run: The build.
        phase: What progress calls it.
        names: The signals.
    """
    found = {(source, name): list[Receipt]() for source in run.partitions for name in names}
    store, jobs = Store(run.root), list[ScoringJob]()
    for chain, receipts in run.curated:
        files = (*chain.files, *(file for _, receipt in receipts for file in receipt.files))
        source, lacking = chain.steps[0].folder.split("/")[1], list[str]()
        job = ScoringJob(source, chain.partition, {file.name: file for file in files}, ())
        for name in names:
            signal = run.recipe.models[name]
            receipt = store.find(job.make_task(ScoreSignal(name, signal)))
            lacking += [name] if receipt is None else []
            found[source, name] += [receipt] if receipt is not None else []
        if lacking:
            jobs.append(replace(job, signals=tuple(lacking)))
    run.watcher.phase(phase, len(jobs))
    for event in run.executor.stream(ScoringFlow(run.root, run.recipe.models), jobs):
        METER.note({event.unit: event.amount})
        if event.job is not None:
            run.watcher.done()
            TimingLog(run.root).append(event.result.timings)
            for name, receipt in event.result.receipts.items():
                found[jobs[event.job].source, name].append(receipt)
    for (source, name), receipts_of in found.items():
        folder = f"steps/{source}/{name}"
        run.folders.add(folder)
        write_manifest(run.root, folder, sorted(receipts_of, key=lambda receipt: receipt.partition))
        remove_journals(run.root / folder)


def compute_quantiles(run: Build) -> tuple[File, ...]:
    """The file with the values at the quantiles that a build's threshold asks for, if it asks for any."""
    threshold = run.recipe.find_threshold()
    if threshold is None or not threshold.quantiles:
        return ()
    files = tuple(file for name in run.recipe.signals for file in run.gather_files(name))
    step = ChainStep("steps/signals/quantiles", ComputeQuantiles(threshold.quantiles))
    ((_, receipts),) = run.run_chains("signals: quantiles", [Chain("all", (step,), files=files)])
    return receipts[-1][1].files
