"""What is wrong with a recipe and what it would come to, before any work: `vlmill check`, and the start of a build."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from vlmill.api.arguments import (
    check_workers,
    format_places,
    format_settings,
    list_code_files,
    list_texts,
    name_recipe,
)
from vlmill.api.boundary import guard_call
from vlmill.api.wording import reword
from vlmill.mixtures.build import read_stage_mixture
from vlmill.mixtures.estimate import estimate_stage_tokens, sum_by_entry
from vlmill.mixtures.forecast import list_mixture_steps
from vlmill.mixtures.members import list_members
from vlmill.mixtures.report.warnings import warn_of_sums
from vlmill.pipeline.checks.changed_inputs import find_changed_inputs
from vlmill.pipeline.checks.check import EarlierWork, InputCheck, check_inputs, find_earlier_work
from vlmill.pipeline.checks.estimate import RunEstimate, SourceEstimate, add_known, count_workers, estimate_source
from vlmill.pipeline.checks.estimate_table import list_assumptions, list_totals, make_source_table
from vlmill.pipeline.checks.forecast import (
    ASSUMED,
    StepForecast,
    find_changed_files,
    forecast_steps,
    list_forecast_steps,
    make_forecast_table,
)
from vlmill.pipeline.checks.lacking_tokens import warn_of_lacking_tokens
from vlmill.pipeline.checks.odd_settings import warn_of_odd_settings
from vlmill.pipeline.checks.sample_costs import open_child
from vlmill.pipeline.checks.signal_costs import estimate_clusters, estimate_signals, list_countable
from vlmill.pipeline.core.errors import RecipeError, SourceError, VlmillError, list_errors, list_faults, raise_errors
from vlmill.pipeline.core.places import take_run_folder
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.core.shown import Shown, count_things
from vlmill.pipeline.fetch.address import UNFETCHED
from vlmill.pipeline.filters.custom import find_named_code
from vlmill.pipeline.recipe.load import ReadableRecipe, load_readable, load_recipe
from vlmill.pipeline.recipe.lock import is_bound, list_lock_differences, read_kept_sources, read_locked_recipe
from vlmill.pipeline.recipe.mapping import find_recipe, find_run, read_held_code
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.train.validate import list_recipe_errors, warn_of_short_plans

if TYPE_CHECKING:
    from vlmill.api.builds import LoadedRecipe
    from vlmill.train.estimate import TrainingEstimate

LEAST_SHARE = 4
"""A build is refused on a disk with less than this part of the bytes of its input files free: images are kept as they
came, and no table of texts is that much smaller than the file it was read from."""


@dataclass(frozen=True, repr=False)
class CheckResult(Shown):
    """All that is wrong with a recipe and what it names, and about what a build of it comes to."""

    faults: tuple[str, ...]  # what is wrong, a message each; a build refuses it
    estimate: RunEstimate  # of a build in an empty folder
    differences: str = ""  # from the recipe that the run's folder is locked to, a line each
    forecast: tuple[StepForecast, ...] = ()  # what a build in that folder does with each step of the run
    warnings: tuple[str, ...] = ()  # what is allowed, and hardly meant

    def say_short(self) -> str:
        """How much is wrong, and what a build would hold."""
        rows = add_known([source.rows for source in self.estimate.sources])
        held = "" if rows is None else f", about {count_things(rows, 'row')}"
        return f"{count_things(len(self.faults), 'fault')}, {count_things(len(self.warnings), 'warning')}{held}"

    def list_parts(self, *, faults: bool = True) -> Iterator[RenderableType]:
        """The estimate, warnings, what a build in the run's folder does, and what is wrong."""
        if self.estimate.sources:
            yield make_source_table(self.estimate)
        yield from (*list_totals(self.estimate), *list_assumptions(self.estimate))
        yield from (f"Warning: {warning}" for warning in self.warnings)
        if self.forecast:
            yield from self._list_forecast()
        yield from self.faults if faults else ()

    def _list_forecast(self) -> Iterator[RenderableType]:
        """What a build in the run's folder keeps and runs again."""
        here = "The folder holds a run of this recipe"
        if self.differences:
            (needs,) = reword(["A build there needs --accept-changes"])
            here = f"The folder is locked to another recipe:\n{self.differences}\n{needs}"
        if all(step.outcome == "kept" for step in self.forecast):
            yield f"{here}; it keeps every step ({reword([ASSUMED])[0]})."
            return
        yield f"{here}."
        yield make_forecast_table(self.forecast, "what a build there does")


