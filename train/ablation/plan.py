"""What an ablation is about to train, and which differences it could show: said when its data are there.

A function of the spec and of the runs' locked mixtures; no training is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from rich.table import Table

from vlmill.mixtures.reader import PlannedMixture
from vlmill.train.ablation.power import MEASURED, POWER, Variation, find_detectable, find_samples
from vlmill.train.ablation.spec import Spec, Trial
from vlmill.train.scoring import list_batches
from vlmill.train.settings import read_training_settings
from vlmill.train.steps import count_steps

AIMED = 0.05
"""Five points: the difference that the shipped ablations are to show."""

SEEDS = (3, 5, 8, 12)
"""What else a plan is asked about, beside the spec's own."""


@dataclass(frozen=True)
class AblationPlan:
    """The trainings of an ablation, and what they could show."""

    folder: Path  # of all runs
    metric: str  # that variants are compared by
    variants: tuple[str, ...]  # the baseline's among them
    seeds: tuple[int, ...]  # each variant is trained with each
    steps: Mapping[str, int]  # by variant, of all its stages
    samples: int  # held-out ones that all runs answer
    variation: Variation | None  # that is assumed; None: nothing is known of this metric before it is run

    def find_detectable(self, seeds: int, samples: int) -> float | None:
        """The smallest difference that is seen with 80 % power at p < 0.05; None where it cannot be said."""
        if self.variation is None or samples < 2:
            return None
        return find_detectable(self.variation, seeds, samples)


def plan_runs(spec: Spec, trials: Sequence[Trial], runs: Mapping[tuple[str, int], Path], shown: Path) -> AblationPlan:
    """The plan of runs whose data are there.

    Args:
        spec: the ablation.
        trials: all of its trainings.
        runs: the run of each, by variant and seed.
        shown: the folder, as messages name it.
    """
    first = [trial for trial in trials if trial.seed == spec.seeds[0]]
    held_out = [_list_scored(trial, runs[trial.variant, trial.seed]) for trial in first]
    variation = spec.variation or (None if spec.metric == "loss" else MEASURED)
    steps = {trial.variant: _count_all_steps(trial, runs[trial.variant, trial.seed]) for trial in first}
    samples = len(reduce(frozenset.intersection, held_out))
    return AblationPlan(shown, spec.metric, tuple(spec.variants), spec.seeds, steps, samples, variation)


def _list_scored(trial: Trial, run: Path) -> frozenset[tuple[str, str]]:
    """The held-out samples that a training's last stage is scored on, by source and id."""
    stage = trial.recipe.stages[-1]
    mixture = PlannedMixture(run, stage.name)
    batches = list_batches(mixture, read_training_settings(stage, trial.recipe.scale).evaluate, "")
    return frozenset(
        (batch.source, str(mixture.about(segment)["id"])) for batch in batches for segment in batch.segments
    )


def _count_all_steps(trial: Trial, run: Path) -> int:
    return sum(
        count_steps(read_training_settings(stage, trial.recipe.scale), PlannedMixture(run, stage.name).sequences)
        for stage in trial.recipe.stages
    )


def describe_plan(plan: AblationPlan) -> list[str]:
    """Sentences for a person."""
    longest, shortest = max(plan.steps.values()), min(plan.steps.values())
    steps = f"{longest} steps" if longest == shortest else f"{shortest} to {longest} steps"
    trainings = len(plan.variants) * len(plan.seeds)
    first = (
        f"{len(plan.variants)} variants x {len(plan.seeds)} seeds: {trainings} trainings of {steps}, compared by "
        f"{plan.metric} on {plan.samples} held-out samples."
    )
    smallest = plan.find_detectable(len(plan.seeds), plan.samples)
    if smallest is None or plan.variation is None:
        return [first, f"Which differences of {plan.metric} they could show is not known beforehand; give `variation`."]
    assumed = plan.variation
    least, seeds, samples, answers = (
        _format_difference(value, plan.metric) for value in (smallest, assumed.seeds, assumed.samples, assumed.answers)
    )
    seen = (
        f"They show a difference of {least} in {POWER:.0%} of such ablations (p < 0.05, of one comparison), if "
        f"differences vary by {seeds} between seeds, {samples} between samples and {answers} between answers beyond "
        "both."
    )
    if len(plan.seeds) == 1:
        return [first, seen, "One seed: that is a difference between these very models, not between recipes."]
    if plan.metric == "loss":
        return [first, seen]
    needed = find_samples(AIMED, assumed, len(plan.seeds))
    wanted = "more seeds" if needed is None else f"{needed} held-out samples"
    return [first, seen, f"Five points with {len(plan.seeds)} seeds take {wanted}."]


def make_power_table(plan: AblationPlan) -> Table | None:
    """The smallest difference that is seen, by seeds and held-out samples; None where none can be said."""
    if plan.variation is None or plan.samples < 2:
        return None
    counts = sorted({max(2, plan.samples // 4), max(2, plan.samples // 2), plan.samples, 2 * plan.samples})
    shown = Table(title=f"smallest difference of {plan.metric} that is seen in {POWER:.0%}")
    shown.add_column("seeds", justify="right")
    for samples in counts:
        shown.add_column(f"{samples} samples", justify="right")
    for seeds in sorted({len(plan.seeds), *SEEDS} - {1}):
        cells = (find_detectable(plan.variation, seeds, samples) for samples in counts)
        shown.add_row(str(seeds), *(_format_difference(cell, plan.metric) for cell in cells))
    return shown


def _format_difference(value: float, metric: str) -> str:
    return f"{value:.3f}" if metric == "loss" else f"{100 * value:.1f} points"
