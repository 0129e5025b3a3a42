"""The command that shows what sources have in common: overlap."""

from __future__ import annotations

from typing import Annotated

import typer

from vlmill.pipeline.cli.arguments import Folder, JsonFlag, console, print_json


def overlap(
    directory: Folder,
    as_json: JsonFlag = False,
    counts: Annotated[bool, typer.Option("--counts", help="Print numbers instead of percentages.")] = False,
) -> None:
    """Show how many images and texts of one source are in another too, the same or similar, before dedupe dropped any.

    In the row "quiz", 12% under "web" says that 12% of quiz's images are in web too. The diagonal counts repetitions
    within a source. Similar is decided by the recipe's dedupe thresholds, and includes the same.

        vlmill overlap demo
        vlmill overlap demo --json
    """
    from vlmill.pipeline.reports.overlap import make_overlap_tables, read_overlap

    found = read_overlap(directory)
    if as_json:
        print_json(found)
        return
    for table in make_overlap_tables(found, counts=counts):
        console.print(table)
