"""What sources lost as duplicates of a source that no stage uses: these things are in no mixture at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from vlmill.pipeline.core.names import VERDICTS_SUFFIX
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.recipe.schema import Recipe


def list_lost_to_unused(root: Path, recipe: Recipe) -> Iterator[str]:
    """A note for each source that a stage uses, and each that none does, whose things were kept in place of its own."""
    unused = [source for source in sorted(recipe.sources) if recipe.stages and not recipe.list_policies(source)]
    if not unused or recipe.dedupe is None:
        return
    lost = Counter[tuple[str, str]]()
    for receipt in read_manifest(root, "steps/dedupe/resolve"):
        for file in receipt.files:
            source = file.name.partition(".")[0]
            if file.name.endswith(VERDICTS_SUFFIX) and source not in unused:
                kept = pl.scan_parquet(root / file.path, glob=False).select(pl.col("other").str.extract("^([^/]+)/"))
                counts = kept.filter(pl.col("other").is_in(unused)).group_by("other").len().collect()
                lost.update({(source, keeper): number for keeper, number in counts.rows()})
    for (source, keeper), number in sorted(lost.items()):
        yield (
            f"{source}: {number:,} samples, texts and images went as duplicates of {keeper}, which no stage uses, so "
            f"they are in no mixture: name {keeper} in one, take it out of the recipe, or give it a higher priority "
            f"than {source} with --set sources.{keeper}.priority=NUMBER (of two the lower number is kept)"
        )