@guard_call
def check_recipe(
    recipe: str | Path | Mapping[str, Any] | LoadedRecipe,
    out: str | Path | None = None,
    *,
    sources: Mapping[str, str | Path] | None = None,
    limit: int | None = None,
    settings: Mapping[str, Any] | None = None,
    filters: str | Path | Sequence[str | Path] = (),
    trust_code: str | Sequence[str] = (),
    workers: int | None = None,
) -> CheckResult:
    """Say all that is wrong with a recipe and the files that it names, and estimate what a build would come to.

    Nothing is written, no image is requested. The first rows of each source go through the steps of a build in a
    temporary folder; what they took is the base of the estimate. Of a folder that holds a run, it is said as well what
    a build there keeps and runs again.

    Args:
        recipe: A recipe file, the name of a shipped recipe such as `quickstart`, a dict, or what `load_recipe` made of
            one.
        out: The folder that the run would be built in; None is `build/` and the recipe's name.
        sources: As in `load_recipe`, as the next four; they are for a file, and have been said where it was loaded.
        limit: As in `load_recipe`.
        settings: As in `load_recipe`.
        filters: As in `load_recipe`.
        trust_code: As in `load_recipe`.
        workers: Of the build whose hours are estimated, as in `build`.

    Raises:
        RecipeError: there is no such recipe, it is no YAML mapping, or it holds code that was not named.
        TypeError: a loaded recipe is to be changed.
    """
    check_workers(workers)
    root = take_run_folder(out) if out else None
    if not isinstance(recipe, (str, Path, Mapping)):
        if sources or limit is not None or settings or filters or trust_code:
            raise TypeError("a loaded recipe is checked as it is; give load_recipe what is to be changed")
        return check_readable(
            ReadableRecipe(recipe.recipe, recipe.mapping, recipe.base, moved=recipe.moved), root, workers
        )
    named, trusted = name_recipe(recipe), list_texts("trust_code", trust_code)
    code = find_named_code(list_code_files(filters), trusted, read_held_code(find_recipe(named)))
    kept = read_kept_sources(find_run(named, root))
    found = load_readable(named, format_places(sources), limit, format_settings(settings), code, kept)
    return check_readable(found, root, workers)


@guard_call
def estimate_training(
    recipe: str | Path | Mapping[str, Any], ranks: int, *, settings: Mapping[str, Any] | None = None
) -> list[TrainingEstimate]:
    """What each stage's training would hold on so many ranks, and compute in a step. Imports torch, reads no weights.

    Args:
        recipe: A recipe file, the name of a shipped recipe, or a dict.
        ranks: That share the model.
        settings: As in `load_recipe`.

    Raises:
        RecipeError: the recipe is wrong, or ranks do not divide the sequences of a step.
    """
    from vlmill.train.estimate import estimate_stage

    found, _, base = load_recipe(name_recipe(recipe), sets=format_settings(settings))
    return [estimate_stage(found, base, stage, ranks) for stage in found.stages if stage.train]


def check_readable(found: ReadableRecipe, out: Path | None, workers: int | None) -> CheckResult:
    """The same of a recipe that was read as far as it can be."""
    recipe, root = found.recipe, out or Path("build") / str(found.mapping.get("name"))
    free = _find_free(root)
    if recipe is None:
        return CheckResult(reword(found.faults), RunEstimate((), count_workers(workers), free=free))
    inputs = check_inputs(recipe, found.base, found.unreadable)
    estimates, failed = _estimate_sources(recipe, found.base, inputs)
    stages = {stage.name: _estimate_stage(recipe, stage.name, estimates) for stage in recipe.stages}
    units = {name: add_known([one.units[name] for one in estimates]) for name in list_countable(recipe)}
    asked, grouped = estimate_signals(recipe, units, root), estimate_clusters(recipe, units)
    estimate = RunEstimate(tuple(estimates), count_workers(workers), stages, free, asked, grouped)
    faults = [*_list_recipe_faults(found), *list_faults([*inputs.errors, *failed])]
    faults += [
        f"source {one.source!r}: no row that was read gives a sample: {one.rests_on}"
        for one in estimates
        if one.unreadable == one.measured > 0
    ]
    faults += [fault for one in estimates for fault in one.faults]
    differences, forecast = "", tuple[StepForecast, ...]()
    if is_bound(root) and not _list_recipe_faults(found):
        try:
            differences = list_lock_differences(root, found.mapping)
            forecast = forecast_build(root.absolute(), recipe, found.base, found.moved)
        except VlmillError as error:
            faults.append(str(error))
    if free is not None and free < estimate.needed:
        faults.append(f"{_find_existing(root)} has {free:,} bytes free, and the run needs about {estimate.needed:,}")
    warnings = (
        *warn_of_lacking_tokens(recipe, found.base),
        *_list_odd_shares(recipe),
        *warn_of_odd_settings(recipe),
        *warn_of_short_plans(recipe, {} if any(one.faults for one in estimates) else stages),
        *(
            said
            for one in estimates
            for said in one.warnings
            if not (one.source in found.unheard and UNFETCHED in said)
        ),
    )
    return CheckResult(reword(dict.fromkeys(faults)), estimate, differences, forecast, reword(warnings))


