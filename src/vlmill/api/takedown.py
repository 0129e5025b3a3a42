"""Takedowns, `vlmill takedown` in Python: what a list names goes from a run and from every later build there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from vlmill.mixtures.build import LOCK as MIXTURE
from vlmill.mixtures.build import build_stages
from vlmill.mixtures.disclosure import remove_disclosure
from vlmill.mixtures.report.card import remove_card, write_card
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.event_log import EventLog
from vlmill.pipeline.core.files import remove_folder, write_atomically
from vlmill.pipeline.core.progress import ProgressBars
from vlmill.pipeline.core.shown import Shown, count_things
from vlmill.pipeline.core.terminal import make_console
from vlmill.pipeline.engine.build import Build
from vlmill.pipeline.engine.executor import Executor, open_executor
from vlmill.pipeline.engine.fetching import HOST_LIMITS
from vlmill.pipeline.engine.outcomes import count_outcomes
from vlmill.pipeline.engine.workdir import open_run_folder, remove_unused
from vlmill.pipeline.filters.custom import explain_refusal, find_named_code, list_untrusted
from vlmill.pipeline.recipe.lock import clear_unbuilt, mark_takedown, read_locked_recipe
from vlmill.pipeline.recipe.mapping import LOCK as RECIPE
from vlmill.pipeline.recipe.mapping import read_held_code
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.takedown_forecast import Forecast, forecast_takedown
from vlmill.pipeline.reports.taken_down import list_taken_down
from vlmill.pipeline.reports.trace import find_id
from vlmill.pipeline.reports.upstream_ids import list_by_row_id
from vlmill.pipeline.takedown.marks import find_marked
from vlmill.pipeline.takedown.rules import LIST, TakedownList
from vlmill.train.answers import forget_answers, list_answered


@dataclass(frozen=True, repr=False)
class Takedown(Shown):
    """What a takedown removed, or would remove."""

    forecast: Forecast  # what goes and what stays
    new: tuple[str, ...]  # the rules that were asked for and were not on the list, such as `domain example.org`
    done: bool  # False of a dry run: nothing was changed
    stages: Mapping[str, bool]  # those whose plan changed -> whether they were trained on the earlier plan

    def say_short(self) -> str:
        """How much goes."""
        found = self.forecast
        goes = f"{count_things(len(found.samples), 'sample')} and {count_things(len(found.images), 'image')}"
        others = count_things(len(found.losing), "other sample")
        return f"{goes} {'went' if self.done else 'would go'}, {others} with fewer images"


def resolve_ids(folder: Path, names: Sequence[str]) -> list[str]:
    """The ids of samples that are named as for `trace`, such as by the ids that rows have in their input files.

    Raises:
        StoreError: a name is of no sample, or of several.
    """
    return [str(find_id(folder, name)) for name in names]


def list_rows(folder: Path, names: Sequence[str]) -> list[str]:
    """The ids of all samples and lost rows whose rows have one of these ids in their input files.

    Raises:
        StoreError: no row has one of them.
    """
    found = {name: list(map(str, list_by_row_id(folder, name))) for name in names}
    for name, ids in found.items():
        if not ids:
            gone = find_marked(TakedownList.read(folder).rows, name)
            raise StoreError(
                f"{name} was taken down: it stands as {gone} on {folder / LIST}"
                if gone
                else f"no row of the run has the id {name!r} in its input file, and what was taken down has none any "
                "more; the option id of a source says which column has the ids of its rows"
            )
    return [one for ids in found.values() for one in ids]


def take_down(
    folder: Path,
    asked: TakedownList,
    *,
    dry_run: bool = False,
    workers: int | None = None,
    ray: str | None = None,
    filters: Sequence[str] = (),
    trust_code: Sequence[str] = (),
    console: Console | None = None,
    announce: Callable[[Takedown], None] | None = None,
    command: Sequence[str] = (),
) -> Takedown:
    """Remove what falls under a list; see `Run.takedown`.

    Args:
        folder: The run's folder.
        asked: What is to go, beside what is on the run's list already.
        dry_run: As in `Run.takedown`, as all below.
        workers: Worker processes.
        ray: The address of a Ray cluster.
        filters: Files with custom filters.
        trust_code: The sha256 of code that the run's lock holds.
        console: Where progress is shown; None shows nothing.
        announce: Is told what will go, before anything is changed.
        command: That was typed, for what is said where it does not name code which has to run.
    """
    code = find_named_code(filters, trust_code, read_held_code(folder / RECIPE))
    recipe, before = read_locked_recipe(folder, code), TakedownList.read(folder)
    if not (asked or before):
        raise StoreError("say what to take down: --url, --sha256, --id, --row-id or --domain")
    unnamed = list_untrusted(recipe.custom_filters)
    if unnamed and not dry_run:  # partitions that are made again are filtered again
        raise RecipeError(explain_refusal(str(folder / RECIPE), unnamed, command))
    root, new = folder.absolute(), tuple((asked - before).labels())
    shown = console or make_console(quiet=True)

    def tell(line: str) -> None:
        shown.print(line, markup=False, soft_wrap=True)

    needs = {} if dry_run else recipe.list_needs()  # models are asked where partitions are made again
    with open_executor(workers, ray, root=root, tell=tell, console=shown, **needs) as pool:
        with ProgressBars(shown) as watcher:
            forecast = forecast_takedown(root, recipe, asked, before, pool, watcher)
        if announce:
            announce(Takedown(forecast, new, done=False, stages={}))
        if dry_run:
            return Takedown(forecast, new, done=False, stages={})
        stages = _carry_out(root, recipe, forecast.rules, pool, shown)
    return Takedown(forecast, new, done=True, stages=stages)


def _carry_out(root: Path, recipe: Recipe, rules: TakedownList, pool: Executor, console: Console) -> dict[str, bool]:
    """Write the list, which is the commit, and make again what it touches.

    Returns the stages whose plan changed, and whether they were trained.
    """
    log = EventLog(root)
    with open_run_folder(root) as check_lock:
        log.path.unlink(missing_ok=True)  # messages of earlier commands may quote what goes
        remove_folder(root / HOST_LIMITS)
        with log.span("takedown"), ProgressBars(console, log) as watcher:
            before = _read_locks(root, recipe)
            listed = TakedownList.read(root) | rules  # another takedown may have come first
            mark_takedown(root)
            write_atomically(root / LIST, listed.to_yaml())
            remove_disclosure(root)
            remove_card(root)
            run = Build(root, recipe, None, pool, watcher, {})
            run.adopt()
            for phase in (run.write, run.curate, run.signals, run.dedupe, run.shard):
                check_lock()
                phase()
            check_lock()
            count_outcomes(run, None)
            try:
                build_stages(run)
            finally:  # even if a mixture cannot be made of what is left, the shards that held it are removed
                remove_unused(root, run.folders)
            write_card(root)
            _forget_answers(root, recipe)
            clear_unbuilt(root)
            after = _read_locks(root, recipe)
    changed = [name for name in after if after[name] != before.get(name)]
    return {name: (root / "train" / name).exists() for name in changed}


def _forget_answers(root: Path, recipe: Recipe) -> None:
    """Leave what was taken down out of what trained stages made of held-out samples."""
    if stages := list_answered(root):
        gone = frozenset(list_taken_down(root, recipe))
        for stage in stages:
            forget_answers(stage, gone)


def _read_locks(root: Path, recipe: Recipe) -> dict[str, bytes]:
    paths = {stage.name: root / "mixtures" / stage.name / MIXTURE for stage in recipe.stages}
    return {name: path.read_bytes() for name, path in paths.items() if path.exists()}
