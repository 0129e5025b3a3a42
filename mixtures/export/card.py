"""The card of an export, `README.md`: the Hub's metadata, what it holds, and what it says otherwise than the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmill.mixtures.export.base import ExportedShard, ExportFormat, ExportPart
from vlmill.mixtures.export.record import REMARKS
from vlmill.mixtures.report.card import choose_licence, format_table, make_mixture_table, name_size
from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.core.yaml_format import format_yaml
from vlmill.pipeline.recipe.lock import explain_unbuilt
from vlmill.pipeline.recipe.schema import Recipe

UNBUILT = (
    "**Warning**: the run was not built to the end of its recipe or its takedowns when this was exported, so some of "
    "it may be what an earlier recipe kept. Export it again once the run is built."
)
"""What the card of such a run says; it names no folder, for it leaves the machine."""

Shards = Mapping[str, Sequence[ExportedShard]]


def make_export_card(
    root: Path, recipe: Recipe, stage: str | None, made: ExportFormat, parts: Sequence[ExportPart], shards: Shards
) -> str:
    """The text of the card; pure but for reading the statistics of the stage, and whether the run is built."""
    every = [shard for part in parts for shard in shards.get(part.folder, ())]
    records = sum(shard.records for shard in every)
    shown = any(shard.pictures for shard in every)
    used = _list_sources(root, recipe, stage)
    metadata: dict[str, Any] = {
        "pretty_name": recipe.name if stage is None else f"{recipe.name}: {stage}",
        **choose_licence(recipe.sources[name].licence for name in used),
        "task_categories": ["image-text-to-text" if shown else "text-generation"],
        "size_categories": [name_size(records)],
        **made.describe_configs(parts, shards),
    }
    title = f"the mixture of stage {stage}" if stage else "all samples that were kept"
    sections = (
        f"# {recipe.name}\n\nExported by vlmill: {title}. {made.about}",
        *([UNBUILT] if explain_unbuilt(root) else []),
        f"## Contents\n\n{_make_contents(parts, shards)}",
        f"## Sources\n\n{_make_sources(recipe, used)}",
        *([f"## Mixture\n\n{_make_mixture(root, stage)}"] if stage else []),
        f"## What is said otherwise\n\n{explain_remarks(sum_remarks(every))}",
    )
    return f"---\n{format_yaml(metadata, sort_keys=False)}---\n\n" + "\n\n".join(sections) + "\n"


def sum_remarks(shards: Sequence[ExportedShard]) -> dict[str, int]:
    """The remarks of all shards together."""
    total = Counter[str]()
    for shard in shards:
        total.update(shard.remarks)
    return dict(sorted(total.items()))


def explain_remarks(remarks: Mapping[str, int]) -> str:
    """A line of Markdown for each remark that holds of something."""
    lines = [f"- `{name}`, {number:,}: {REMARKS[name]}" for name, number in sorted(remarks.items())]
    return "\n".join(lines) or "Nothing."


def _list_sources(root: Path, recipe: Recipe, stage: str | None) -> list[str]:
    """The sources whose samples may be in it."""
    if stage is None:
        return sorted(recipe.sources)
    lock = read_json(root / "mixtures" / stage / "mixture.lock.json")
    return sorted({shard["path"].split("/")[1] for source in lock["sources"] for shard in source["shards"]})


def _make_contents(parts: Sequence[ExportPart], shards: Shards) -> str:
    rows = [
        (
            part.config,
            part.split,
            f"{sum(shard.records for shard in done):,}",
            f"{sum(shard.pictures for shard in done):,}",
            str(len(done)),
            "" if part.weight is None else str(part.weight),
        )
        for part in parts
        if (done := shards.get(part.folder))
    ]
    table = format_table(("config", "split", "records", "images", "files", "weight"), rows)
    if all(part.weight is None for part in parts):
        return table
    return (
        f"{table}\n\nEach sample stands once, and `weight` of a record is how many times the plan shows it; the weight "
        "of a config adds these up, so that configs which are drawn by their weights make the mixture."
    )


def _make_sources(recipe: Recipe, used: Sequence[str]) -> str:
    sources = [(name, recipe.sources[name]) for name in used]
    rows = [
        (name, source.kind, *(value or "unknown" for value in (source.licence, source.homepage, source.citation)))
        for name, source in sources
    ]
    table = format_table(("source", "kind", "licence", "homepage", "citation"), rows)
    return f"{table}\n\nA sample may have a licence of its own, which its `licence` says."


def _make_mixture(root: Path, stage: str) -> str:
    stats = read_json(root / "mixtures" / stage / "stats.json")
    return f"Shares are of {stats['unit']}.\n\n{make_mixture_table(stats)}"
