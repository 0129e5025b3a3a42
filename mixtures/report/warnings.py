"""What a person should look at before training on a mixture. Warnings, never errors: each may be meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vlmill.mixtures.algorithms.schedule import interpolate_share, list_points
from vlmill.mixtures.algorithms.solve import Solution, format_epochs
from vlmill.mixtures.config import MixtureEntry, MixtureSettings, Totals
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.proposal.recipe_text import REPETITION

LOSS = 0.1
"""Fraction lost from which that is worth a thought: of nodes to the length of sequences, of samples without a text."""


def warn_of_settings(
    mixture: MixtureSettings,
    selected: Sequence[Mapping[str, Any]],
    solution: Solution,
    planned: Sequence[Totals],
    *,
    shared: Mapping[str, int] | None = None,
    scaled: bool = False,
) -> list[str]:
    """Warnings about a solved mixture: what binds, then the rest in the order of its entries; pure.

    Args:
        mixture: the settings.
        selected: what the select step found of each entry (`selection.json`).
        solution: what the solver made of it.
        planned: what is planned of each entry, by unit.
        shared: source -> how many of its samples more than one entry selects.
        scaled: the run is scaled, and the solver counted passes as those of the whole run.
    """
    capped = {binding.entry for binding in solution.binding if binding.constraint == "max_repetition"}
    unasked = {
        label
        for label, entry in zip(mixture.labels(), mixture.resolved(), strict=True)
        if entry.max_repetition is None and label in capped
    }
    warnings = [
        ("in the whole run " if scaled and binding.constraint == "max_repetition" else "")
        + str(binding)
        + ("; that is the default, max_repetition allows more" if binding.entry in unasked else "")
        for binding in solution.binding
    ]
    warnings += [
        f"{source}: {number:,} samples stand in several entries, so they may come more often than any one entry says"
        for source, number in (shared or {}).items()
    ]
    warnings += warn_of_sums(mixture)
    sequences = max(
        1.0,
        sum(plan["tokens"] for plan in planned) / mixture.sequence_length,
        sum(plan.get("tiles", 0) for plan in planned) / mixture.tiles_per_sequence,
    )
    for label, entry, chosen, epochs, plan in zip(
        mixture.labels(), mixture.resolved(), selected, solution.repetition, planned, strict=True
    ):
        found = (
            *_warn_of_take(entry, chosen),
            *_warn_of_plan(entry.bound if label in unasked else entry.max_repetition, epochs, plan),
            *_warn_of_crowding(chosen["counts"]["samples"]["kept"], plan["samples"] / sequences),
            *_warn_of_content(chosen),
        )
        warnings.extend(f"{label}: {warning}" for warning in found)
    return warnings


NOT_THERE = (Reason.HELD_OUT, Reason.NOT_TAKEN, Reason.OVER_CAP)
"""Reasons of samples that `take` cannot have."""


def warn_of_sums(mixture: MixtureSettings) -> list[str]:
    """A warning where the shares add up to neither 1 nor 100; known before anything is built. Pure."""
    sums = _sum_shares(mixture) if mixture.by_share else {}
    odd = [at for at, found in sums.items() if not any(abs(found - whole) < whole * 1e-3 for whole in (1, 100))]
    if not odd:
        return []
    where = f"at {odd[0]:g} of the budget " if mixture.moves else ""
    return [f"{where}the shares add up to {sums[odd[0]]:g}; they are read as proportions"]


def _sum_shares(mixture: MixtureSettings) -> dict[float, float]:
    """What the shares add up to, at each point of the budget that any of them names."""
    at = list_points(mixture)
    sums = sum(interpolate_share(entry, at) for entry in mixture.resolved())
    return dict(zip(at, np.asarray(sums).tolist(), strict=True))


def _warn_of_take(entry: MixtureEntry, selected: Mapping[str, Any]) -> Iterator[str]:
    how, _, amount = entry.take.partition(":")
    if how in {"first", "end"}:
        yield (
            f"take {entry.take} is a sample of one end of the source, not of the source; random:{amount} is as many "
            "from all of it"
        )
    samples = selected["counts"]["samples"]
    there = samples["in"] - sum(samples["dropped"].get(reason, 0) for reason in NOT_THERE)
    if amount.isdigit() and int(amount) > there:
        yield f"take {entry.take} asks for more than the {there:,} samples there are; all are taken"


def _warn_of_plan(cap: float | None, epochs: float, planned: Totals) -> Iterator[str]:
    if epochs and not planned["samples"]:
        yield "its share comes to less than one sample, so it gets none"
    if cap is None and epochs > REPETITION:
        yield f"passed {format_epochs(epochs)} times; a smaller max_repetition would bound that"


def _warn_of_crowding(samples: int, per_sequence: float) -> Iterator[str]:
    if samples < per_sequence:
        yield (
            f"full sequences would hold {per_sequence:.3g} of it each, and there are {samples:,}: as no sequence "
            "holds a sample twice, sequences stay emptier"
        )


def _warn_of_content(selected: Mapping[str, Any]) -> Iterator[str]:
    unlicensed = selected["licences"].get("", 0)
    if unlicensed:
        yield f"{unlicensed:,} samples without a licence"
    samples = selected["counts"]["samples"]
    told, mute = samples["kept"], samples["dropped"].get(Reason.NO_TEXT, 0)
    if mute > (told + mute) * LOSS:
        yield (
            f"{mute:,} of {told + mute:,} samples are images without a text and are left out ({Reason.NO_TEXT}): they "
            "came so, or filters dropped their texts, which vlmill report counts"
        )
    nodes = selected["counts"]["nodes"]
    long = sum(nodes["dropped"].get(reason, 0) for reason in (Reason.TOO_LONG, Reason.LATER_TURNS))
    whole = nodes["kept"] + long
    if whole and long > whole * LOSS:
        yield (
            f"{long / whole:.0%} of its nodes do not fit a sequence; a longer sequence_length or more "
            "tiles_per_sequence (of native resolution, patches_per_sequence) would keep them"
        )
