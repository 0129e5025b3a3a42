"""How far a run is: which tasks of each step are done, which are missing, and how hosts of images answer.

Reads manifests and receipts, and addresses of some of the tasks that fetched. `sections.py` reports on what the steps
kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import RenderableType
from rich.table import Table

from vlmill.pipeline.core.shown import Shown, count_things
from vlmill.pipeline.dedupe.pieces import list_folders
from vlmill.pipeline.engine.build import PHASES
from vlmill.pipeline.engine.chain import read_manifest_counts
from vlmill.pipeline.engine.scaling import count_source_partitions
from vlmill.pipeline.engine.store import list_step_files
from vlmill.pipeline.recipe.lock import explain_unbuilt, read_locked_recipe
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.funnel import LevelCounts, format_share, read_funnel, total_funnel
from vlmill.pipeline.reports.hosts import HostCounts, count_hosts, make_host_table
from vlmill.pipeline.reports.undecided import UndecidedCount, count_undecided
from vlmill.pipeline.reports.unread import UnreadKeys, list_unread_keys
from vlmill.pipeline.steps.write_texts import WriteTexts

HOSTS = 10
"""Hosts that are shown."""


@dataclass(frozen=True, slots=True)
class StepProgress:
    """One step over one source, benchmark or stage."""

    phase: str  # of the build, as `--until` names it
    step: str  # shards and token lengths with their policy
    of: str  # the source, benchmark or stage; empty for steps over all sources
    folder: str  # in the run's folder
    done: int  # tasks that are committed
    tasks: int | None  # of how many; None while nobody knows
    complete: bool  # whether the step has its manifest


@dataclass(frozen=True, slots=True, repr=False)
class Status(Shown):
    """How far a run is, and what a person should know of it before its end."""

    steps: tuple[StepProgress, ...]  # those that were begun, in the order of their work
    funnel: Mapping[str, LevelCounts]  # by source, as far as it is counted
    undecided: tuple[UndecidedCount, ...]  # what filters could not decide
    unread: tuple[UnreadKeys, ...]  # keys of rows that nobody read
    hosts: HostCounts  # that were asked for images
    unbuilt: str | None  # a warning where the recipe was changed and is not built to its end

    def say_short(self) -> str:
        """How many steps are complete, and what was kept."""
        done = sum(step.complete for step in self.steps)
        kept = _list_kept(self.funnel, ("samples",))
        return f"{done:,} of {count_things(len(self.steps), 'step')} complete" + (f", kept {kept}" if kept else "")

    def list_parts(self, advice: str = "") -> Iterator[RenderableType]:
        """Steps, hosts, what filters could not decide and nobody read, and what was kept; `advice` stands behind it."""
        yield make_status_table(self.steps)
        if self.hosts.hosts:
            yield make_host_table(self.hosts, HOSTS)
        yield from map(str, (*self.undecided, *self.unread))
        if any(self.funnel.values()):
            yield f"kept: {_list_kept(self.funnel)}{advice}"
        for source in self.funnel if len(self.funnel) > 1 else ():
            if said := _list_kept({source: self.funnel[source]}, ("rows", "samples")):
                yield f"  {source}: {said}"


def read_status(root: Path) -> Status:
    """Read how far a run is.

    Raises:
        StoreError: the folder holds no run.
    """
    return Status(
        tuple(read_progress(root)),
        read_funnel(root),
        tuple(count_undecided(root)),
        tuple(list_unread_keys(root)),
        count_hosts(root, read_locked_recipe(root).sources),
        explain_unbuilt(root),
    )


def read_progress(root: Path) -> list[StepProgress]:
    """How many tasks of each step are done, in the order of their work, then of sources, benchmarks and stages.

    A step with a manifest is complete; in one without, tasks that have a receipt are counted.
    """
    recipe = read_locked_recipe(root)
    expected = {source: _count_partitions(root, recipe, source) for source in recipe.sources}
    folders = sorted({path.parent.relative_to(root) for path in list_step_files(root, "made_by.json")})
    scored = {*recipe.verdict_steps(), *recipe.clusters, "semantic"} - {*recipe.unscored_verdict_steps()}
    scored |= {f"{name} {step}" for name in recipe.clusters for step in ("sample", "assigned")}
    found = [_read_step(root, folder, expected, scored, recipe.list_writers()) for folder in folders]
    return sorted(found, key=lambda step: (*_rank_step(recipe, step), step.of))


def _read_step(
    root: Path,
    folder: Path,
    expected: Mapping[str, int | None],
    scored: Collection[str],
    writers: Collection[str],
) -> StepProgress:
    """How far a step is; `scored` are the steps over a source of the phase of signals, `writers` those that write."""
    phase, step, of = _name_step(folder.parts)
    if phase == "curate" and step in (*writers, WriteTexts.name):
        phase = "write"
    phase = "signals" if phase == "curate" and step in scored else phase
    manifest = root / folder / "manifest.json"
    if manifest.exists():
        count = len(read_manifest_counts(manifest)[0])
        return StepProgress(phase, step, of, str(folder), count, count, complete=True)
    done = len({path.name.split(".", 1)[0] for path in (root / folder).glob("*.receipt.json")})
    tasks = None if step == "survey" else expected.get(of)
    return StepProgress(phase, step, of, str(folder), done, tasks, complete=False)


def _name_step(parts: Sequence[str]) -> tuple[str, str, str]:
    """The phase, the step and what it is about, of a folder's path."""
    place, first, *rest = parts
    if place == "shards":
        return "shard", " ".join([*rest[1:], rest[0]] if rest[1:] else ["render", *rest]), first
    if first == "mixtures":
        return "mixture", rest[1], rest[0]
    if first == "signals":
        return first, " ".join(rest), ""
    if first in ("benchmarks", "dedupe"):
        return first, rest[-1], rest[0] if rest[1:] else ""
    return {"survey": "survey", "outcomes": "shard"}.get(rest[-1], "curate"), " ".join(rest), first


