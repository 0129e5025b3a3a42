"""What is behind losses that follow from others: a sample that went with its required image, and why the image went.

The steps that apply verdicts count it (pipeline/verdicts/audit.py), so no table is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.shown import count_things
from vlmill.pipeline.core.step import Count
from vlmill.pipeline.engine.chain import read_counts
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.verdicts.audit import FALLEN

Causes = Mapping[Reason, Mapping[Reason, int]]
"""Consequence -> cause -> how many samples, or nodes, it took."""

SAID = {  # a consequence in words, and what it takes
    Reason.REQUIRED_LOST: ("{} went with a required image, which went for", "sample"),
    Reason.NOTHING_LEFT: ("of {} nothing is left, most of which went for", "sample"),
    Reason.TOO_FEW_IMAGES: ("{} had more images, most of which went for", "sample"),
    Reason.TURN_LOST: ("{} went with a turn, a text of which went for", "node"),
}


def select_causes(counts: Mapping[str, Count]) -> Causes:
    """Those among the counts of what applied verdicts; pure. None in runs that were built before they were counted."""
    return {reason: dict(counts[reason].lost) for reason in sorted(FALLEN) if reason in counts}


def read_causes(root: Path, recipe: Recipe, source: str) -> Causes:
    """The causes of a source, under the first policy that it is rendered under."""
    drawn = [f"shards/{source}/{policy}" for policy in recipe.list_policies(source)[:1]]
    folders = (*drawn, f"steps/{source}/outcomes")
    manifest = next((path for one in folders if (path := root / one / "manifest.json").exists()), None)
    counts = read_counts(manifest) if manifest else {}
    return select_causes({level: Count.from_json(line) for level, line in counts.items()})


def spread_losses(lost: Mapping[Reason, int], causes: Causes) -> Counter[Reason]:
    """Losses of samples by what is behind them; pure."""
    found = Counter(lost)
    for reason, behind in causes.items():
        if reason in lost:
            found[reason] -= sum(behind.values())
            found.update(behind)
    return +found


def describe_causes(found: Iterable[Causes]) -> Iterator[str]:
    """A line for each consequence in any of these: how many fell, and for what."""
    total = dict[Reason, Counter[Reason]]()
    for causes in found:
        for reason, behind in causes.items():
            total.setdefault(reason, Counter()).update(behind)
    for reason, behind in sorted(total.items(), key=lambda item: -item[1].total()):
        said, thing = SAID[reason]
        yield f"{reason}: {said.format(count_things(behind.total(), thing))} {name_causes(behind)}"


def name_causes(behind: Mapping[Reason, int]) -> str:
    """The causes in words, those that took most first."""
    ordered = sorted(behind.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {number:,}" for reason, number in ordered)
