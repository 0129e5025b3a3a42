"""Mixtures that others published: what they declared, what they said came of it, and what comes of it here.

Each YAML beside this file is one of them, its contradictions noted in comments. `realised` solves a stage over the published
counts, so what a paper claims can be held against what its own numbers make; `describe` puts it into the form of `stats.json`,
so that `difference` compares it with any other mixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic.dataclasses import dataclass

from mixtures.mixture import UNITS, Mixture, Part, Totals
from mixtures.solve import solve
from pipeline.errors import RecipeError
from pipeline.settings import STRICT, build, nearest


@dataclass(frozen=True, config=STRICT)
class Known:
    """What was published of one source: one pass over it, and the percentage it was given."""

    samples: int | None = None
    images: int | None = None
    text: int | None = None
    supervised: int | None = None
    tokens: int | None = None
    percent: float | None = None  # of the stage's unit

    def totals(self, part: Part) -> dict[str, int]:
        """One pass over what `take` leaves, 0 for what was not published. Tokens, where unknown, are the best known instead."""
        counts: dict[str, int] = {unit: getattr(self, unit, None) or 0 for unit in UNITS}
        counts["tokens"] = self.tokens or self.supervised or self.text or counts["samples"]
        if part.take == "all":
            return counts
        fraction = part.taken(counts["samples"]) / max(counts["samples"], 1)
        return {unit: round(count * fraction) for unit, count in counts.items()}


@dataclass(frozen=True, config=STRICT)
class Stage:
    """One training stage of a published mixture."""

    mixture: Mixture
    published: Mapping[str, Known]  # by the part's label
    claimed: Mapping[str, int] = field(default_factory=dict)  # totals as stated, by unit
    disagree: tuple[str, ...] = ()  # labels whose percentage does not follow from their counts

    def available(self) -> tuple[Totals, ...]:
        """One pass over every part."""
        known = zip(self.mixture.labels(), self.mixture.resolved(), strict=True)
        return tuple(self.published.get(label, Known()).totals(part) for label, part in known)


@dataclass(frozen=True, config=STRICT)
class Published:
    """A published mixture."""

    title: str
    reference: str
    stages: Mapping[str, Stage]


def names() -> list[str]:
    """All published mixtures that ship."""
    return sorted(Path(str(item)).stem for item in files("mixtures").iterdir() if str(item).endswith(".yaml"))


def load(name: str) -> Published:
    """A published mixture by name.

    Raises:
        RecipeError: there is none of that name.
    """
    if name not in names():
        raise RecipeError(f"there is no published mixture {name!r}; {nearest(name, names())}")
    text = files("mixtures").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return build(Published, yaml.safe_load(text), f"{name}.yaml")


def realised(stage: Stage) -> dict[str, float]:
    """The percentage of the stage's unit that each part comes to, from its published counts; pure."""
    amounts = {source["name"]: source["planned"][stage.mixture.unit] for source in describe(stage)["sources"]}
    whole = sum(amounts.values())
    return {name: 100 * amount / whole for name, amount in amounts.items()}


def describe(stage: Stage, name: str = "") -> dict[str, Any]:
    """What the stage would hold of every unit that was published, in the form of `stats.json`; pure."""
    available = stage.available()
    repetition = solve(stage.mixture, available).repetition
    planned = [
        {unit: passes * count for unit, count in totals.items()}
        for passes, totals in zip(repetition, available, strict=True)
    ]
    return {
        "stage": name,
        "unit": stage.mixture.unit,
        "sources": [
            {"name": label, "planned": plan} for label, plan in zip(stage.mixture.labels(), planned, strict=True)
        ],
        "total": {unit: sum(plan[unit] for plan in planned) for unit in UNITS},
    }
