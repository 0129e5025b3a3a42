"""The command that shows what sources have in common: overlap."""

from __future__ import annotations

from typing import Annotated

import typer

from vlmill.pipeline.cli.arguments import Folder, JsonFlag, console, print_json


def overlap(
    directory: Folder,
    as_json: JsonFlag = False,
    counts: Annotated[bool, typer.Option("--counts", help="Numbers instead of shares.")] = False,
) -> None:
    """Show how many of the images and texts of one source stand in another too, the same or similar, before dedupe dropped any.

    A row's source asks, a column's answers: "quiz, web 12%" says that 12% of quiz's images stand in web. On the diagonal: those
    that come again within their source. Similar is what the recipe's dedupe block calls so, and counts the same as well.

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
