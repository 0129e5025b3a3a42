"""The command that says what another setting would keep: what-if."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmill.pipeline.cli.arguments import (
    FilterFiles,
    JsonFlag,
    TrustCode,
    console,
    get_command,
    parse_pairs,
    print_json,
)
from vlmill.pipeline.core.errors import RecipeError

if TYPE_CHECKING:
    from vlmill.pipeline.reports.what_if import WhatIfAnswer


def what_if(
    context: typer.Context,
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="The recipe that the run was built from, or the run's folder.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another setting of a filter or of dedupe, or decontaminate.action; for example "
            "language.sample_share=0.5. A filter that the recipe does not name is asked last.",
        ),
    ] = None,
    filter_: FilterFiles = None,
    trust_code: TrustCode = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder. Default: build/ and the recipe's name, as in build.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what another threshold would keep, in seconds: from an existing run's tables, without decoding images.

    Filters with other settings are asked again, duplicates are resolved again, and nothing is written. Where
    something would change, the command is named that builds with it.

        vlmill what-if quickstart --out demo --set shape.max_ratio=2
        vlmill what-if demo --set dedupe.text=0.7 --set dedupe.boilerplate=5
        vlmill what-if demo --set text_quality.node.min_words=4
        vlmill what-if run --set decontaminate.action=drop
        vlmill what-if demo --filter my_filter.py --set my_filter.share=0.9
    """
    from vlmill.pipeline.filters.custom import find_named_code
    from vlmill.pipeline.recipe.mapping import LOCK, find_run, read_held_code
    from vlmill.pipeline.reports.what_if import answer_what_if, make_build_command
    from vlmill.pipeline.reports.what_if_table import NOTHING, make_tables
    from vlmill.pipeline.reports.what_if_verdicts import BUILD

    found = find_run(recipe, out)
    held = read_held_code(found / LOCK)
    filters = find_named_code(filter_ or [], trust_code or [], held)
    command = make_build_command(recipe, found, held, filter_ or [], trust_code or [], set_ or [])
    try:
        root, answer = answer_what_if(recipe, out, parse_pairs(set_, "--set"), filters, get_command(context))
    except RecipeError as error:
        raise RecipeError(*(fault.replace(BUILD, command) for fault in error.faults)) from error
    if as_json:
        print_json(_make_json(root, answer))
        return
    for table in make_tables(answer):
        console.print(table)
    if not answer.changes:
        console.print(NOTHING)
    else:
        console.print(f"To apply it: {command}", markup=False, soft_wrap=True)
    for note in answer.notes:
        console.print(f"note: {note}", markup=False)


def _make_json(root: Path, answer: WhatIfAnswer) -> dict[str, Any]:
    return {"run": str(root), "asked": list(answer.asked), "sources": asdict(answer)["sources"], "notes": answer.notes}
