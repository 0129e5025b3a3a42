"""What sources have in common, read from where dedupe counted it, with shares, and as tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.recipe.lock import read_locked_recipe

DEGREES = {"exact": "the same", "near": "the same or similar"}


def read_overlap(root: Path) -> dict[str, Any]:
    """The overlap of sources, as `vlmill overlap --json` prints it.

    `{"images" and "texts": {"sources": {source: contents}, "exact" and "near": {row: {column: {"count", "share"}}}}}`.

    Raises:
        StoreError: dedupe is not done, or the recipe has none.
    """
    if read_locked_recipe(root).dedupe is None:
        raise StoreError(f"{root}: its recipe says dedupe: null, so nothing was compared; give it a dedupe block")
    (receipt,) = read_manifest(root, "steps/dedupe/resolve")
    (path,) = (root / file.path for file in receipt.files if file.name == "overlap.json")
    found = json.loads(path.read_bytes())
    return {thing: _add_shares(counts) for thing, counts in found.items()}


def _add_shares(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Each number with its share of the row's source."""
    sizes = counts["sources"]
    shared = {
        degree: {
            row: {column: {"count": number, "share": round(number / sizes[row], 6)} for column, number in cells.items()}
            for row, cells in counts[degree].items()
        }
        for degree in DEGREES
    }
    return {"sources": sizes, **shared}


def make_overlap_tables(found: Mapping[str, Any], *, counts: bool = False) -> Iterator[Table]:
    """A table for each kind of content and degree of likeness: rows stand in columns."""
    for thing, matrix in found.items():
        for degree, words in DEGREES.items():
            table = Table(
                title=f"{thing}, {words}: how many of a row's stand in a column's source", title_justify="left"
            )
            table.add_column("source")
            table.add_column(thing, justify="right")
            for source in matrix["sources"]:
                table.add_column(source, justify="right")
            for row, size in matrix["sources"].items():
                cells = (matrix[degree][row][column] for column in matrix["sources"])
                table.add_row(row, f"{size:,}", *(f"{c['count']:,}" if counts else f"{c['share']:.2%}" for c in cells))
            yield table
