"""The progress of a run: which partitions are complete, which are missing.

Reads manifests and receipts alone. `ledger.py` has the funnel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.engine.chain import read_manifest_counts
from vlmill.pipeline.recipe.lock import read_locked_recipe


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of one source: partitions done, of how many (None while that is unknown)."""

    folder: str
    done: int
    partitions: int | None


def read_progress(root: Path) -> list[Progress]:
    """How many partitions of each step are there, in the order of their folders.

    A step with a manifest is complete; in one without, partitions that have a receipt are counted.
    """
    expected = {source: _count_partitions(root, source) for source in read_locked_recipe(root).sources}
    found = []
    for folder in sorted({path.parent for path in root.glob("s*/**/made_by.json")}):
        name = str(folder.relative_to(root))
        source = name.split("/")[1]
        if (folder / "manifest.json").exists():
            count = len(read_manifest_counts(folder / "manifest.json")[0])
            found.append(Progress(name, count, count))
        else:
            partitions = {path.name.split(".", 1)[0] for path in folder.glob("*.receipt.json")}
            found.append(Progress(name, len(partitions), None if name.endswith("survey") else expected.get(source)))
    return found


def _count_partitions(root: Path, source: str) -> int | None:
    """How many partitions the survey of a source found, or None before it is complete."""
    manifest = root / f"steps/{source}/survey/manifest.json"
    if not manifest.exists():
        return None
    receipts = read_json(manifest)["receipts"]
    return sum(len(read_json(root / file["path"])) for receipt in receipts for file in receipt["files"])


def make_status_table(root: Path) -> Table:
    """What `vlmill status` prints: per source a line with its steps in order and their complete partitions."""
    shown = Table(
        title="Partitions",
        title_justify="left",
        caption="n: complete; n/m: to be continued by the same build command",
        caption_justify="left",
    )
    shown.add_column("source")
    shown.add_column("steps")
    recipe = read_locked_recipe(root)
    filters = [filter_.name for filter_ in recipe.filters]
    order = [
        "survey",
        "read",
        "fetch",
        "retry",
        "takedown",
        "image_stats",
        "match",
        *filters,
        "signature",
        "contamination",
        "decontaminate",
        "candidates",
        "pairs",
        "resolve",
        "outcomes",
        *recipe.policies,
        "select",
        "mix",
        "plan",
        "lock",
    ]
    lines: dict[str, list[tuple[int, str]]] = {}
    for step in read_progress(root):
        source, *names = step.folder.split("/")[1:]
        rank = next((place for place, name in enumerate(order) if name in names), len(order))
        complete = (root / step.folder / "manifest.json").exists()
        count = (
            f"{step.done:,}" if complete else f"{step.done:,}/{step.partitions if step.partitions is not None else '?'}"
        )
        lines.setdefault(source, []).append((rank, f"{' '.join(names)} {count}"))
    for source, steps in lines.items():
        shown.add_row(source, ", ".join(text for _, text in sorted(steps)))
    return shown
