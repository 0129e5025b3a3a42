"""Ablations, `vlmill ablate` in Python: variants of a recipe, trained with several seeds and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from vlmill.api.arguments import check_workers, format_places, list_code_files
from vlmill.api.boundary import guard_call, guard_methods
from vlmill.api.builds import build_recipe
from vlmill.api.runs import Run, open_run
from vlmill.api.training import train_run
from vlmill.pipeline.core.files import write_atomically
from vlmill.pipeline.core.places import take_local_path
from vlmill.pipeline.core.terminal import make_console
from vlmill.pipeline.core.yaml_format import format_yaml
from vlmill.pipeline.engine.store import Store
from vlmill.pipeline.filters.custom import find_named_code
from vlmill.train.ablation.plan import AblationPlan, describe_plan, make_power_table, plan_runs
from vlmill.train.ablation.plot import write_plot
from vlmill.train.ablation.report import make_report
from vlmill.train.ablation.runs import prepare_runs
from vlmill.train.ablation.spec import Spec, Trial, find_ablation, list_trials, read_ablation
from vlmill.train.settings import Machine

__all__ = ["Ablation", "AblationPlan", "ablate", "plan_ablation"]

guard_methods(AblationPlan)  # which `plan_ablation` returns


@dataclass(frozen=True)
class Ablation:
    """A finished ablation."""

    folder: Path  # of all its runs
    report: Mapping[str, Any]  # what `ablation.json` holds: scores and costs of variants, differences from the baseline
    runs: Mapping[tuple[str, int], Run]  # by variant and seed
    plots: tuple[Path, ...]  # `ablation.svg` and `ablation.html`


@guard_call
def ablate(
    spec: str | Path,
    out: str | Path | None = None,
    *,
    source_run: str | Path | None = None,
    sources: Mapping[str, str | Path] | None = None,
    limit: int | None = None,
    filters: str | Path | Sequence[str | Path] = (),
    settings: Mapping[str, Any] | None = None,
    workers: int | None = None,
    machine: Machine | None = None,
    ranks: int | None = None,
    ray: str | None = None,
    console: Console | None = None,
) -> Ablation:
    """Train variants of a recipe with several seeds, and compare them with a baseline. Finished trainings are kept.

        found = vlmill.ablate("quickstart", "ablation", workers=0)
        found.report["differences"]["anyres"]["p"]
        found.runs["anyres", 0].stage("tune").stats

    Args:
        spec: A YAML file that names recipe, variants, baseline and seeds, or the name of a shipped one.
        out: The folder for all runs; None is `build/ablate-` and the file's name.
        source_run: A run whose files are reused where variants ask for the same.
        sources: Name of a source -> where its files are, as in `load_recipe`.
        limit: Only so many rows of each source.
        filters: Files with custom filters. Their code runs.
        settings: Dotted key -> value, of the file (`seeds`, `variants.NAME.KEY`) or of the recipe, for all variants.
        workers: Worker processes of the builds, as in `build`.
        machine: What trainings run on, as in `Run.train`.
        ranks: Processes that share a model, as in `Run.train`.
        ray: The cluster that builds, and trains with `ranks`.
        console: Where progress is shown; None shows nothing.

    Raises:
        RecipeError: the file or a variant's recipe is wrong, or a plan has too few sequences for a variant's steps.
        StoreError: a folder was made for another recipe, or runs have too few held-out samples in common.
    """
    console = console or make_console(quiet=True)
    check_workers(workers)
    prepared = _prepare(spec, out, sources, limit, filters, settings)
    with Store(prepared.root).locked():
        folders = prepared.build(source_run, workers, ray, console)
        _show_plan(plan_runs(prepared.spec, prepared.trials, folders, prepared.shown), console)
        for number, ((variant, seed), folder) in enumerate(folders.items(), start=1):
            console.print(f"{variant}, seed {seed}: run {number} of {len(folders)}")
            train_run(folder, None, machine, ranks, ray, console)
        report = make_report(prepared.spec, folders)
        write_atomically(prepared.root / "ablation.json", report)
        plots = tuple(write_plot(report, prepared.root))
    return Ablation(prepared.shown, report, {trial: open_run(folder) for trial, folder in folders.items()}, plots)


@guard_call
def plan_ablation(
    spec: str | Path,
    out: str | Path | None = None,
    *,
    source_run: str | Path | None = None,
    sources: Mapping[str, str | Path] | None = None,
    limit: int | None = None,
    filters: str | Path | Sequence[str | Path] = (),
    settings: Mapping[str, Any] | None = None,
    workers: int | None = None,
    ray: str | None = None,
    console: Console | None = None,
) -> AblationPlan:
    """Build the data of an ablation, and say what it would train and which differences it could show.

    `ablate` with the same folder goes on from here.

        vlmill.plan_ablation("image_fit").find_detectable(seeds=5, samples=600)

    Args:
        spec: As in `ablate`, and so all others.
        out: The folder for all runs.
        source_run: A run whose files are reused.
        sources: Name of a source -> where its files are.
        limit: Only so many rows of each source.
        filters: Files with custom filters.
        settings: Dotted key -> value.
        workers: Worker processes of the builds.
        ray: The cluster that builds.
        console: Where progress is shown; None shows nothing.

    Raises:
        RecipeError, StoreError: as `ablate` before it trains.
    """
    console = console or make_console(quiet=True)
    check_workers(workers)
    prepared = _prepare(spec, out, sources, limit, filters, settings)
    with Store(prepared.root).locked():
        folders = prepared.build(source_run, workers, ray, console)
        plan = plan_runs(prepared.spec, prepared.trials, folders, prepared.shown)
    _show_plan(plan, console)
    return plan


@dataclass(frozen=True)
class _Prepared:
    """An ablation that was read and checked; nothing of it is built."""

    spec: Spec
    trials: Sequence[Trial]
    shown: Path

    @property
    def root(self) -> Path:
        return self.shown.absolute()

    def build(
        self, source_run: str | Path | None, workers: int | None, ray: str | None, console: Console
    ) -> Mapping[tuple[str, int], Path]:
        """The run of every training, with its data."""
        reused = take_local_path(source_run) if source_run else None
        make = partial(build_recipe, workers=workers, ray=ray, console=console)
        return prepare_runs(self.root, self.trials, make, reused)


def _prepare(
    spec: str | Path,
    out: str | Path | None,
    sources: Mapping[str, str | Path] | None,
    limit: int | None,
    filters: str | Path | Sequence[str | Path],
    settings: Mapping[str, Any] | None,
) -> _Prepared:
    code = find_named_code(list_code_files(filters), [], {})
    path = find_ablation(str(spec))
    said = {key: value if isinstance(value, str) else format_yaml(value) for key, value in (settings or {}).items()}
    asked, places = read_ablation(path, said), format_places(sources)
    planned = list_trials(asked, places, limit, code)
    return _Prepared(asked, planned, take_local_path(out) if out else Path("build") / f"ablate-{path.stem}")


def _show_plan(plan: AblationPlan, console: Console) -> None:
    for sentence in describe_plan(plan):
        console.print(sentence)
    if (table := make_power_table(plan)) is not None:
        console.print(table)
