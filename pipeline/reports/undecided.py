"""How much the filters of a run could not decide, and whether that is more than a person should leave to a setting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlmill.pipeline.engine.chain import read_totals
from vlmill.pipeline.recipe.lock import read_locked_recipe

CAP = 0.01
"""Share of a source's nodes from which a filter's doubts are worth looking at. Of web documents the language filter
doubts 0.1 %."""


@dataclass(frozen=True, slots=True)
class UndecidedCount:
    """What one filter could not decide about one source."""

    source: str  # its name
    filter: str  # its name
    nodes: int  # it looked at
    undecided: int  # of these
    outcome_by: str | None  # the setting that decides their outcome
    dropped: bool  # by that setting, as it is

    @property
    def over(self) -> bool:
        """Whether that is more than CAP."""
        return self.undecided > CAP * self.nodes

    def __str__(self) -> str:
        """A line for people."""
        share = (
            f"{self.filter} could not decide {self.undecided:,} of {self.nodes:,} nodes of {self.source} "
            f"({self.undecided / self.nodes:.2%})"
        )
        if not self.over:
            return share
        advice = "look at some"
        if self.outcome_by is not None:
            outcome, other = ("they are dropped; ", "keep") if self.dropped else ("", "drop")
            advice = f"{outcome}{advice} in vlmill explore, and {other} them with --set {self.outcome_by}={other}"
        return f"{share}, more than {CAP:.0%}: {advice}"


def count_undecided(root: Path) -> Iterator[UndecidedCount]:
    """What each filter that is through with a source left undecided there, where it did."""
    recipe = read_locked_recipe(root)
    for source in sorted(recipe.sources):
        for filter_ in recipe.filters:
            folder = f"steps/{source}/{filter_.name}"
            if not (root / folder / "manifest.json").exists():
                continue
            totals = read_totals(root, folder)
            if "undecided" in totals and totals["undecided"].came:
                doubt = getattr(filter_, "in_doubt", None)
                setting = f"filters.{filter_.name}.in_doubt" if doubt else None
                counts = totals["filtered"].came, totals["undecided"].came
                yield UndecidedCount(source, filter_.name, *counts, setting, dropped=doubt == "drop")
