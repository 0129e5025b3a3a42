"""The command that shows which benchmark items a build found in its training data: contamination."""

from __future__ import annotations

from typing import Annotated

import typer

from vlmill.pipeline.cli.arguments import Folder, JsonFlag, console, print_json


def contamination(
    directory: Folder,
    as_json: JsonFlag = False,
    samples: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Show up to N pairs of a training sample and a benchmark item for each line."
        ),
    ] = 0,
) -> None:
    """Show which benchmark items a run's training data holds: items and samples affected, by image and by text.

    The recipe's decontaminate block names the benchmarks.
    `action: report` keeps what is found, `action: drop` drops it.

        vlmill contamination demo
        vlmill contamination demo --samples 5
        vlmill trace demo ID
    """
    from vlmill.pipeline.recipe.lock import read_locked_recipe
    from vlmill.pipeline.reports.contamination import (
        format_examples,
        list_warnings,
        make_contamination_table,
        read_contamination,
    )

    found = read_contamination(directory, samples)
    if as_json:
        print_json(found)
        return
    console.print(make_contamination_table(found))
    for line in list_warnings(directory, read_locked_recipe(directory)):
        console.print(line, markup=False)
    for line in format_examples(found):
        console.print(line, markup=False)