def _rank_step(recipe: Recipe, step: StepProgress) -> tuple[int, int, str]:
    """The place of a step in the order of work; one that is not known comes last in its phase."""
    filters = [filter_.name for filter_ in recipe.filters if filter_.name in recipe.unscored_verdict_steps()]
    shards = [f"{name} {policy}" for policy in recipe.policies for name in ("render", "signals", "lengths")]
    order = ["survey", "read", "hosts", "asked", "fetch", "retry", "takedown", "image_stats", "match"]
    order += [*recipe.list_writers(), WriteTexts.name, "boxes", *filters, "signature"]
    order += ["contamination", "decontaminate", *recipe.models]
    for name in recipe.clusters:
        order += [f"{name} {step}" for step in ("sample", "centroids", "assigned", "sizes")] + [name]
    order += ["quantiles", "semantic", "threshold", "index", "places", "candidates", "pairs", *list_folders()]
    order += [*shards, "outcomes"]
    order += ["select", "mix", "plan", "lock", "repetition"]
    place = order.index(step.step) if step.step in order else len(order)
    return PHASES.index(step.phase), place, step.step


def _count_partitions(root: Path, recipe: Recipe, source: str) -> int | None:
    """How many partitions a source has without a scale, or None before it is surveyed."""
    if not (root / f"steps/{source}/survey/manifest.json").exists():
        return None
    return count_source_partitions(root, recipe, source)


def make_status_table(steps: Iterable[StepProgress]) -> Table:
    """A line for each step over all sources: tasks that are done, and where some are missing."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("phase", "step"):
        table.add_column(name, no_wrap=True)
    table.add_column("tasks", justify="right", no_wrap=True)
    table.add_column("missing", overflow="fold")
    before = ""
    for (phase, step), found in _group_steps(steps).items():
        table.add_row("" if phase == before else phase, step, _count_tasks(found), ", ".join(_list_missing(found)))
        before = phase
    return table


def _list_kept(funnel: Mapping[str, LevelCounts], levels: Collection[str] | None = None) -> str:
    """What was kept of some sources together, at all levels or some."""
    return ", ".join(
        f"{line.kept:,} of {line.came:,} {level} ({format_share(line.kept, line.came)})"
        for level, line in total_funnel(funnel).items()
        if levels is None or level in levels
    )


def _group_steps(steps: Iterable[StepProgress]) -> dict[tuple[str, str], list[StepProgress]]:
    groups = dict[tuple[str, str], list[StepProgress]]()
    for step in steps:
        groups.setdefault((step.phase, step.step), []).append(step)
    return groups


def _count_tasks(found: Sequence[StepProgress]) -> str:
    done, tasks = sum(step.done for step in found), [step.tasks for step in found]
    return f"{done:,} of {'?' if None in tasks else f'{sum(filter(None, tasks)):,}'}"


def _list_missing(found: Sequence[StepProgress]) -> Iterator[str]:
    for step in found:
        if not step.complete:
            left = "some" if step.tasks is None else f"{step.tasks - step.done:,}"
            yield f"{left} of {step.of}" if step.of else left
