"""The command that describes recipes to editors and people: schema."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vlmill.pipeline.cli.arguments import print_json


def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference of recipes for people.")] = False,
) -> None:
    """Print the JSON Schema of recipes, from which editors complete keys and mark mistakes.

    Put the comment yaml-language-server: $schema=recipe.schema.json into the first line of a recipe.

        vlmill schema > recipe.schema.json
        vlmill schema --markdown > recipe.md
    """
    from vlmill.pipeline.recipe.reference import write_reference

    if markdown:
        typer.echo(write_reference(describe_recipe()), nl=False)
    else:
        print_json(describe_recipe())


def describe_recipe() -> dict[str, Any]:
    """The JSON Schema of a recipe with the blocks of all three packages."""
    from vlmill.mixtures.config import MixtureSettings
    from vlmill.pipeline.recipe.json_schema import make_json_schema
    from vlmill.train.settings import ModelSettings, Training

    return make_json_schema(ModelSettings, MixtureSettings, Training)
