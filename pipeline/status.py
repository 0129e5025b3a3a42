"""How far a run is, and its funnel: what came in, what was kept, what was lost and why. Reads manifests and receipts alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from pipeline.recipe import locked_recipe
from pipeline.step import Count

LEVELS = ("rows", "samples", "nodes", "images")


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of one source: partitions done, of how many (None while nobody knows)."""

    folder: str
    done: int
    parts: int | None


def progress(root: Path) -> list[Progress]:
    """How many partitions of each step are there, in the order of their folders.

    A step with a manifest is complete; in one without, partitions that have a receipt are counted.
    """
    expected = {source: _surveyed(root, source) for source in locked_recipe(root).sources}
    found = []
    for folder in sorted({path.parent for path in root.glob("s*/**/made_by.json")}):
        name = str(folder.relative_to(root))
        source = name.split("/")[1]
        if (folder / "manifest.json").exists():
            count = len(json.loads((folder / "manifest.json").read_bytes())["receipts"])
            found.append(Progress(name, count, count))
        else:
            parts = {path.name.split(".", 1)[0] for path in folder.glob("*.receipt.json")}
            found.append(Progress(name, len(parts), None if name.endswith("survey") else expected.get(source)))
    return found


def _surveyed(root: Path, source: str) -> int | None:
    """How many partitions the survey of a source found, or None before it is complete."""
    manifest = root / f"steps/{source}/survey/manifest.json"
    if not manifest.exists():
        return None
    receipts = json.loads(manifest.read_bytes())["receipts"]
    return sum(len(json.loads((root / file["path"]).read_bytes())) for receipt in receipts for file in receipt["files"])


def funnel(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Source -> level -> in, kept, dropped by reason, failed by reason.

    `rows` are counted where the origin is read; samples, nodes and images where shards are made, under the recipe's first
    policy (the others differ only in images that they cannot render).
    """
    recipe = locked_recipe(root)
    books: dict[str, dict[str, dict[str, Any]]] = {}
    for source in sorted(recipe.sources):
        lines = {
            **_counts(root, f"steps/{source}/read"),
            **(_counts(root, f"shards/{source}/{next(iter(recipe.policies))}") if recipe.policies else {}),
        }
        books[source] = {level: lines[level] for level in LEVELS if level in lines}
    return books


def _counts(root: Path, folder: str) -> dict[str, Any]:
    path = root / folder / "manifest.json"
    return json.loads(path.read_bytes())["counts"] if path.exists() else {}


def added(books: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Count]:
    """The books of all sources in one."""
    whole: dict[str, Count] = {}
    for lines in books.values():
        for level, line in lines.items():
            whole.setdefault(level, Count()).add(Count.from_json(line))
    return whole


def tables(root: Path) -> Iterator[Table]:
    """What `vlmill status` prints: partitions done per source and step, then the funnel."""
    yield _steps(root)
    books = funnel(root)
    if not any(books.values()):
        return
    table = Table(title="Funnel", title_justify="left")
    for name, justify in (
        ("source", "left"),
        ("", "left"),
        ("in", "right"),
        ("kept", "right"),
        ("dropped", "right"),
        ("failed", "right"),
        ("why", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for source, lines in books.items():
        for level, line in lines.items():
            _funnel_row(table, source if level == next(iter(lines)) else "", level, line)
        table.add_section()
    for level, count in added(books).items():
        _funnel_row(table, "all" if level == "rows" else "", level, count.to_json())
    yield table


def _steps(root: Path) -> Table:
    """A line per source: its steps in the order of their work, with the partitions that are there."""
    table = Table(
        title="Partitions",
        title_justify="left",
        caption="n: complete; n/m: to be continued by the same build command",
        caption_justify="left",
    )
    table.add_column("source")
    table.add_column("steps")
    recipe = locked_recipe(root)
    judges = [judge.name for judge in recipe.judging()]
    order = [
        "survey",
        "read",
        "fetch",
        "retry",
        "inspect",
        *judges,
        "sketch",
        "contamination",
        "decontaminate",
        "candidates",
        "pairs",
        "resolve",
        *recipe.policies,
        "select",
        "mix",
        "plan",
        "lock",
    ]
    lines: dict[str, list[tuple[int, str]]] = {}
    for step in progress(root):
        source, *names = step.folder.split("/")[1:]
        rank = next((place for place, name in enumerate(order) if name in names), len(order))
        complete = (root / step.folder / "manifest.json").exists()
        count = f"{step.done:,}" if complete else f"{step.done:,}/{step.parts if step.parts is not None else '?'}"
        lines.setdefault(source, []).append((rank, f"{' '.join(names)} {count}"))
    for source, steps in lines.items():
        table.add_row(source, ", ".join(text for _, text in sorted(steps)))
    return table


def _funnel_row(table: Table, source: str, level: str, line: dict[str, Any]) -> None:
    lost = sorted({**line["dropped"], **line["failed"]}.items(), key=lambda item: (-item[1], item[0]))
    why = ", ".join(f"{reason} {number:,}" for reason, number in lost)
    table.add_row(
        source,
        level,
        f"{line['in']:,}",
        f"{line['kept']:,}",
        f"{sum(line['dropped'].values()):,}",
        f"{sum(line['failed'].values()):,}",
        why,
    )
