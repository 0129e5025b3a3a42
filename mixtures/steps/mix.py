"""The mix step, one task per stage: how many samples of each entry, and where every block of the plan starts.

It solves the mixture over what the select steps left, then runs the order once from end to end. What it keeps of that
are the counts at the start of each block, so that blocks are planned without each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vlmill.mixtures.algorithms.budget import COARSE, ImageBudget
from vlmill.mixtures.algorithms.order import merge_sources
from vlmill.mixtures.algorithms.pack import pack_segments
from vlmill.mixtures.algorithms.schedule import Schedule, find_schedule
from vlmill.mixtures.algorithms.solve import Solution, solve_mixture
from vlmill.mixtures.config import MAX_EPOCHS, MixtureSettings, Totals
from vlmill.mixtures.report.warnings import warn_of_settings
from vlmill.mixtures.steps.selection import FILES, Selection
from vlmill.mixtures.steps.window import find_stretches, gather_segments
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.step import Count, Counts, Inputs

WINDOWS = 32
"""Packing windows of a plan whose shares move, at least: within a window sequences are dealt out evenly, so shares
move from window to window."""

STRETCHES = 20
"""Of a plan whose shares move, for which the statistics say what each entry has."""

ROWS = 1 << 20
"""Of several entries of one source that are compared at once."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Solves a stage's mixture.

    Its inputs are the files of the select steps, behind each entry's label: `quiz/sizes.npy`.
    """

    stage: str
    mixture: MixtureSettings
    seed: int
    weights: Mapping[str, float] = field(
        default_factory=dict
    )  # source -> what one of its samples counts as; 1 if absent
    visual: int | None = None  # visual tokens of a sequence at most

    name: ClassVar[str] = "mix"
    version: ClassVar[int] = 9
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """What the select steps left, but the held-out rows."""
        return tuple(f"{label}/{name}" for label in self.mixture.labels() for name in FILES)

    def made_by(self) -> Mapping[str, str]:
        """The array library."""
        return {"numpy": version("numpy")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `mix.json` and `starts.npy` (blocks + 1, entries): items of each entry before a block.

        Counts the planned samples.
        """
        mixture, labels = self.mixture, self.mixture.labels()
        entries = [Selection.open(inputs, label, mixture.unit, self.seed, mixture.shard_window) for label in labels]
        selected = [json.loads(inputs[f"{label}/selection.json"].read_text(encoding="utf-8")) for label in labels]
        available = [entry["available"] for entry in selected]
        solution = self._solve(available)
        counts = _count_samples(mixture, entries, solution)
        if mixture.sequences is not None:
            solution = self._solve(available, _estimate_fill(mixture, entries, counts, self.visual))
            counts = _count_samples(mixture, entries, solution)
        _refuse_nothing(mixture, solution, counts)
        schedule = find_schedule(mixture, available)
        if schedule:
            mixture = replace(mixture, pack_window=max(1, min(mixture.pack_window, sum(counts) // WINDOWS)))
        starts = _count_starts(entries, counts, mixture.pack_window * mixture.windows_per_block, schedule)
        np.save(folder / "starts.npy", starts)
        planned = [entry.prefix(count) for entry, count in zip(entries, counts, strict=True)]
        data = {
            "version": self.version,
            "stage": self.stage,
            "seed": self.seed,
            "mixture": asdict(mixture),
            **({} if self.visual is None else {"visual_per_sequence": self.visual}),
            "blocks": len(starts) - 1,
            "samples": sum(counts),
            "entries": [
                {
                    "label": label,
                    **chosen,
                    "weight": weight,
                    "repetition": count / max(entry.walk.size, 1),
                    "planned": plan,
                }
                for label, chosen, weight, entry, count, plan in zip(
                    labels, selected, self._list_weights(), entries, counts, planned, strict=True
                )
            ],
            "binding": [asdict(binding) for binding in solution.binding],
            "exact_up_to": None if solution.exact_up_to is None else round(solution.exact_up_to),
            **(
                {} if schedule is None else {"schedule": asdict(schedule) | _follow_schedule(schedule, entries, counts)}
            ),
            "warnings": warn_of_settings(
                mixture,
                selected,
                solution,
                planned,
                shared=_count_shared(mixture, entries),
                scaled=bool(self.weights),
            ),
        }
        (folder / "mix.json").write_text(json.dumps(data, sort_keys=True, indent=1), encoding="utf-8")
        return {"samples": Count(sum(counts), sum(counts))}

    def _list_weights(self) -> list[float]:
        """What a sample of each entry counts as."""
        return [self.weights.get(entry.source, 1.0) for entry in self.mixture.resolved()]

    def _solve(self, available: Sequence[Totals], fill: float = 1.0) -> Solution:
        """The solution over weighted amounts, as epochs of what is there.

        A scaled run keeps a few rows more or less of a source than its scale says. Weighted so that they count as
        exactly the scale, shares, epochs and caps come to what the whole run has.
        """
        weights = self._list_weights()
        weighted = [
            {unit: amount * weight for unit, amount in totals.items()}
            for totals, weight in zip(available, weights, strict=True)
        ]
        solution = solve_mixture(self.mixture, weighted, fill)
        epochs = zip(solution.repetition, weights, strict=True)
        return replace(solution, repetition=tuple(min(passes * weight, MAX_EPOCHS) for passes, weight in epochs))


def _count_shared(mixture: MixtureSettings, entries: Sequence[Selection]) -> dict[str, int]:
    """How many samples more than one entry selects, of each source that has such."""
    sizes: dict[str, list[np.ndarray]] = {}
    for entry, selection in zip(mixture.resolved(), entries, strict=True):
        sizes.setdefault(entry.source, []).append(selection.sizes)
    counted = {source: _count_several(several) for source, several in sizes.items() if len(several) > 1}
    return {source: number for source, number in counted.items() if number}


def _count_several(several: Sequence[np.ndarray]) -> int:
    """How many samples are selected in more than one of the entries of a source."""
    found = 0
    for start in range(0, several[0].size, ROWS):
        selected = np.array([sizes["tokens"][start : start + ROWS] > 0 for sizes in several])
        found += int(np.count_nonzero(selected.sum(axis=0) > 1))
    return found


def _count_samples(mixture: MixtureSettings, entries: Sequence[Selection], solution: Solution) -> list[int]:
    """Items of each entry: the epochs of the solution, to the nearest sample."""
    return [
        entry.count_for(epochs * int(entry.shards[mixture.unit].sum()))
        if mixture.by_share and mixture.unit != "samples" and epochs
        else round(epochs * entry.walk.size)
        for entry, epochs in zip(entries, solution.repetition, strict=True)
    ]


def _refuse_nothing(mixture: MixtureSettings, solution: Solution, counts: Sequence[int]) -> None:
    """A budget under one sample of every entry is refused; a strict mixture also where it is under one of any.

    Raises:
        RecipeError: the budget is too small.
    """
    labels = [label for label, epochs in zip(mixture.labels(), solution.repetition, strict=True) if epochs]
    empty = [
        label
        for label, epochs, count in zip(mixture.labels(), solution.repetition, counts, strict=True)
        if epochs and not count
    ]
    if empty and (mixture.strict or len(empty) == len(labels)):
        raise RecipeError(
            f"mixture: {_describe_budget(mixture)} gives {', '.join(empty)} less than one sample; a larger "
            "budget, or a larger share or repeat, would not"
            + (", and without `strict` the others are planned" if len(empty) < len(labels) else "")
        )


def _describe_budget(mixture: MixtureSettings) -> str:
    """The budget as it was declared: `tokens: 1000`."""
    given = ((name, getattr(mixture, name)) for name in ("tokens", "sequences", "epochs"))
    return next((f"the budget `{name}: {amount:g}`" for name, amount in given if amount is not None), "one epoch")


def _follow_schedule(schedule: Schedule, entries: Sequence[Selection], counts: Sequence[int]) -> dict[str, Any]:
    """`ends` of stretches of the plan, in fractions of the budget, and what each entry is `due` and `has` in each.

    In the mixture's unit. By entry, as its shares at the points of the schedule.
    """
    size = max(1, -(-sum(counts) // STRETCHES))
    starts = _count_starts(entries, counts, size, schedule)
    had = np.array([[entry.spent(int(count)) for entry, count in zip(entries, line, strict=True)] for line in starts])
    curves, whole = schedule.draw(had[-1].tolist())
    times = [whole.find_time(amount) for amount in had.sum(axis=1).tolist()]
    due = np.array([[curve.amount(time) for curve in curves] for time in times])
    return {
        "ends": [round(time, 6) for time in times[1:]],
        "has": np.diff(had, axis=0).T.tolist(),
        "due": np.diff(due, axis=0).T.round(3).tolist(),
    }


def _count_starts(
    entries: Sequence[Selection], counts: Sequence[int], block: int, schedule: Schedule | None = None
) -> np.ndarray:
    """Items of each entry before each block of `block` samples, and in the end."""
    order = order_samples(entries, [0] * len(entries), counts, schedule)
    starts = [np.zeros(len(entries), np.int64)]
    while (here := np.fromiter(islice(order, block), np.int64)).size:
        starts.append(starts[-1] + np.bincount(here, minlength=len(entries)))
    return np.stack(starts)


def order_samples(
    entries: Sequence[Selection], start: Sequence[int], counts: Sequence[int], schedule: Schedule | None = None
) -> Iterator[int]:
    """The entry of each sample of the mixture, from the given items of each entry on.

    Args:
        entries: in the order of the mixture.
        start: items of each that came before.
        counts: items of each in the whole plan.
        schedule: of shares that move.
    """
    totals = [entry.spent(count) for entry, count in zip(entries, counts, strict=True)]
    spent = [entry.spent(count) for entry, count in zip(entries, start, strict=True)]
    lengths = [_iterate_weights(entry, first, last) for entry, first, last in zip(entries, start, counts, strict=True)]
    if any(count and not total for count, total in zip(counts, totals, strict=True)):
        totals, spent = list(counts), list(start)  # a repeat of what holds nothing of the unit: by samples
        lengths = [repeat(1, last - first) for first, last in zip(start, counts, strict=True)]
    return merge_sources(totals, spent, lengths, schedule)


def _iterate_weights(entry: Selection, first: int, last: int) -> Iterator[int]:
    if entry.unit == "samples":
        return repeat(1, last - first)
    return chain.from_iterable(entry.weights(samples).tolist() for _, samples in entry.items(first, last))


def _estimate_fill(
    mixture: MixtureSettings, entries: Sequence[Selection], counts: Sequence[int], visual: int | None
) -> float:
    """How full sequences will be: as full as those of the first window."""
    start = [0] * len(entries)
    order = np.fromiter(islice(order_samples(entries, start, counts), mixture.pack_window), np.int64)
    segments = gather_segments(entries, order, start)
    tokens = segments["tokens"]
    if not tokens.size:
        return 1.0
    apart = find_stretches(segments, [entry.source for entry in mixture.resolved()])
    taken, most = ImageBudget(mixture.tiles_per_sequence, visual).measure(segments["tiles"], segments["visual"], COARSE)
    sequences = pack_segments(tokens, taken, mixture.sequence_length, most, apart)
    return float(tokens.sum()) / ((int(sequences.max()) + 1) * mixture.sequence_length)
