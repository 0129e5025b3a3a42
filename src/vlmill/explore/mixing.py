"""A stage's mixture with shares that were changed by hand, solved by the solver that the build uses.

What one pass over each entry holds was counted by the select steps and stands in what the mix step left. So a solution
is near what a build would come to: it counts passes as fractions of the amount of the unit, where a build plans whole
samples, and those that it passes once more hold more or less than the average. Where entries' `take`, `where` or
balance change, a build has to count anew. A mixture that is not changed has the numbers that were planned.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmill.explore.bounds import diff_recipes
from vlmill.mixtures.algorithms.solve import solve_mixture
from vlmill.mixtures.build import is_mixed, read_stage_mixture, read_stats
from vlmill.mixtures.config import MAX_EPOCHS, UNITS, MixtureSettings
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.recipe.lock import read_lock
from vlmill.pipeline.recipe.schema import Recipe, Stage

CHANGED = ("unit", "epochs", "tokens", "sequences", "max_repetition")
"""What may be changed beside shares and repeats."""
MIX_FILE = "mix.json"


def describe_mixtures(root: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """Every stage that is mixed: its settings, and what its entries hold and were planned to give."""
    return [_describe_stage(root, recipe, stage) for stage in recipe.stages if is_mixed(root, stage.name)]


def _describe_stage(root: Path, recipe: Recipe, stage: Stage) -> dict[str, Any]:
    mixture, mixed = read_stage_mixture(recipe, stage), _read_mix(root, stage.name)
    entries = zip(mixture.resolved(), mixture.labels(), mixed["entries"], strict=True)
    return {
        "stage": stage.name,
        "policy": stage.policy,
        "by_share": mixture.by_share,
        "unit": mixture.unit,
        "budget": _name_budget(mixture),
        "max_repetition": mixture.max_repetition,
        "sequence_length": mixture.sequence_length,
        "entries": [
            {
                "label": label,
                "source": entry.source,
                "share": None if entry.moves else entry.share,
                "moves": entry.moves,
                "repeat": entry.repeat,
                "cap": entry.max_repetition,
                "available": {unit: found["available"][unit] for unit in UNITS},
                "planned": {unit: found["planned"][unit] for unit in UNITS},
                "repetition": found["repetition"],
            }
            for entry, label, found in entries
        ],
        "warnings": mixed["warnings"],
        "units": list(UNITS),
    }


def _name_budget(mixture: MixtureSettings) -> dict[str, Any]:
    for name in ("tokens", "sequences", "epochs"):
        if getattr(mixture, name) is not None:
            return {"kind": name, "amount": getattr(mixture, name)}
    return {"kind": "epochs", "amount": 1}


def _read_mix(root: Path, stage: str) -> dict[str, Any]:
    """What the mix step left."""
    (receipt,) = read_manifest(root, f"steps/mixtures/{stage}/mix")
    found: dict[str, Any] = read_json(next(root / file.path for file in receipt.files if file.name == MIX_FILE))
    return found


def solve_changed(root: Path, recipe: Recipe, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
    """The solution of a stage's mixture with other shares, and the recipe's change as a diff.

    Args:
        root: the run's folder.
        recipe: the run's.
        name: the stage.
        change: `shares` or `repeat` (label -> number), and of CHANGED what is to be another.

    Raises:
        RecipeError: the settings contradict themselves, or a strict mixture cannot be met.
        StoreError: there is no such stage, or it is not mixed.
    """
    stage = next((one for one in recipe.stages if one.name == name), None)
    if stage is None or not is_mixed(root, name):
        raise StoreError(f"stage {name!r} is not mixed; mixed are {', '.join(_list_mixed(root, recipe)) or 'none'}")
    settings = change_settings(read_stage_mixture(recipe, stage), stage.mixture, change)
    mixture = parse_block(MixtureSettings, settings, f"stages.{name}.mixture").scaled(recipe.scale, {})
    mixed, stats = _read_mix(root, name), read_stats(root, name)[name]
    available = [entry["available"] for entry in mixed["entries"]]
    weights = [entry.get("weight", 1.0) for entry in mixed["entries"]]
    weighted = [
        {unit: amount * weight for unit, amount in totals.items()}
        for totals, weight in zip(available, weights, strict=True)
    ]
    solution = solve_mixture(mixture, weighted, stats["packing"]["efficiency"])
    passes = [
        min(repetition * weight, MAX_EPOCHS) for repetition, weight in zip(solution.repetition, weights, strict=True)
    ]
    planned = [
        {unit: totals[unit] * repetition for unit in UNITS}
        for totals, repetition in zip(available, passes, strict=True)
    ]
    if settings == dict(stage.mixture):
        passes = [entry["repetition"] for entry in mixed["entries"]]
        planned = [{unit: entry["planned"][unit] for unit in UNITS} for entry in mixed["entries"]]
    sums = {unit: sum(one[unit] for one in planned) for unit in UNITS}
    lock = read_lock(root)
    return {
        "entries": [
            {
                "label": label,
                "repetition": repetition,
                "planned": one,
                "realised": {unit: one[unit] / sums[unit] if sums[unit] else 0.0 for unit in UNITS},
                "declared": declared,
            }
            for label, repetition, one, declared in zip(
                mixture.labels(), passes, planned, _list_declared(mixture), strict=True
            )
        ],
        "totals": sums,
        "sequences": sums["tokens"] / max(1e-9, mixture.sequence_length * stats["packing"]["efficiency"]),
        "binding": [str(binding) for binding in solution.binding],
        "exact_up_to": solution.exact_up_to,
        "diff": diff_recipes(lock, _place_mixture(lock, name, settings), "stages"),
    }


def _list_mixed(root: Path, recipe: Recipe) -> list[str]:
    return [stage.name for stage in recipe.stages if is_mixed(root, stage.name)]


def _list_declared(mixture: MixtureSettings) -> list[float | None]:
    """Each entry's share of all that was declared; None where repeats or moving shares are."""
    entries = mixture.resolved()
    if not mixture.by_share or any(entry.moves for entry in entries):
        return [None] * len(entries)
    shares = [entry.points[0][1] for entry in entries]
    return [share / sum(shares) for share in shares]


