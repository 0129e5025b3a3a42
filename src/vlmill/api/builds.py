"""Recipes and builds: `vlmill build` in Python."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from vlmill.api.arguments import (
    check_workers,
    format_places,
    format_settings,
    list_code_files,
    list_texts,
    name_recipe,
)
from vlmill.api.boundary import guard_call
from vlmill.api.checks import forecast_build, refuse_faults
from vlmill.api.runs import Run, open_run
from vlmill.api.wording import reword
from vlmill.mixtures.build import build_stages, read_stats
from vlmill.mixtures.disclosure import read_disclosure, remove_disclosure, restore_disclosure
from vlmill.mixtures.report.card import remove_card, write_card
from vlmill.mixtures.report.grouped import group_notes
from vlmill.pipeline.checks.changed_inputs import find_changed_inputs
from vlmill.pipeline.checks.forecast import StepForecast, describe_causes
from vlmill.pipeline.checks.odd_settings import warn_of_odd_settings
from vlmill.pipeline.core.collector import collect_rarely
from vlmill.pipeline.core.errors import RecipeError, StoreError, VlmillError
from vlmill.pipeline.core.event_log import EventLog
from vlmill.pipeline.core.places import take_run_folder
from vlmill.pipeline.core.progress import ProgressBars
from vlmill.pipeline.core.shown import Shown
from vlmill.pipeline.core.terminal import make_console
from vlmill.pipeline.core.yaml_format import format_yaml
from vlmill.pipeline.engine import workdir
from vlmill.pipeline.engine.build import PHASES, Build, list_phases
from vlmill.pipeline.engine.executor import open_executor
from vlmill.pipeline.engine.outcomes import count_outcomes
from vlmill.pipeline.engine.serve import serve_folders
from vlmill.pipeline.engine.workdir import forget_versions, open_run_folder, pin_hub_roots, remove_unused
from vlmill.pipeline.filters.custom import find_named_code
from vlmill.pipeline.recipe import load
from vlmill.pipeline.recipe.given import RecipeName
from vlmill.pipeline.recipe.load import ReadableRecipe
from vlmill.pipeline.recipe.lock import clear_unbuilt, explain_unbuilt, is_bound, lock_folder, read_kept_sources
from vlmill.pipeline.recipe.mapping import find_recipe, read_held_code, read_mapping
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports import kept
from vlmill.pipeline.reports.contamination import list_warnings
from vlmill.pipeline.reports.lost_to_unused import list_lost_to_unused
from vlmill.pipeline.reports.signals import list_silent_signals
from vlmill.train.validate import list_outdated_trainings, list_short_plans, validate_whole_recipe


@dataclass(frozen=True, repr=False)
class LoadedRecipe(Shown):
    """An effective recipe: a file with what was changed in it."""

    recipe: Recipe  # with all defaults, as classes
    mapping: Mapping[str, Any]  # the same as YAML has it; a run's folder is locked to it
    base: Path  # where its relative paths start
    notes: tuple[str, ...] = ()  # what a person should know of it
    moved: frozenset[str] = frozenset()  # sources and benchmarks whose root an option has set

    @property
    def name(self) -> str:
        """Its name."""
        return self.recipe.name

    def say_short(self) -> str:
        """Its name, sources and stages."""
        stages = ", ".join(stage.name for stage in self.recipe.stages) or "none"
        return f"{self.name}, sources: {', '.join(self.recipe.sources)}, stages: {stages}"

    def list_parts(self) -> Iterator[RenderableType]:
        """Its mapping as YAML, without the code of custom filters."""
        yield from (f"# {note}" for note in self.notes)
        yield format_yaml({key: value for key, value in self.mapping.items() if key != "custom_filters"})


@guard_call
def load_recipe(
    recipe: str | Path | Mapping[str, Any],
    *,
    sources: Mapping[str, str | Path] | None = None,
    limit: int | None = None,
    scale: float | None = None,
    settings: Mapping[str, Any] | None = None,
    filters: str | Path | Sequence[str | Path] = (),
    trust_code: str | Sequence[str] = (),
    run: str | Path | None = None,
) -> LoadedRecipe:
    """Read a recipe, change values of it, and check all of it.

    Args:
        recipe: A recipe file, the name of a shipped recipe such as `quickstart`, or a dict with what such a file
            holds, whose relative paths start from the working folder.
        sources: Name of a source or benchmark -> where its files are: a folder, a file, a pattern, or
            `hf://datasets/OWNER/NAME@REVISION`.
        limit: Only so many rows of each source, from the front.
        scale: Only this fraction of each source's rows, chosen by hash, of every budget, so that shares stay, and of
            a stage's training steps and warm-up.
        settings: Dotted key -> value, such as `{"filters.language.drop": ["zh"]}`; a string is read as YAML.
        filters: Python files with custom filters. Their code runs.
        trust_code: The sha256 of custom filters' code that the recipe holds, and that may run.
        run: The folder of a run of this recipe, whose subsets of sources count; None lists them anew.

    Raises:
        RecipeError: names each wrong key or value and what was allowed; or the recipe holds code that was not named.
        TypeError: an argument is of another kind, such as a list for `recipe`.
    """
    named = name_recipe(recipe)
    trusted = list_texts("trust_code", trust_code)
    code = find_named_code(list_code_files(filters), trusted, read_held_code(find_recipe(named)))
    sets = format_settings(settings) | ({} if scale is None else format_settings({"scale": scale}))
    return load_with_code(named, format_places(sources), limit, sets, code, take_run_folder(run) if run else None)


def load_with_code(
    recipe: RecipeName,
    sources: Mapping[str, str],
    limit: int | None,
    sets: Mapping[str, str],
    code: Sequence[tuple[str, str]],
    run: Path | None = None,
) -> LoadedRecipe:
    """The same, of texts, with the custom filters' code that may run: file name and code.

    Raises RecipeError as `load_recipe`.
    """
    found = load.compose_recipe(recipe, sources, limit, sets, code, read_kept_sources(run))
    validate_whole_recipe(found.recipe)
    return LoadedRecipe(found.recipe, found.data, found.base, found.notes, found.find_moved())


def load_for_build(
    recipe: RecipeName,
    sources: Mapping[str, str],
    limit: int | None,
    sets: Mapping[str, str],
    code: Sequence[tuple[str, str]],
    root: Path,
    *,
    accept_changes: bool = False,
) -> LoadedRecipe:
    """The same for a build in the folder `root`: where it fails, what is wrong with the input files is said as well.

    The folder's subsets of sources count unless changes are accepted.

    Raises:
        RecipeError: all faults of the recipe and of its inputs.
    """
    run = None if accept_changes else root
    try:
        return load_with_code(recipe, sources, limit, sets, code, run)
    except RecipeError:
        refuse_faults(load.load_readable(recipe, sources, limit, sets, code, read_kept_sources(run)), root)
        raise


@guard_call
def build(
    recipe: str | Path | Mapping[str, Any] | LoadedRecipe,
    out: str | Path | None = None,
    *,
    workers: int | None = None,
    ray: str | None = None,
    until: str | None = None,
    accept_changes: bool = False,
    rebuild: bool = False,
    retry_failed: bool = False,
    console: Console | None = None,
) -> Run:
    """Carry a recipe's raw data to shards, mixtures and plans.

    It begins with what `check_recipe` looks at, the estimate aside, and ends there if anything is wrong, before it
    writes anything. Call it again after any interruption, or with more workers: what is there is kept, the rest is
    made, and the bytes are the same.

    Args:
        recipe: A recipe file, the name of a shipped recipe, a dict, or what `load_recipe` made of one.
        out: The run's folder; None is `build/` and the recipe's name.
        workers: Worker processes on this machine; 0 works in this process; None is one per core, and none for a small
            run. Without signals they need no Ray.
        ray: The address of a Ray cluster to join, all of whose nodes see the folder.
        until: Stop after this phase: survey, benchmarks, write, curate, signals, dedupe, shard or mixture.
        accept_changes: Let the recipe replace the one that the folder is locked to; what the change does not touch is
            kept.
        rebuild: Make pure steps anew under today's library versions; nothing is fetched again.
        retry_failed: Ask once more for images that could not be had.
        console: Where progress, warnings and what was kept of each source are shown; None shows nothing.

    Returns:
        The run.

    Raises:
        RecipeError: the recipe asks for something that does not exist or contradicts itself.
        SourceError: an input file is missing or does not have the form that its source declares.
        StoreError: the folder is locked to another recipe, in use, or damaged.
        VlmillError: less was kept of a source than the recipe expects, or nothing. The folder keeps its data.
    """
    check_workers(workers)
    if until is not None and until not in PHASES:
        raise RecipeError(f"--until {until}: there is no such phase; choose among {', '.join(PHASES)}")
    if isinstance(recipe, LoadedRecipe):
        loaded = recipe
    else:
        loaded = _load_unchanged(name_recipe(recipe), out, accept_changes=accept_changes)
    shown, console = take_run_folder(out) if out else Path("build") / loaded.name, console or make_console(quiet=True)
    refuse_faults(ReadableRecipe(loaded.recipe, loaded.mapping, loaded.base), shown)
    named = loaded.recipe.tokenizer
    workdir.refuse_other_files(shown, loaded.base / named if named else None)
    root, came = shown.absolute(), list[kept.KeptOfSource]()  # workers have other working folders
    for note in loaded.notes:
        _print_line(console, note)

    def count(folders: dict[str, str]) -> None:
        came.extend(kept.count_kept(root, loaded.recipe, folders))

    log, asked = EventLog(root), {"until": until, "workers": workers, "ray": ray}
    asked |= {"accept_changes": accept_changes, "rebuild": rebuild, "retry_failed": retry_failed}
    with log.span("build", version=version("vlmill"), recipe=loaded.name, **asked):
        try:
            build_recipe(
                root,
                loaded.recipe,
                loaded.mapping,
                loaded.base,
                workers,
                ray,
                moved=loaded.moved,
                until=until,
                accept_changes=accept_changes,
                rebuild=rebuild,
                retry_failed=retry_failed,
                outcome=count,
                console=console,
            )
        except RecipeError as error:  # of a mixture that cannot be made, since a source that it mixes fell short
            raise RecipeError(*filter(None, [kept.explain_shortfall(came, shown)]), *error.faults) from error
        finally:  # a mixture that cannot be made has its reasons there
            _report_kept(came, shown, console, log)
        for line in _list_notes(root, loaded.recipe, until, shown):
            _print_line(console, line)
            log.write("note", message=line)
        if short := kept.explain_shortfall(came, shown):
            raise VlmillError(
                f"{short}\nThe data is in {shown}; `expect: {{kept: SHARE}}` in the recipe says what is enough"
            )
    return open_run(shown)


def _report_kept(came: Sequence[kept.KeptOfSource], shown: Path, console: Console, log: EventLog) -> None:
    """Print and log what was kept of each source, and the warnings."""
    if came:
        console.print(kept.make_kept_table(came))
    for found in came:
        log.write("kept", source=found.source, rows=found.rows, samples=found.samples.to_json())
    for warning in kept.list_kept_warnings(came, shown):
        _print_line(console, warning)
        log.write("warning", message=warning)


def _load_unchanged(recipe: RecipeName, out: str | Path | None, *, accept_changes: bool) -> LoadedRecipe:
    """A recipe as its file has it, for a build in `out`, or in the folder that it is built in by default."""
    path = find_recipe(recipe)
    root = take_run_folder(out) if out else Path("build") / str(read_mapping(path).get("name"))
    code = find_named_code([], [], read_held_code(path))
    return load_for_build(recipe, {}, None, {}, code, root, accept_changes=accept_changes)


def _list_notes(root: Path, recipe: Recipe, until: str | None, shown: Path) -> Iterator[str]:
    """What a person should look at after a build: contamination, notes of mixtures, plans that do not fit training."""
    if until != "survey":
        yield from list_warnings(root, recipe)
        yield from list_silent_signals(root, recipe)
        yield from warn_of_odd_settings(recipe)
    if recipe.stages and until in (None, "mixture"):
        for stage, stats in read_stats(root, None).items():
            yield from (f"{stage}: {note}" for note in group_notes(stats["notes"]))
        yield from list_short_plans(root, recipe)
        yield from list_outdated_trainings(root, recipe, shown)
        yield from list_lost_to_unused(root, recipe)


@guard_call
def forecast_changes(
    recipe: str | Path | Mapping[str, Any] | LoadedRecipe, out: str | Path
) -> tuple[StepForecast, ...]:
    """What building a recipe in the folder of a run keeps of it and makes again, and why, before any work.

    Reads the folder's lock and manifests, compares the tokenizer and lists with the run's copies, and input files with
    those that were read, as far as they are on this machine and at most 1 GiB. Others, and vlmill itself, are taken to
    be those of the run. Where `load_recipe` moved a source or benchmark, what follows from such files is `run again
    where the files differ`.

    Raises:
        RecipeError: the recipe is wrong.
        StoreError: the folder holds no run, or its lock is damaged.
    """
    loaded = recipe if isinstance(recipe, LoadedRecipe) else load_recipe(recipe)
    return forecast_build(take_run_folder(out).absolute(), loaded.recipe, loaded.base, loaded.moved)


def _print_line(console: Console, line: str) -> None:
    """Print a line as it is, in the words of whoever called."""
    (said,) = reword([line])
    console.print(said, markup=False, soft_wrap=True)


def _show_forecast(root: Path, recipe: Recipe, base: Path, moved: Collection[str], console: Console) -> None:
    """Print what a change touches. A lock that cannot be read is about to be written anew, and forecasts nothing."""
    if not is_bound(root):
        return
    try:
        forecasts = forecast_build(root, recipe, base, moved)
    except StoreError as error:
        _print_line(console, f"What is kept of the run cannot be said ahead: {error}")
        return
    if any(found.outcome != "kept" for found in forecasts):
        console.print("what the change touches:")
        for line in describe_causes(forecasts):
            _print_line(console, f"  {line}")


def _show_changed_inputs(root: Path, recipe: Recipe, base: Path, console: Console | None) -> None:
    """Print which sources of a run that was built have other input files now."""
    if console:
        for name in (name for name, differs in find_changed_inputs(root, recipe, base).items() if differs):
            said = f"input files of {name} are not those that were read: what follows from them runs again"
            _print_line(console, said)


def build_recipe(
    root: Path,
    recipe: Recipe,
    data: Mapping[str, Any],
    base: Path,
    workers: int | None = None,
    ray: str | None = None,
    *,
    moved: Collection[str] = (),
    until: str | None = None,
    accept_changes: bool = False,
    rebuild: bool = False,
    retry_failed: bool = False,
    outcome: Callable[[dict[str, str]], None] | None = None,
    console: Console | None = None,
) -> None:
    """Build a recipe in a folder, phase after phase.

    Args:
        root: The run's folder, absolute.
        recipe: What is built.
        data: The recipe's mapping, which the folder is locked to.
        base: Where its relative paths start.
        workers: As in `build`.
        ray: As in `build`.
        moved: Sources and benchmarks whose root an option has set, for the forecast of a changed recipe.
        until: As in `build`.
        accept_changes: As in `build`.
        rebuild: As in `build`.
        retry_failed: As in `build`.
        outcome: Receives source -> the folder whose counts say what was kept, before mixtures are made.
        console: Where progress is shown; None shows nothing.
    """
    with collect_rarely(), open_run_folder(root) as check_lock:
        if accept_changes and console:
            _show_forecast(root, recipe, base, moved, console)
        disclosed = read_disclosure(root)
        _lock_run(root, data, accept_changes=accept_changes)
        _show_changed_inputs(root, recipe, base, None if accept_changes else console)
        recipe = pin_hub_roots(root, recipe, accept_changes=accept_changes)
        if rebuild:
            forget_versions(root)
        _remove_descriptions(root)  # a build that is killed leaves none: they would be of another run
        shown = console or make_console(quiet=True)

        def tell(line: str) -> None:
            _print_line(shown, line)
            EventLog(root).write("warning", message=line)

        with (
            open_executor(workers, ray, root=root, tell=tell, console=shown, **recipe.list_needs()) as pool,
            serve_folders(recipe, base, pool.own_address) as serving,
            ProgressBars(shown, EventLog(root)) as watcher,
        ):
            run = Build(root, recipe, base, pool, watcher, serving, retry=retry_failed)
            for phase in list_phases(run, until):
                check_lock()
                phase()
            check_lock()
            if until not in ("survey", "benchmarks", "write"):
                folders = count_outcomes(run, until)
                if outcome:
                    outcome(folders)
            if until in (None, "mixture"):
                build_stages(run)
                clear_unbuilt(root)
        check_lock()
        if until is None:
            remove_unused(root, run.folders if run.rules else None)
            write_card(root)
            if disclosed and not restore_disclosure(root, disclosed) and console:
                console.print(f"the run has changed since its disclosure: vlmill disclose {root}", markup=False)


def _lock_run(root: Path, data: Mapping[str, Any], *, accept_changes: bool) -> None:
    """Lock the run's folder; where the recipe changes, nothing stays that describes the run under the earlier one."""
    lock_folder(root, data, accept_changes=accept_changes)
    if explain_unbuilt(root):
        _remove_descriptions(root)


def _remove_descriptions(root: Path) -> None:
    """Remove the drafts of a disclosure and the card, which a build writes or puts back at its end."""
    remove_disclosure(root)
    remove_card(root)
