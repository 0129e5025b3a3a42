"""The mix step, one task per stage: how many samples of each part, and where every block of the plan starts.

It solves the mixture over what the select steps left, then runs the order once from end to end. What it keeps of that are
the counts at the start of each block, so that blocks are planned without each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import chain, islice, repeat
from pathlib import Path
from typing import ClassVar

import numpy as np

from mixtures.lint import lint
from mixtures.mixture import Mixture
from mixtures.order import merge
from mixtures.pack import pack
from mixtures.selection import FILES, Selection
from mixtures.solve import Solution, solve
from mixtures.window import gather, stretches
from pipeline.errors import RecipeError
from pipeline.step import Count, Counts, Inputs


@dataclass(frozen=True, slots=True)
class Mix:
    """Solves a stage's mixture. Its inputs are the files of the select steps, behind each part's label: `quiz/sizes.npy`."""

    stage: str
    mixture: Mixture
    seed: int

    name: ClassVar[str] = "mix"
    version: ClassVar[int] = 2
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """What the select steps left, but the held-out rows."""
        return tuple(f"{label}/{name}" for label in self.mixture.labels() for name in FILES)

    def made_by(self) -> Mapping[str, str]:
        """The array library."""
        return {"numpy": version("numpy")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `mix.json` and `starts.npy` (blocks + 1, parts): items of each part before a block. Counts the planned samples."""
        mixture, labels = self.mixture, self.mixture.labels()
        parts = [Selection.open(inputs, label, mixture.unit, self.seed, mixture.shard_window) for label in labels]
        selected = [json.loads(inputs[f"{label}/selection.json"].read_text(encoding="utf-8")) for label in labels]
        available = [part["available"] for part in selected]
        solution = solve(mixture, available)
        counts = _counts(mixture, parts, solution)
        if mixture.rows is not None:
            solution = solve(mixture, available, _fill(mixture, parts, counts))
            counts = _counts(mixture, parts, solution)
        _refuse_nothing(mixture, solution, counts)
        starts = _starts(parts, counts, mixture.pack_window * mixture.windows_per_block)
        np.save(folder / "starts.npy", starts)
        planned = [part.prefix(count) for part, count in zip(parts, counts, strict=True)]
        data = {
            "version": self.version,
            "stage": self.stage,
            "seed": self.seed,
            "mixture": asdict(mixture),
            "blocks": len(starts) - 1,
            "samples": sum(counts),
            "parts": [
                {"label": label, **facts, "repetition": count / max(part.walk.size, 1), "planned": plan}
                for label, facts, part, count, plan in zip(labels, selected, parts, counts, planned, strict=True)
            ],
            "binding": [asdict(binding) for binding in solution.binding],
            "exact_up_to": None if solution.exact_up_to is None else round(solution.exact_up_to),
            "warnings": lint(mixture, selected, solution, planned),
        }
        (folder / "mix.json").write_text(json.dumps(data, sort_keys=True, indent=1), encoding="utf-8")
        return {"samples": Count(sum(counts), sum(counts))}


def _counts(mixture: Mixture, parts: Sequence[Selection], solution: Solution) -> list[int]:
    """Items of each part: the passes of the solution, to the nearest sample."""
    return [
        part.count_for(passes * int(part.shards[mixture.unit].sum()))
        if mixture.by_share and mixture.unit != "samples" and passes
        else round(passes * part.walk.size)
        for part, passes in zip(parts, solution.repetition, strict=True)
    ]


def _refuse_nothing(mixture: Mixture, solution: Solution, counts: Sequence[int]) -> None:
    """A budget under one sample of every part is refused; a strict mixture also where it is under one of any.

    Raises:
        RecipeError: the budget is too small.
    """
    labels = [label for label, passes in zip(mixture.labels(), solution.repetition, strict=True) if passes]
    empty = [
        label
        for label, passes, count in zip(mixture.labels(), solution.repetition, counts, strict=True)
        if passes and not count
    ]
    if empty and (mixture.strict or len(empty) == len(labels)):
        raise RecipeError(
            f"mixture: {_budget(mixture)} gives {', '.join(empty)} less than one sample; a larger budget, or a larger share or repeat, would not"
            + (", and without `strict` the others are planned" if len(empty) < len(labels) else "")
        )


def _budget(mixture: Mixture) -> str:
    """The budget as it was declared: `tokens: 1000`."""
    given = ((name, getattr(mixture, name)) for name in ("tokens", "rows", "epochs"))
    return next((f"the budget `{name}: {amount:g}`" for name, amount in given if amount is not None), "one epoch")


def _starts(parts: Sequence[Selection], counts: Sequence[int], block: int) -> np.ndarray:
    """Items of each part before each block of `block` samples, and in the end."""
    order = ordered(parts, [0] * len(parts), counts)
    starts = [np.zeros(len(parts), np.int64)]
    while (here := np.fromiter(islice(order, block), np.int64)).size:
        starts.append(starts[-1] + np.bincount(here, minlength=len(parts)))
    return np.stack(starts)


def ordered(parts: Sequence[Selection], start: Sequence[int], counts: Sequence[int]) -> Iterator[int]:
    """The part of each sample of the mixture, from the given items of each part on.

    Args:
        parts: in the order of the mixture.
        start: items of each that came before.
        counts: items of each in the whole plan.
    """
    totals = [part.spent(count) for part, count in zip(parts, counts, strict=True)]
    spent = [part.spent(count) for part, count in zip(parts, start, strict=True)]
    lengths = [_lengths(part, first, last) for part, first, last in zip(parts, start, counts, strict=True)]
    if any(count and not total for count, total in zip(counts, totals, strict=True)):
        totals, spent = list(counts), list(start)  # a repeat of what holds nothing of the unit: by samples
        lengths = [repeat(1, last - first) for first, last in zip(start, counts, strict=True)]
    return merge(totals, spent, lengths)


def _lengths(part: Selection, first: int, last: int) -> Iterator[int]:
    if part.unit == "samples":
        return repeat(1, last - first)
    return chain.from_iterable(part.weights(samples).tolist() for _, samples in part.items(first, last))


def _fill(mixture: Mixture, parts: Sequence[Selection], counts: Sequence[int]) -> float:
    """How full rows will be: as full as those of the first window."""
    start = [0] * len(parts)
    order = np.fromiter(islice(ordered(parts, start, counts), mixture.pack_window), np.int64)
    segments = gather(parts, order, start)
    tokens = segments["tokens"]
    if not tokens.size:
        return 1.0
    apart = stretches(segments, [part.source for part in mixture.resolved()])
    rows = pack(tokens, segments["tiles"], mixture.sequence_length, mixture.tiles_per_row, apart)
    return float(tokens.sum()) / ((int(rows.max()) + 1) * mixture.sequence_length)