def forecast_build(root: Path, recipe: Recipe, base: Path, moved: Collection[str]) -> tuple[StepForecast, ...]:
    """What a build of a recipe in the folder of a run keeps of it and runs again; see `forecast_changes`."""
    before, now = (
        [*list_forecast_steps(root, item), *list_mixture_steps(item)] for item in (read_locked_recipe(root), recipe)
    )
    differ = find_changed_inputs(root, recipe, base)
    return forecast_steps(root, before, now, find_changed_files(root, recipe, base), moved, differ)


def refuse_faults(found: ReadableRecipe, root: Path) -> None:
    """Begin a build: ask all that can be asked cheaply before anything is written.

    Where a build of the same recipe has begun the folder, files that it has surveyed are not opened again. Folders of
    images that it has read are not looked for.

    Raises:
        RecipeError: all faults, if one of them is in the recipe.
        SourceError: all faults, if they are in input files alone.
        VlmillError: all faults of several classes.
    """
    recipe = found.recipe
    if recipe is None:
        raise RecipeError(*found.faults)
    wrong = _list_recipe_faults(found)
    earlier = EarlierWork() if wrong else find_earlier_work(root, recipe, found.mapping)
    inputs = check_inputs(recipe, found.base, found.unreadable, earlier)
    full = [] if earlier.surveyed else list_errors([partial(_check_disk, recipe, root, inputs)])
    raise_errors([*([RecipeError(*wrong)] if wrong else []), *inputs.errors, *full])


def _list_recipe_faults(found: ReadableRecipe) -> list[str]:
    """The faults of a recipe itself, without those that follow from others."""
    later = list_faults(list_recipe_errors(found.recipe)) if found.recipe else []
    return [*found.faults, *(fault for fault in later if not found.concerns(fault))]


def _estimate_sources(recipe: Recipe, base: Path, inputs: InputCheck) -> tuple[list[SourceEstimate], list[VlmillError]]:
    """The estimates of the sources that could be measured, and why others could not."""
    estimates, errors = list[SourceEstimate](), list[VlmillError]()
    with open_child() as child:
        for name, files in inputs.files.items():
            try:
                estimates.append(estimate_source(recipe, base, name, files, child))
            except VlmillError as error:
                errors.append(error)
    return estimates, errors


def _list_odd_shares(recipe: Recipe) -> Iterator[str]:
    """Mixtures whose shares do not add up to 1 or 100, by stage; those that cannot be read are faults of their own."""
    for stage in recipe.stages:
        with suppress(VlmillError):
            yield from (f"{stage.name}: {said}" for said in warn_of_sums(read_stage_mixture(recipe, stage)))


def _estimate_stage(recipe: Recipe, name: str, estimates: Sequence[SourceEstimate]) -> int | None:
    """The tokens of a stage's plan, where its mixture can be read."""
    stage = next(stage for stage in recipe.stages if stage.name == name)
    try:
        mixture = read_stage_mixture(recipe, stage)
    except RecipeError:
        return None
    known = {one.source: one.tokens.get(stage.policy) for one in estimates}
    return estimate_stage_tokens(mixture, sum_by_entry(list_members(recipe, mixture, name), known))


def _check_disk(recipe: Recipe, root: Path, inputs: InputCheck) -> None:
    if recipe.limit is not None or recipe.scale < 1:
        return  # only the rows themselves could say how much of the files is read
    size = sum(file.size for files in inputs.files.values() for file in files)
    free = _find_free(root)
    if free is not None and free < size // LEAST_SHARE:
        raise SourceError(
            f"{_find_existing(root)} has {free:,} bytes free, and the input files have {size:,}: see how much a "
            "run needs with vlmill check, and give another disk with --out, or fewer rows with --limit"
        )


def _find_free(root: Path) -> int | None:
    """The free bytes where a run is to go; None for object storage, which has no end."""
    return None if isinstance(root, RunPath) else shutil.disk_usage(_find_existing(root)).free


def _find_existing(root: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    return next(folder for folder in (root, *root.absolute().parents) if folder.exists())
