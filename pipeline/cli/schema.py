"""The command that describes recipes to editors and people: schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from vlmill.pipeline.cli.arguments import print_json


def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference of recipes for people.")] = False,
    filter_: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="FILE",
            help="A file with sources or signals of yours, whose kinds the schema then knows. Nothing in it runs. May "
            "be given several times.",
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of recipes, from which editors complete keys and mark mistakes.

    Put the comment yaml-language-server: $schema=recipe.schema.json into the first line of a recipe.

        vlmill schema > recipe.schema.json
        vlmill schema --filter cards.py > recipe.schema.json
        vlmill schema --markdown > recipe.md
    """
    from vlmill.pipeline.recipe.reference import write_reference

    if markdown:
        typer.echo(write_reference(describe_recipe()), nl=False)
    else:
        print_json(describe_recipe(filter_ or []))


def describe_recipe(files: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON Schema of a recipe with the blocks of all three packages, and with kinds in files of a user.

    Raises:
        RecipeError: a file cannot be read.
    """
    from vlmill.mixtures.config import MixtureSettings
    from vlmill.pipeline.filters.custom import read_code
    from vlmill.pipeline.recipe.json_schema import add_custom_kinds, make_json_schema
    from vlmill.train.settings import ModelSettings, Training

    made = make_json_schema(ModelSettings, MixtureSettings, Training)
    return add_custom_kinds(made, [read_code(file) for file in files])
