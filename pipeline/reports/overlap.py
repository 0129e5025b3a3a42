"""What sources have in common, read from where dedupe counted it. A section of `vlmill report`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.table import Table

from vlmill.pipeline.core.errors import NotBuiltError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.reports.funnel import format_share


@dataclass(frozen=True, slots=True)
class SourceOverlap:
    """How many different images or texts of one source are in another source too, before dedupe dropped any."""

    content: Literal["images", "texts"]
    source: str
    size: int  # different images or texts of the source
    other: str  # the source itself for repetitions within it
    exact: int  # of `size`: those that `other` has too
    near: int  # of `size`: those to which `other` has the same or a similar one, by the recipe's thresholds


def read_overlap(root: Path) -> tuple[SourceOverlap, ...]:
    """Every pair of sources, also those with nothing in common: images before texts, sources sorted.

    Raises:
        NotBuiltError: dedupe is not done, or the recipe has none.
    """
    if read_locked_recipe(root).dedupe is None:
        raise NotBuiltError(f"{root}: its recipe says dedupe: null, so nothing was compared; give it a dedupe block")
    files = (file for receipt in read_manifest(root, "steps/dedupe/resolve") for file in receipt.files)
    (path,) = (root / file.path for file in files if file.name == "overlap.json")
    return tuple(_list_pairs(json.loads(path.read_bytes())))


def _list_pairs(found: Mapping[str, Mapping[str, Any]]) -> Iterator[SourceOverlap]:
    contents: tuple[Literal["images", "texts"], ...] = ("images", "texts")
    for content in contents:
        counts = found[content]
        for source, size in counts["sources"].items():
            for other in counts["sources"]:
                exact, near = (counts[degree][source][other] for degree in ("exact", "near"))
                yield SourceOverlap(content, source, size, other, exact, near)


def list_uncompared(root: Path) -> Iterator[str]:
    """What dedupe found worth comparing and did not compare, a line for each kind of content.

    Raises:
        NotBuiltError: dedupe is not done.
    """
    lost = Counter[str]()
    for step, ending in (("candidates", "_candidates"), ("pairs", "_pairs")):
        for receipt in read_manifest(root, f"steps/dedupe/{step}"):
            for level, count in receipt.counts.items():
                lost[level.removesuffix(ending)] += count["dropped"].get(Reason.PAIR_CAP, 0)
    for kind, called in (("image", "pictures"), ("text", "texts"), ("contained", "texts and longer ones")):
        if lost[kind]:
            yield (
                f"{lost[kind]:,} pairs of {called} that look alike are beyond the cap ({Reason.PAIR_CAP}) and were not "
                f"compared: each is compared with those that look most like it; a higher `dedupe.cap` compares more"
            )


def make_overlap_table(found: Sequence[SourceOverlap]) -> Table:
    """A line for each pair of sources that have something in common."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("content", "source", "are in"):
        table.add_column(name, overflow="fold")
    for name in ("different", "exact", "exact or near"):
        table.add_column(name, justify="right", no_wrap=True)
    for pair in found:
        if pair.near:
            shared = (f"{number:,} {format_share(number, pair.size):>6}" for number in (pair.exact, pair.near))
            place = "itself" if pair.other == pair.source else pair.other
            table.add_row(pair.content, pair.source, place, f"{pair.size:,}", *shared)
    return table
