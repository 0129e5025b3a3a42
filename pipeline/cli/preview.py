"""The command that shows samples of a recipe before any build: preview."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmill.pipeline.cli.arguments import FilterFiles, RecipeName, RecipeValues, SourcePlaces, console, parse_pairs
from vlmill.pipeline.cli.hub_recipe import take_recipe
from vlmill.pipeline.core.errors import RecipeError, VlmillError


def preview(
    recipe: RecipeName,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, max=100, help="Samples of each source.")] = 3,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="NAME", help="Only this source.")] = None,
    spread: Annotated[
        bool,
        typer.Option("--spread", help="Rows from all over the first file, chosen by hash; otherwise its first rows."),
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", file_okay=False, help="Write a page for a browser into this folder as well."),
    ] = None,
    source: SourcePlaces = None,
    set_: RecipeValues = None,
    filter_: FilterFiles = None,
) -> None:
    """Show a few samples of each source as filters, image policy and trainer would have them, before any build.

    The steps of a build run over a few rows in a temporary folder. Images are requested as the recipe's fetch block
    says. Duplicates are not looked for, and no model is asked. Nothing is written but the page.

        vlmill preview my.yaml
        vlmill preview my.yaml -n 10 --spread --only web
        vlmill preview my.yaml --page look/
        vlmill preview my.yaml --filter short_answers.py
    """
    from vlmill.pipeline.checks.preview import SourcePreview, preview_source
    from vlmill.pipeline.checks.preview_text import list_lines
    from vlmill.pipeline.filters.custom import find_named_code
    from vlmill.pipeline.page.preview import write_preview
    from vlmill.pipeline.recipe.load import load_recipe
    from vlmill.pipeline.recipe.mapping import find_recipe, read_held_code
    from vlmill.pipeline.recipe.other_names import offer_names

    name = take_recipe(recipe, writes=False)
    code = find_named_code(filter_ or [], [], read_held_code(find_recipe(name)))
    loaded, _, base = load_recipe(
        name, parse_pairs(source, "--source", only=True), sets=parse_pairs(set_, "--set"), filters=code
    )
    if unknown := [one for one in only or [] if one not in loaded.sources]:
        raise RecipeError(
            f"--only {unknown[0]}: the recipe has no such source; {offer_names(loaded, unknown[0], loaded.sources)}"
        )
    found, faults = list[SourcePreview](), list[str]()
    for one in only or loaded.sources:
        try:
            shown = preview_source(loaded, base, one, samples, spread=spread)
        except VlmillError as error:  # the other sources are shown all the same
            faults.append(str(error))
            continue
        found.append(shown)
        for line in list_lines(shown, pictures=console.is_terminal and console.color_system is not None):
            console.print(line, markup=False, soft_wrap=True)
        console.print()
    if page is not None and found:
        console.print(f"wrote {write_preview(page, loaded.name, found)}", markup=False)
    if faults:
        raise VlmillError(*faults)