def change_settings(mixture: MixtureSettings, data: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's mapping with other shares, repeats, unit and budget; pure.

    Raises:
        RecipeError: a share is no number, or of no entry.
    """
    settings = copy.deepcopy(dict(data))
    for form in ("shares", "repeat"):
        numbers = change.get(form) or {}
        if unknown := [label for label in numbers if label not in mixture.labels()]:
            raise RecipeError(f"{unknown[0]!r} is no entry of this mixture; they are {', '.join(mixture.labels())}")
        if any(not isinstance(number, int | float) or isinstance(number, bool) for number in numbers.values()):
            raise RecipeError(f"{form}: each is a number")
        for label, number in numbers.items():
            _enter_number(settings, mixture, label, form, number)
    if any(change.get(name) is not None for name in ("epochs", "tokens", "sequences")):
        for name in ("epochs", "tokens", "sequences"):
            settings.pop(name, None)
    for name in CHANGED:
        if change.get(name) is not None:
            settings[name] = change[name]
    return settings


def _enter_number(settings: dict[str, Any], mixture: MixtureSettings, label: str, form: str, number: float) -> None:
    """Put an entry's share or repeat where the recipe has it."""
    place = mixture.labels().index(label)
    source = mixture.resolved()[place].source
    if source in settings.get(form, {}):
        settings[form] = {**settings[form], source: number}
        return
    entries, key = settings.get("entries"), "share" if form == "shares" else "repeat"
    if isinstance(entries, Mapping) and source in entries:
        old = entries[source]
        settings["entries"] = {**entries, source: {**old, key: number} if isinstance(old, Mapping) else number}
    elif isinstance(entries, list):
        entries[place] = {**entries[place], key: number}
    else:
        raise RecipeError(f"{label} has no {form} in this recipe")


def _place_mixture(lock: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's mapping with another mixture of a stage."""
    stages = [{**stage, "mixture": settings} if stage["name"] == name else stage for stage in lock["stages"]]
    return {**lock, "stages": stages}
