"""What several commands share: the console, arguments, and how they print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.terminal import format_json, make_console

WIDE = 160
"""Columns of a table that goes to a file or a pipe."""

console = make_console(width=None if sys.stdout.isatty() else WIDE)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The run's folder, as given to build --out.")]
RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file, the name of a shipped recipe such as quickstart, or hf://datasets/OWNER/NAME.",
    ),
]
SourcePlaces = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="NAME=PATH",
        help="Read a source or benchmark from another place: a folder, a file or a pattern, local or anything "
        "fsspec reads, or hf://datasets/OWNER/NAME@REVISION. NAME may be a pattern, such as 'the_cauldron-*'.",
    ),
]
RowLimit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N rows of each source.")]
Scale = Annotated[
    float | None,
    typer.Option(
        "--scale",
        min=0,
        max=1,
        help="Only this fraction of each source's rows, chosen by hash, and of every budget: shares stay the same. "
        "Training steps and warm-up are scaled too.",
    ),
]
RecipeValues = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace one value of the recipe, for example language.in_doubt=drop; a filter is named as it is, or with "
        "`filters.` before it.",
    ),
]
FilterFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="FILE",
        help="A Python file with custom filters, signals or sources. A filter is asked last, or where the "
        "recipe's filters name it; a source is read where the recipe names its kind.",
    ),
]
TrustCode = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-code",
        metavar="SHA256",
        help="Run the code with this sha256 that the run's lock holds, in place of --filter FILE. Look at it first.",
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def parse_pairs(given: list[str] | None, option: str, *, only: bool = False) -> dict[str, str]:
    """Read NAME=VALUE arguments as a mapping; `only`: whether the command has an option --only for one source."""
    found = {}
    for item in given or []:
        name, equals, value = item.partition("=")
        if not (name and equals):
            alone = f"; this source alone: --only {item}" if option == "--source" and name and only else ""
            raise RecipeError(f"{option} {item}: give a name, = and a value{alone}")
        found[name] = value
    return found


def get_command(context: typer.Context) -> list[str]:
    """The words of the command that was given, so that a message can repeat it with more options."""
    said = ["vlmill", str(context.info_name)]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        option = parameter.opts[-1]
        for item in value if isinstance(value, list | tuple) else [value]:
            if item is None or item is False or item == parameter.default:
                continue
            said += [*([option] if option.startswith("-") else []), *([] if item is True else [str(item)])]
    return said


def print_json(value: Any) -> None:
    """Write a value with sorted keys to standard output."""
    sys.stdout.write(format_json(value) + "\n")


def format_scale(scale: float | None) -> dict[str, str]:
    """What `--scale` sets in a recipe."""
    return {} if scale is None else {"scale": repr(scale)}
