"""What a build found of its benchmarks in its training data: per benchmark and source, with examples.

Reads findings alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.sample import read_image_stats, read_rows
from vlmill.pipeline.core.step import Count
from vlmill.pipeline.decontaminate.contamination import ContaminationFinding, read_findings
from vlmill.pipeline.decontaminate.index import FOLDER
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.store import total_counts
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.schema import Recipe


@dataclass
class Contact:
    """What one source has of one benchmark: pairs of a sample's id and an item's, by how they were found."""

    pairs: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: {"image": set(), "text": set()})

    def to_json(self, examples: int) -> dict[str, Any]:
        """Counts of items and samples, and the first examples by sample and item."""
        image, text = self.pairs["image"], self.pairs["text"]
        lines: dict[str, Any] = {
            f"{what}_by_{how}": len({pair[place] for pair in pairs})
            for place, what in enumerate(("samples", "items"))
            for how, pairs in (("image", image), ("text", text), ("both", image & text), ("any", image | text))
        }
        found = sorted(image | text)[:examples]
        shown = [
            {
                "sample": sample,
                "item": item,
                "by": [how for how, pairs in self.pairs.items() if (sample, item) in pairs],
            }
            for sample, item in found
        ]
        return {**lines, "examples": shown}


def read_contamination(root: Path, examples: int) -> dict[str, Any]:
    """`{"action", "benchmarks": {name: {"items", "unread", "sources": {source: counts and examples}}}}`.

    The name has the split in it.

    `unread` says what could not be compared with anything: how many `rows` and `images` came, and how many of them were
    lost, by reason.

    Raises:
        StoreError: the run has no such block, or has not come so far.
    """
    recipe = read_locked_recipe(root)
    against = recipe.decontaminate
    if against is None:
        raise StoreError(
            f"{root} was compared with no benchmark: add a decontaminate block to its recipe, such as against: "
            "benchmarks"
        )
    contacts = dict[str, dict[str, Contact]]()
    for source in sorted(recipe.sources):
        for finding in _read_findings(root, source):
            contact = contacts.setdefault(finding.benchmark, {}).setdefault(source, Contact())
            contact.pairs[finding.kind].add((finding.id, finding.item))
    items = _count_items(root)
    benchmarks = {
        name: {
            "items": items.get(name, 0),
            "unread": count_unread(root, name),
            "sources": {source: contact.to_json(examples) for source, contact in contacts.get(name, {}).items()},
        }
        for name in list_splits(recipe)
    }
    return {"action": against.action, "benchmarks": benchmarks}


def list_splits(recipe: Recipe) -> list[str]:
    """The benchmarks of a recipe with their splits, as findings name them."""
    settings = recipe.decontaminate
    return sorted(split for name, of in settings.against.items() for split in of.splits(name)) if settings else []


def count_unread(root: Path, name: str) -> dict[str, dict[str, Any]]:
    """What of a benchmark could not be had: `{"rows": {"in", "lost": {reason: n}}, "images": the same}`.

    Raises:
        StoreError: it was not read to its end.
    """
    folder = f"steps/{FOLDER}/{name}"
    rows, images = total_counts(read_manifest(root, f"{folder}/read"))["rows"], Count()
    for receipt in read_manifest(root, f"{folder}/image_stats"):
        for file in receipt.files:
            for stats in read_image_stats(root / file.path, ()):
                images.keep() if stats.reason is None else images.lose(stats.reason)
    return {
        level: {"in": count.came, "lost": {str(reason): number for reason, number in sorted(count.lost.items())}}
        for level, count in (("rows", rows), ("images", images))
    }


def list_warnings(root: Path, recipe: Recipe) -> Iterator[str]:
    """A line for each benchmark of which something could not be had: what was not looked for cannot be found.

    Raises:
        StoreError: one was not read to its end.
    """
    for name in list_splits(recipe):
        for level, count in count_unread(root, name).items():
            if count["lost"]:
                lost = sum(count["lost"].values())
                why = ", ".join(f"{reason} {number:,}" for reason, number in count["lost"].items())
                yield (
                    f"{name}: {lost:,} of {count['in']:,} {level} could not be read ({why}), and nothing was "
                    "compared with them"
                )


def _read_findings(root: Path, source: str) -> Iterator[ContaminationFinding]:
    for receipt in read_manifest(root, f"steps/{source}/contamination"):
        for file in receipt.files:
            yield from read_findings(root / file.path)


def _count_items(root: Path) -> dict[str, int]:
    """How many samples each benchmark has."""
    found = dict[str, set[str]]()
    for receipt in read_manifest(root, f"steps/{FOLDER}/index"):
        for file in receipt.files:
            if file.name == "items.parquet":
                for row in read_rows(root / file.path, ["benchmark", "id"]):
                    found.setdefault(row["benchmark"], set()).add(row["id"])
    return {name: len(ids) for name, ids in sorted(found.items())}


def make_contamination_table(found: dict[str, Any]) -> Table:
    """The report for people: a line per benchmark and source."""
    made = Table(
        title=f"Contamination (action: {found['action']})",
        title_justify="left",
        caption="by image, by text and by both, of the items and of the samples touched",
        caption_justify="left",
    )
    for name in ("benchmark", "of", "source", "items", "image", "text", "both", "samples", "image", "text", "both"):
        made.add_column(name, justify="left" if name in {"benchmark", "source"} else "right")
    for name, benchmark in found["benchmarks"].items():
        for source, line in benchmark["sources"].items() or [("none", None)]:
            counts = (
                f"{line[f'{what}_by_{how}']:,}" if line else "0"
                for what in ("items", "samples")
                for how in ("any", "image", "text", "both")
            )
            made.add_row(name, f"{benchmark['items']:,}", source, *counts)
    return made


def format_examples(found: dict[str, Any]) -> Iterator[str]:
    """The examples for people."""
    for name, benchmark in found["benchmarks"].items():
        for line in benchmark["sources"].values():
            for example in line["examples"]:
                yield f"{name}: {example['sample']} has {example['item']} (by {' and '.join(example['by'])})"
