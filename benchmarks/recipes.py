"""All entries of a complete recipe's mixtures, built from stand-ins: `python -m benchmarks.recipes [RECIPE ...]`.

Each stage's plan is compared with what was published, entry by entry: shares within a sample, repeats within a sample
of what there is. Exits with 1 where one differs. `--train` keeps a few entries of each mixture, trains every stage on
them and loads its export, as the tests do with one recipe of each family. Run it in a clone, since the stand-ins lie
under `tests`. A recipe of 60 sets takes about half a minute of a core.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.helpers.complete_recipes import SmallBuild, build_small, list_complete_recipes, list_planned
from tests.helpers.hub import Hub
from tests.helpers.standins.serve import use_hub
from tests.train.test_complete_recipes import assert_trained


def compare_stages(built: SmallBuild) -> Iterator[tuple[Table, int]]:
    """Of each stage with a published mixture a table, and how many of its entries are not what was published."""
    for stage in built.data["stages"]:
        published = built.published.get(stage["name"])
        if not published:
            continue
        stats = json.loads((built.run / "mixtures" / stage["name"] / "stats.json").read_text(encoding="utf-8"))
        table, wrong = (
            Table("entry", "there are", "asked for", "planned", "declared", "realised", title=stage["name"]),
            0,
        )
        planned = list_planned(stats, published, stage["mixture"]["epochs"])
        for source, (label, amount, wanted, sample) in zip(stats["sources"], planned, strict=True):
            wrong += abs(amount - wanted) > sample
            shares = f"{source['declared']:.3%}", f"{source['realised'][stats['unit']]:.3%}"
            table.add_row(label, f"{source['available']['samples']}", f"{wanted:.2f}", f"{amount}", *shares)
        yield table, wrong


def main() -> int:
    """Build, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=list_complete_recipes())
    parser.add_argument("--train", action="store_true", help="train on a few entries, in place of comparing all")
    parser.add_argument("--rows", type=int, default=12, help="of a usual stand-in")
    options = parser.parse_args()
    console, wrong = Console(), 0
    for name in options.recipes:
        with tempfile.TemporaryDirectory() as folder, Hub() as hub, use_hub(hub, Path(folder) / "cache"):
            place = Path(folder) / name
            place.mkdir()
            if options.train:
                assert_trained(build_small(name, hub, place, rows=options.rows))
                console.print(f"{name}: trained, and its exports load")
                continue
            for table, differ in compare_stages(build_small(name, hub, place, most=None, rows=options.rows)):
                console.print(table)
                wrong += differ
    if not options.train:
        console.print(f"{wrong} entries are not what was published")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
