"""What a run is, in figures that manifests alone give: what came and was kept, sizes, and what is odd.

Pages begin with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import VlmillError
from vlmill.pipeline.core.names import IMAGES_FILE, SUPPLEMENT_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.recipe.lock import explain_unbuilt
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.consequences import name_causes, read_causes
from vlmill.pipeline.reports.funnel import LevelCounts
from vlmill.pipeline.reports.signals import list_silent_signals
from vlmill.pipeline.reports.undecided import count_undecided
from vlmill.pipeline.reports.unread import list_unread_keys

LITTLE = 0.5
"""The kept share of a source below which it is worth a line."""
LARGE = 0.2
"""The share of a source's samples, or images, that one reason loses from which it is worth a line."""
LEVELS = ("rows", "samples", "nodes", "images")


@dataclass(frozen=True, slots=True)
class OddLine:
    """What a person should look at first."""

    said: str  # a sentence
    source: str  # to look at; empty for all
    outcome: str  # a reason, or `lost` for any; empty where it is not about outcomes


def sum_levels(funnel: Mapping[str, LevelCounts]) -> dict[str, dict[str, Any]]:
    """The funnel over all sources: by level what came, was kept, and was lost by reason."""
    found = dict[str, dict[str, Any]]()
    for level in LEVELS:
        lines = [counts[level] for counts in funnel.values() if level in counts]
        if lines:
            lost = {how: Counter[str]() for how in ("dropped", "failed")}
            for line in lines:
                for how, reasons in lost.items():
                    reasons.update(line[how])
            found[level] = {
                "in": sum(line["in"] for line in lines),
                "kept": sum(line["kept"] for line in lines),
                **{how: dict(reasons.most_common()) for how, reasons in lost.items()},
            }
    return found


def count_bytes(root: Path, recipe: Recipe) -> dict[str, int]:
    """Bytes of pictures as they came, and of shards by image policy."""
    found = Counter[str]()
    for source in recipe.sources:
        for step in ("read", "fetch", "retry"):
            for name, size in _list_sizes(root, f"steps/{source}/{step}"):
                if name in {IMAGES_FILE, SUPPLEMENT_FILE}:
                    found["pictures as they came"] += size
        for policy in recipe.policies:
            for name, size in _list_sizes(root, f"shards/{source}/{policy}"):
                if name.endswith(".tar"):
                    found[f"shards, {policy}"] += size
    return dict(found)


def _list_sizes(root: Path, folder: str) -> Iterator[tuple[str, int]]:
    with suppress(VlmillError):
        yield from ((file.name, file.size) for receipt in read_manifest(root, folder) for file in receipt.files)


def list_odd(root: Path, recipe: Recipe, funnel: Mapping[str, LevelCounts]) -> Iterator[OddLine]:
    """What a person should look at first."""
    yield from _list_unbuilt(root)
    for source, levels in funnel.items():
        line, causes = levels.get("samples"), read_causes(root, recipe, source)
        if line and line["in"] and line["kept"] < LITTLE * line["in"]:
            share = f"{line['kept'] / line['in']:.1%}"
            yield OddLine(f"{source}: {share} of {line['in']:,} samples are kept", source, "lost")
        for level in ("samples", "images"):
            line = levels.get(level)
            for reason, number in {**line["dropped"], **line["failed"]}.items() if line else ():
                if line and number > LARGE * line["in"]:
                    behind = causes.get(Reason(reason)) if level == "samples" else None
                    named = f"{reason} ({name_causes(behind)})" if behind else reason
                    said = f"{source}: {named} loses {number / line['in']:.0%} of {line['in']:,} {level}"
                    yield OddLine(said, source, reason)
    for undecided in count_undecided(root):
        if undecided.over:
            yield OddLine(str(undecided), undecided.source, "")
    for unread in list_unread_keys(root):
        yield OddLine(str(unread), unread.source, "")
    for said in list_silent_signals(root, recipe):
        yield OddLine(said, "", "")


def _list_unbuilt(root: Path) -> Iterator[OddLine]:
    if unbuilt := explain_unbuilt(root):
        yield OddLine(unbuilt, "", "")
