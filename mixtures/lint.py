"""What a person should look at before training on a mixture. Warnings, never errors: each may be meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mixtures.mixture import Mixture, Part, Totals
from mixtures.solve import Solution, times
from pipeline.reasons import Reason

REPETITION = 4
"""Passes from which repetition is worth a thought: DataComp-VLM lost 1.9 points at 4, 3.1 at 8."""

LOSS = 0.1
"""Fraction of nodes lost to the length of rows from which that is worth a thought."""


def lint(
    mixture: Mixture,
    selected: Sequence[Mapping[str, Any]],
    solution: Solution,
    planned: Sequence[Totals],
) -> list[str]:
    """Warnings about a solved mixture: what binds, then the rest in the order of its parts; pure.

    Args:
        mixture: the settings.
        selected: what the select step found of each part (`selection.json`).
        solution: what the solver made of it.
        planned: what is planned of each part, by unit.
    """
    warnings = [str(binding) for binding in solution.binding]
    twice = [source for source, number in Counter(part.source for part in mixture.resolved()).items() if number > 1]
    if twice:
        warnings.append(
            f"{', '.join(twice)}: stands in several parts, so its samples may come more often than any one part says"
        )
    shares = [part.share for part in mixture.resolved() if part.share is not None]
    if shares and not any(abs(sum(shares) - whole) < whole * 1e-3 for whole in (1, 100)):
        warnings.append(f"the shares add up to {sum(shares):g}; they are read as proportions")
    rows = max(
        1.0,
        sum(plan["tokens"] for plan in planned) / mixture.sequence_length,
        sum(plan.get("tiles", 0) for plan in planned) / mixture.tiles_per_row,
    )
    for label, part, facts, passes, plan in zip(
        mixture.labels(), mixture.resolved(), selected, solution.repetition, planned, strict=True
    ):
        found = (
            *_taking(part, facts),
            *_planned(part.max_repetition, passes, plan),
            *_crowded(facts["counts"]["samples"]["kept"], plan["samples"] / rows),
            *_content(facts),
        )
        warnings.extend(f"{label}: {warning}" for warning in found)
    return warnings


def _taking(part: Part, facts: Mapping[str, Any]) -> Iterator[str]:
    how, _, amount = part.take.partition(":")
    if how in {"first", "end"}:
        yield f"take {part.take} is a sample of one end of the source, not of the source; random:{amount} is as many from all of it"
    samples = facts["counts"]["samples"]
    there = samples["in"] - sum(samples["dropped"].get(reason, 0) for reason in (Reason.HELD_OUT, Reason.NOT_TAKEN))
    if amount.isdigit() and int(amount) > there:
        yield f"take {part.take} asks for more than the {there:,} samples there are; all are taken"


def _planned(cap: float | None, passes: float, planned: Totals) -> Iterator[str]:
    if passes and not planned["samples"]:
        yield "its share comes to less than one sample, so it gets none"
    if cap is None and passes > REPETITION:
        yield f"passed {times(passes)} times; max_repetition would bound that"


def _crowded(samples: int, per_row: float) -> Iterator[str]:
    if samples < per_row:
        yield f"full rows would hold {per_row:.3g} of it each, and there are {samples:,}: as no row holds a sample twice, rows stay emptier"


def _content(facts: Mapping[str, Any]) -> Iterator[str]:
    unlicensed = facts["licences"].get("", 0)
    if unlicensed:
        yield f"{unlicensed:,} samples without a licence"
    nodes = facts["counts"]["nodes"]
    long = sum(nodes["dropped"].get(reason, 0) for reason in (Reason.TOO_LONG, Reason.LATER_TURNS))
    whole = nodes["kept"] + long
    if whole and long > whole * LOSS:
        yield f"{long / whole:.0%} of its nodes do not fit a row; a longer sequence_length or more tiles_per_row would keep them"
