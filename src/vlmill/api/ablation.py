"""Ablations, `vlmill ablate` in Python: variants of a recipe, trained with several seeds and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from vlmill.api.builds import build_recipe
from vlmill.api.runs import Run, open_run
from vlmill.api.training import train_run
from vlmill.pipeline.core.files import write_atomically
from vlmill.pipeline.core.terminal import make_console
from vlmill.pipeline.engine.store import Store
from vlmill.pipeline.filters.custom import find_named_code
from vlmill.train.ablation.plot import write_plot
from vlmill.train.ablation.report import make_report
from vlmill.train.ablation.runs import prepare_runs
from vlmill.train.ablation.spec import find_ablation, list_trials, read_ablation
from vlmill.train.settings import Machine


@dataclass(frozen=True)
class Ablation:
    """A finished ablation."""

    folder: Path
    report: Mapping[str, Any]  # what `ablation.json` holds: scores and costs of variants, differences from the baseline
    runs: Mapping[tuple[str, int], Run]  # by variant and seed
    plots: tuple[Path, ...]


def ablate(
    spec: str | Path,
    out: str | Path | None = None,
    *,
    source_run: str | Path | None = None,
    sources: Mapping[str, str | Path] | None = None,
    limit: int | None = None,
    filters: Sequence[str | Path] = (),
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
        workers: Worker processes of the builds, as in `build`.
        machine: What trainings run on, as in `Run.train`.
        ranks: Processes that share a model, as in `Run.train`.
        ray: The cluster that builds, and trains with `ranks`.
        console: Where progress is shown; None shows nothing.

    Raises:
        RecipeError: the file or a variant's recipe is wrong, or a plan has too few sequences for a variant's steps.
        StoreError: a folder was made for another recipe, or runs have too few held-out samples in common.
    """
    path, console = find_ablation(str(spec)), console or make_console(quiet=True)
    asked, places = read_ablation(path), {name: str(place) for name, place in (sources or {}).items()}
    planned = list_trials(asked, places, limit, find_named_code(list(map(str, filters)), [], {}))
    shown = Path(out) if out else Path("build") / f"ablate-{path.stem}"
    root = shown.absolute()
    reused = Path(source_run) if source_run else None
    with Store(root).locked():
        folders = prepare_runs(root, planned, partial(build_recipe, workers=workers, ray=ray, console=console), reused)
        for number, ((variant, seed), folder) in enumerate(folders.items(), start=1):
            console.print(f"{variant}, seed {seed}: run {number} of {len(folders)}")
            train_run(folder, None, machine, ranks, ray, console)
        report = make_report(asked, folders)
        write_atomically(root / "ablation.json", report)
        plots = tuple(write_plot(report, root))
    return Ablation(shown, report, {trial: open_run(folder) for trial, folder in folders.items()}, plots)
