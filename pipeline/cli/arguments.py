"""What commands have in common: the console, the arguments that several take, and how they print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from vlmill.pipeline.core.errors import RecipeError

WIDE = 160
"""Columns of a table that goes to a file or a pipe."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run, as given to build --out.")]
FilterFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="FILE",
        help="A Python file with a custom filter. The recipe may say where it is asked, and with what settings; else it comes last.",
    ),
]
TrustCode = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-code",
        metavar="SHA256",
        help="Run the filter's code of this sha256 that the run's lock holds, in place of naming its file. Look at it first.",
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def parse_pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """NAME=VALUE arguments as a mapping."""
    found = {}
    for item in given or []:
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise RecipeError(f"{option} {item}: give a name, = and a value")
        found[name] = value
    return found


def get_command(context: typer.Context) -> list[str]:
    """The command that was given, so that it can be given again with more."""
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
    sys.stdout.write(json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n")
