"""A run's folder, opened for reading and training: what `open_run` returns, with its stages, reports and work."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console

from vlmill.api import tables
from vlmill.api.arguments import (
    check_workers,
    format_settings,
    list_code_files,
    list_texts,
    name_recipe,
)
from vlmill.api.boundary import guard_call, guard_methods
from vlmill.api.exports import RunExports
from vlmill.api.stages import StageMixture
from vlmill.api.wording import reword
from vlmill.mixtures.build import is_mixed, verify_locks
from vlmill.mixtures.report.card import verify_card
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.places import take_local_path, take_run_folder
from vlmill.pipeline.filters.custom import find_named_code
from vlmill.pipeline.recipe.lock import explain_unbuilt
from vlmill.pipeline.recipe.mapping import LOCK, read_held_code
from vlmill.pipeline.recipe.other_names import offer_names
from vlmill.pipeline.reports.contamination import Contamination, read_contamination
from vlmill.pipeline.reports.funnel import sample_losses, select_funnel
from vlmill.pipeline.reports.losses import Loss, list_losses, list_refused_losses
from vlmill.pipeline.reports.overlap import read_overlap
from vlmill.pipeline.reports.refused import Refused
from vlmill.pipeline.reports.status import Status, read_status
from vlmill.pipeline.reports.trace import Traced, find_id, trace_refused, trace_sample
from vlmill.pipeline.reports.verify import verify_in_workers
from vlmill.pipeline.reports.what_if import WhatIfAnswer, answer_what_if
from vlmill.pipeline.takedown.rules import parse_rules
from vlmill.train.digests import verify_training
from vlmill.train.settings import read_training_settings
from vlmill.train.trace import StageUse, find_steps, find_use, list_trained_stages

if TYPE_CHECKING:
    from vlmill.api.takedown import Takedown
    from vlmill.pipeline.reports.unused import UnusedFiles
    from vlmill.train.evaluate import Score
    from vlmill.train.run import TrainedStage
    from vlmill.train.settings import Machine


@guard_methods
@dataclass(frozen=True)
class Run(RunExports):
    """A run: the folder that a build fills.

    Attributes:
        folder: The run's folder, as it was given.
    """

    # -- stages ----------------------------------------------------------------------------------------------------

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the recipe's stages, in the order of their training."""
        return tuple(stage.name for stage in self.recipe.stages)

    def stage(self, name: str) -> StageMixture:
        """The mixture of one stage.

        Raises:
            StoreError: the recipe has no such stage, or it is not mixed yet.
        """
        if name not in self.stages:
            raise StoreError(
                f"{self.folder}: there is no stage {name!r}; {offer_names(self.recipe, name, self.stages)}"
            )
        return StageMixture(self.folder, name)

    @property
    def mixtures(self) -> dict[str, StageMixture]:
        """The mixtures of all stages that are mixed, by name."""
        return {name: self.stage(name) for name in self.stages if is_mixed(self.folder, name)}

    # -- reports ---------------------------------------------------------------------------------------------------

    def status(self) -> Status:
        """How far the run is: the tasks of each step that are done, and what filters could not decide or nobody read.

        [(step.step, step.of) for step in run.status().steps if not step.complete]
        """
        return read_status(self.folder)

    def overlap(self) -> pl.DataFrame:
        """How many different images and texts of one source are in another too, before dedupe dropped any.

        Columns: `content source size other exact near`: of `size` different images or texts (`content`) of `source`,
        `exact` are in `other` too, and to `near` it has the same or a similar one. A source beside itself counts
        repetitions. A row for each pair of sources.

        Raises:
            StoreError: dedupe is not done, or the recipe has none.
        """
        return tables.make_overlap(read_overlap(self.folder))

    def contamination(self, examples: int = 0) -> Contamination:
        """How many items of benchmarks the training data holds, by benchmark, source and how they were found.

            run.contamination().benchmarks["mmstar.val"].sources["web"].items.any

        Args:
            examples: Pairs of a sample and an item, of each benchmark and source at most; `findings` has all.

        Raises:
            StoreError: the recipe has no decontaminate block, or the build has not come so far.
        """
        return read_contamination(self.folder, examples)

    def losses(self, source: str | None = None) -> Iterator[Loss]:
        """Everything that was lost for a reason of its own: rows and pages without a sample, samples and nodes.

        Verdicts are applied as for the shards of the first policy that a source is rendered under, so `reason` is what
        the funnel counts.

            [loss for loss in run.losses("web") if loss.filter == "language" and loss.score > 0.9]

        Raises:
            StoreError: the run has no such source, or a filter or dedupe has not come to its end.
        """
        for name in self._chosen(source):
            yield from list_refused_losses(self.folder, self.recipe, name)
            yield from list_losses(self.folder, self.recipe, name)

    def sample_losses(self, reason: str, source: str | None = None, examples: int = 20) -> list[Loss]:
        """Examples of losses with one reason, chosen by a hash of their ids: the same ones every time.

        Args:
            reason: As the funnel names it, such as `near_text` or `filter:my_filter`.
            source: One source only.
            examples: So many at most.

        Raises:
            StoreError: nothing was lost for this reason; the message names those that occur.
        """
        return sample_losses(self.folder, select_funnel(self.folder, source, reason), reason, examples)

    def trace(self, sample: str) -> Traced:
        """Everything about one sample: its nodes, verdicts, outcome and shards.

        Args:
            sample: Its id, such as `web/part-0.parquet#12`, the id of its row in the input file, or `SHARD.tar:KEY`.

        Raises:
            StoreError: the run has no such sample, or no sample could be made of that row.
        """
        name = str(find_id(self.folder, sample))
        if self.trace_refused(name):
            raise StoreError(f"{sample}: no sample was made of this row or page; Run.trace_refused says why")
        return trace_sample(self.folder, name)

    def trace_refused(self, row: str) -> list[Refused]:
        """The row or page of this id of which no sample was made, or such pages of a row; none for a sample.

        Raises:
            StoreError: it is no id, or its source is not in the run or not read to its end.
        """
        return trace_refused(self.folder, row)

    def find_steps(self, sample: str) -> dict[str, list[int]]:
        """Stage -> the training steps that see a sample, in order; of stages that are mixed and have a `train` block.

        Args:
            sample: As in `trace`.

        Raises:
            StoreError: it is neither an id nor in that shard.
        """
        name = str(find_id(self.folder, sample))
        return {stage: find_steps(self.folder, stage, name) for stage in list_trained_stages(self.folder)}

    def find_uses(self, sample: str) -> dict[str, StageUse]:
        """Stage -> the packed sequences and training steps that hold a kept sample, or why none does; of mixed stages.

        Args:
            sample: As in `trace`.

        Raises:
            StoreError: it is neither an id nor in that shard.
        """
        name = str(find_id(self.folder, sample))
        return {stage: find_use(self.folder, stage, name) for stage in self.mixtures}

    def render_report_page(self, source: str | None = None) -> str:
        """One HTML page of the report: funnel, overlap, contamination, and pictures and texts of losses.

            Path("report.html").write_text(run.render_report_page(), encoding="utf-8")

        Raises:
            StoreError: the run has no such source, or a filter or dedupe has not come to its end.
        """
        from vlmill.pipeline.page.report import render_report_page

        return render_report_page(self.folder, source)

    def render_stats_page(self, stage: str | None = None) -> str:
        """One HTML page of the mixtures: plots, samples as the trainer sees them, search. It needs no network.

        Args:
            stage: One stage only; None is all that are mixed.

        Raises:
            RecipeError: the recipe has no such stage.
            StoreError: the one stage is not mixed yet.
        """
        from vlmill.mixtures.page import render_mixture_page
        from vlmill.train.loss_shares import list_loss_shares

        losses = {
            item.name: read_training_settings(item, self.recipe.scale).loss for item in self.recipe.stages if item.train
        }
        mixed = [*self.mixtures] if stage is None else [stage]
        return render_mixture_page(self.folder, stage, losses, list_loss_shares(self.folder, mixed))

    # -- questions and work ----------------------------------------------------------------------------------------

    def verify(
        self, workers: int | None = None, ray: str | None = None, *, console: Console | None = None
    ) -> list[str]:
        """A line for each sha256, count, lock or data card that is not as it was written; none in a sound run.

        Args:
            workers: Processes; 0 is this one, None one per core where there is much to look at.
            ray: The address of a Ray cluster.
            console: Where progress is shown; None shows nothing.
        """
        check_workers(workers)
        made = verify_in_workers(self.folder.absolute(), workers, ray, console) or list(verify_locks(self.folder))
        return [*reword([*made, *([] if made else verify_card(self.folder)), *verify_training(self.folder)])]

    def list_unused(self) -> list[UnusedFiles]:
        """What lies in the folder and is of no use to its recipe: `folder why paths bytes`, by folder.

        Files of earlier recipes, and such that no manifest names; see `clean`.
        """
        from vlmill.mixtures.forecast import list_mixture_steps
        from vlmill.pipeline.checks.forecast import list_forecast_steps
        from vlmill.pipeline.reports.unused import list_unused

        steps = [step.folder for step in list_forecast_steps(self.folder.absolute(), self.recipe)]
        mixed = [step.folder for step in list_mixture_steps(self.recipe)]
        return list_unused(self.folder, self.recipe, {*steps, *mixed})

    def clean(self) -> list[UnusedFiles]:
        """Remove what `list_unused` lists, and return it.

        Raises:
            StoreError: a build is at work in the folder.
        """
        from vlmill.pipeline.engine.store import Store
        from vlmill.pipeline.reports.unused import remove_files

        with Store(self.folder).locked():
            unused = self.list_unused()
            remove_files(self.folder, unused)
        return unused

    def disclose(self, out: str | Path | None = None) -> tuple[Path, ...]:
        """Write drafts of what laws and catalogues ask about training data: EU, California, Croissant, and figures.

        A later build or takedown removes them from the run's folder.

        Args:
            out: The folder; None is `disclosure` in the run's folder. `croissant.json` goes into the run's folder.

        Returns:
            The files.

        Raises:
            StoreError: the run is not complete.
        """
        from vlmill.mixtures.disclosure import FOLDER, write_disclosure

        place = take_local_path(out) if out else self.folder / FOLDER
        return write_disclosure(self.folder, place, str(self.folder))

    def disclosure_figure(self, name: str) -> Any:
        """One figure of `disclose`, computed anew: a number, or numbers by name.

            run.disclosure_figure("sources.web.pictures")

        Raises:
            StoreError: the run is not complete, or there is no such figure; the message names those that are there.
        """
        from vlmill.mixtures.disclosure.figures import compute_figures, get_figure

        return get_figure(compute_figures(self.folder, self.recipe), name)

    def what_if(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        recipe: str | Path | Mapping[str, Any] | None = None,
        filters: str | Path | Sequence[str | Path] = (),
        trust_code: str | Sequence[str] = (),
    ) -> WhatIfAnswer:
        """What other settings of filters and dedupe would keep, from the tables that are there; nothing is written.

        Args:
            settings: Dotted key -> value, such as `{"language.sample_share": 0.5}`; a string is read as YAML.
            recipe: A recipe, as in `load_recipe`, whose filters and dedupe count in place of the run's.
            filters: Files with custom filters, whose code may run.
            trust_code: The sha256 of code that the run's lock holds, and that may run.

        Raises:
            RecipeError: a change that only a build can answer, or code that would have to run and was not named.
            StoreError: the run has not come to the filters.
        """
        code = find_named_code(
            list_code_files(filters), list_texts("trust_code", trust_code), read_held_code(self.folder / LOCK)
        )
        asked = str(self.folder) if recipe is None else name_recipe(recipe)
        answer = answer_what_if(asked, self.folder, format_settings(settings), code)[1]
        return replace(answer, notes=[*reword(answer.notes)])

    def takedown(
        self,
        *,
        urls: str | Sequence[str] = (),
        sha256: str | Sequence[str] = (),
        ids: str | Sequence[str] = (),
        row_ids: str | Sequence[str] = (),
        domains: str | Sequence[str] = (),
        dry_run: bool = False,
        workers: int | None = None,
        ray: str | None = None,
        filters: str | Path | Sequence[str | Path] = (),
        trust_code: str | Sequence[str] = (),
        console: Console | None = None,
    ) -> Takedown:
        """Remove things for good: from tables, shards, mixtures, plans, and every later build in the folder.

        One alone needs no list. Without any, an interrupted takedown is finished. A model that was trained before is
        not changed.

            run.takedown(domains=["example.org"], dry_run=True).forecast.samples

        Args:
            urls: Addresses of images, or of documents, which go with the images that only they show.
            sha256: Of the bytes of images as they came.
            ids: Of samples, as `trace` takes them, which go with exact copies of their images and of their document's
                text.
            row_ids: Ids that rows have in their input files: all samples and lost rows of such rows go, in every
                source.
            domains: Hosts, with their sub-domains.
            dry_run: Find what would go, and change nothing.
            workers: As in `build`.
            ray: As in `build`.
            filters: Files with the run's custom filters, whose code runs again.
            trust_code: The sha256 of such code that the run's lock holds.
            console: Where progress is shown; None shows nothing.

        Raises:
            StoreError: a value is not of its form, an id is not in the run, or the run is not complete.
            RecipeError: code of custom filters would have to run and was not named.
        """
        from vlmill.api.takedown import list_rows, resolve_ids, take_down

        check_workers(workers)
        return take_down(
            self.folder,
            parse_rules(
                list_texts("urls", urls),
                list_texts("sha256", sha256),
                [
                    *resolve_ids(self.folder, list_texts("ids", ids)),
                    *list_rows(self.folder, list_texts("row_ids", row_ids)),
                ],
                list_texts("domains", domains),
            ),
            dry_run=dry_run,
            workers=workers,
            ray=ray,
            filters=list_code_files(filters),
            trust_code=list_texts("trust_code", trust_code),
            console=console,
        )

    def train(
        self,
        stage: str | None = None,
        machine: Machine | None = None,
        *,
        ranks: int | None = None,
        ray: str | None = None,
        console: Console | None = None,
    ) -> list[TrainedStage]:
        """Train one stage, or all in order, from the newest checkpoint where training was interrupted.

        Args:
            stage: One stage only, which starts from the stage before it.
            machine: Device, threads and readers; None takes a GPU if there is one.
            ranks: So many processes share the model, started by Ray; None trains in this process.
            ray: The cluster for `ranks`; None is this machine.
            console: Where progress and scores are shown; None shows nothing.

        Returns:
            What each stage left behind: checkpoint, export for transformers, log, and scores on held-out samples.

        Raises:
            StoreError: the recipe has no such stage, or a mixture or the weights of the stage before are missing.
        """
        from vlmill.api.training import train_run

        return train_run(self.folder, stage, machine, ranks, ray, console)

    def evaluate(
        self,
        stage: str | None = None,
        *,
        samples: int | None = None,
        export: str | Path | None = None,
        machine: Machine | None = None,
        answers: str | Path | None = None,
    ) -> dict[str, Score]:
        """Score a trained stage on its held-out samples.

        Results are kept beside the stage until all are there, so an interrupted call goes on.

        Args:
            stage: None is the last one.
            samples: Of each source at most; None is what the recipe says.
            export: A folder with an exported model, scored in place of the trained stage.
            machine: What it runs on.
            answers: A file to write, with a JSON line for each sample: its questions, references and answers.

        Returns:
            Source -> its scores; none where nothing is held out.

        Raises:
            StoreError: the stage is not trained yet, or the export holds another kind of model.
        """
        from vlmill.train.run import evaluate_stage

        exported, kept = (take_local_path(path) if path else None for path in (export, answers))
        return evaluate_stage(self.folder, stage, samples, exported, machine, answers=kept)[1]


@guard_call
def open_run(folder: str | Path) -> Run:
    """Open the folder of a run, as given to `build`.

    Warns (`warnings.warn`) where an accepted change of its recipe, or a takedown, has not come to its end.

    Raises:
        StoreError: it holds no run.
    """
    run = Run(take_run_folder(folder))
    _ = run.recipe  # a folder without one is no run
    if said := explain_unbuilt(run.folder):
        warnings.warn(reword([said])[0], stacklevel=3)
    return run
