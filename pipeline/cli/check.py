"""The command that looks at a recipe and its files before any work: check."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vlmill.pipeline.cli.arguments import FilterFiles, JsonFlag, console, parse_pairs, print_json
from vlmill.pipeline.core.errors import VlmillError


def check(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe such as quickstart.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where the run is to go, for its disk. Default: build/ and the name.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Take the files of a source from elsewhere, as build does."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows of each source.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace one value of the recipe.")
    ] = None,
    filter_: FilterFiles = None,
    show: Annotated[
        bool,
        typer.Option("--show", help="Print the effective recipe instead, every value with its file and line."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say all that is wrong with a recipe and the files that it names, and about how many rows and images there are.

    Writes nothing.

    Of each source the first rows of its first file are read; no image is fetched. It ends with an error if anything is
    wrong.

        vlmill check quickstart
        vlmill check my.yaml --source web=/data/obelics --limit 1000
        vlmill check my.yaml --show
    """
    from vlmill.pipeline.cli.show import show_recipe
    from vlmill.pipeline.filters.custom import read_code
    from vlmill.pipeline.recipe.load import load_recipe
    from vlmill.pipeline.reports.check import check_inputs, make_check_table
    from vlmill.train.validate import validate

    filters = [(Path(path).name, read_code(path)) for path in filter_ or []]
    if show:
        show_recipe(recipe, parse_pairs(source, "--source"), limit, parse_pairs(set_, "--set"), filters)
        return
    loaded, _, base = load_recipe(recipe, parse_pairs(source, "--source"), limit, parse_pairs(set_, "--set"), filters)
    faults = list[str]()
    try:
        validate(loaded)
    except VlmillError as error:
        faults.append(str(error))
    result = check_inputs(loaded, base, out or Path("build") / loaded.name)
    faults += result.faults
    if as_json:
        print_json({"faults": faults, "sources": [asdict(found) for found in result.estimates], "free": result.free})
    else:
        console.print(make_check_table(result))
        console.print(
            "Samples and images are those of the rows that were read, times all rows; before any filter.", markup=False
        )
    if faults:
        raise VlmillError("\n".join(faults))
