"""What a build found of its benchmarks in its training data: per benchmark and source, with examples. Reads findings alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from pipeline.decontaminate.contamination import Finding, read_findings
from pipeline.decontaminate.index import FOLDER
from pipeline.errors import StoreError
from pipeline.lanes import read_manifest
from pipeline.recipe import locked_recipe
from pipeline.sample import read_rows


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


def report(root: Path, examples: int) -> dict[str, Any]:
    """`{"action", "benchmarks": {name: {"items", "sources": {source: counts and examples}}}}`. The name has the split in it.

    Raises:
        StoreError: the run has no such block, or has not come so far.
    """
    recipe = locked_recipe(root)
    against = recipe.decontaminating()
    if against is None:
        raise StoreError(
            f"{root} was held against no benchmark: add a decontaminate block to its recipe, such as against: benchmarks"
        )
    contacts = dict[str, dict[str, Contact]]()
    for source in sorted(recipe.sources):
        for finding in _findings(root, source):
            contact = contacts.setdefault(finding.benchmark, {}).setdefault(source, Contact())
            contact.pairs[finding.kind].add((finding.id, finding.item))
    books = {
        name: {
            "items": items,
            "sources": {source: contact.to_json(examples) for source, contact in contacts.get(name, {}).items()},
        }
        for name, items in _items(root).items()
    }
    return {"action": against.action, "benchmarks": books}


def _findings(root: Path, source: str) -> Iterator[Finding]:
    for receipt in read_manifest(root, f"steps/{source}/contamination"):
        for file in receipt.files:
            yield from read_findings(root / file.path)


def _items(root: Path) -> dict[str, int]:
    """How many samples each benchmark has."""
    found = dict[str, set[str]]()
    for receipt in read_manifest(root, f"steps/{FOLDER}/index"):
        for file in receipt.files:
            if file.name == "items.parquet":
                for row in read_rows(root / file.path, ["benchmark", "id"]):
                    found.setdefault(row["benchmark"], set()).add(row["id"])
    return {name: len(ids) for name, ids in sorted(found.items())}


def table(found: dict[str, Any]) -> Table:
    """The report for people: a line per benchmark and source."""
    made = Table(
        title=f"Contamination (action: {found['action']})",
        title_justify="left",
        caption="by image, by text and by both, of the items and of the samples touched",
        caption_justify="left",
    )
    for name in ("benchmark", "of", "source", "items", "image", "text", "both", "samples", "image", "text", "both"):
        made.add_column(name, justify="left" if name in {"benchmark", "source"} else "right")
    for name, book in found["benchmarks"].items():
        for source, line in book["sources"].items() or [("none", None)]:
            counts = (
                f"{line[f'{what}_by_{how}']:,}" if line else "0"
                for what in ("items", "samples")
                for how in ("any", "image", "text", "both")
            )
            made.add_row(name, f"{book['items']:,}", source, *counts)
    return made


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The examples for people."""
    for name, book in found["benchmarks"].items():
        for line in book["sources"].values():
            for example in line["examples"]:
                yield f"{name}: {example['sample']} has {example['item']} (by {' and '.join(example['by'])})"
