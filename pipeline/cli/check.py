"""The command that looks at a recipe and its files before any work: check."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vlmill.pipeline.cli.arguments import (
    FilterFiles,
    JsonFlag,
    RecipeName,
    RecipeValues,
    RowLimit,
    Scale,
    SourcePlaces,
    TrustCode,
    console,
    format_scale,
    parse_pairs,
    print_json,
)
from vlmill.pipeline.cli.hub_recipe import take_recipe
from vlmill.pipeline.core.errors import VlmillError


def check(
    recipe: RecipeName,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the run is to go: for its disk, and for what a build keeps there. Default: build/ and the name."
        ),
    ] = None,
    source: SourcePlaces = None,
    limit: RowLimit = None,
    scale: Scale = None,
    set_: RecipeValues = None,
    filter_: FilterFiles = None,
    show: Annotated[
        bool,
        typer.Option("--show", help="Print the effective recipe instead, every value with its file and line."),
    ] = False,
    trust_code: TrustCode = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Those of the build whose hours are estimated.")] = None,
    from_run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Extrapolate the whole run from a run of the recipe at a --scale."),
    ] = None,
    ranks: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Say instead what each stage's training holds on so many ranks and computes in a step. No weights "
            "are read.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say all that is wrong with a recipe and what it names, all at once, and about what a build of it comes to.

    Writes nothing and requests no image.

    The first rows of the first file of each source go through the steps of a build in a temporary folder, for a few
    seconds each. From what they took follow rows, images, bytes of disk, tokens and hours of a build from nothing. If
    the folder holds a run already, it says what a build there keeps and what runs again. It ends with an error if
    anything is wrong; `vlmill build` asks the same, the estimate aside, before it writes anything.

        vlmill check quickstart
        vlmill check my.yaml --source web=/data/obelics --limit 1000
        vlmill build my.yaml --out try --scale 0.001 && vlmill check my.yaml --from-run try
        vlmill check my.yaml --out run --set dedupe.text=0.7
        vlmill check my.yaml --show
        vlmill check my.yaml --ranks 8
    """
    if from_run is not None:
        _show_extrapolation(from_run, workers, as_json=as_json)
        return
    from vlmill.api.checks import check_recipe
    from vlmill.pipeline.cli.show import show_recipe

    recipe = take_recipe(recipe, writes=False, said=not as_json)
    sets = parse_pairs(set_, "--set") | format_scale(scale)
    if show:
        show_recipe(recipe, parse_pairs(source, "--source"), limit, sets, filter_, trust_code)
        return
    if ranks is not None:
        _show_training(recipe, ranks, sets, as_json=as_json)
        return
    result = check_recipe(
        recipe,
        out,
        sources=parse_pairs(source, "--source"),
        limit=limit,
        settings=sets,
        filters=filter_ or [],
        trust_code=trust_code or [],
        workers=workers,
    )
    estimate = result.estimate
    if as_json:
        forecast = {"differences": result.differences, "forecast": [asdict(step) for step in result.forecast]}
        print_json(
            {
                "faults": result.faults,
                "warnings": result.warnings,
                **asdict(estimate),
                "totals": estimate.totals,
                **forecast,
            }
        )
    else:
        for part in result.list_parts(faults=False):
            console.print(part, markup=not isinstance(part, str), soft_wrap=isinstance(part, str))
    if result.faults:
        raise VlmillError(*result.faults)


def _show_training(recipe: str, ranks: int, sets: dict[str, str], *, as_json: bool) -> None:
    """Print what the training of each stage takes."""
    from vlmill.api.checks import estimate_training

    found = estimate_training(recipe, ranks, settings=sets)
    if as_json:
        print_json({one.stage: asdict(one) for one in found})
    for one in found if not as_json else ():
        console.print(str(one), markup=False, soft_wrap=True)


def _show_extrapolation(root: Path, workers: int | None, *, as_json: bool) -> None:
    """Print what the whole run comes to, from a scaled one."""
    from vlmill.pipeline.checks.estimate import count_workers
    from vlmill.pipeline.checks.extrapolate import extrapolate_run, make_extrapolation_table

    found = extrapolate_run(root)
    if as_json:
        print_json(asdict(found))
        return
    console.print(make_extrapolation_table(found, count_workers(workers)))
    if all(one.read == one.rows for one in found.sources):
        said = f"{root} has all rows: this is what it holds and took, and nothing is extrapolated."
    else:
        said = (
            "Fewer samples will be kept: a scaled run finds fewer duplicates. Reading is estimated too high, since a "
            "part of a file costs more per row than all of it."
        )
    console.print(said, markup=False)
