"""The command `vlmill`: where the three packages are put together. The only room that may import all of them."""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.markup import escape

from vlmill.pipeline.cli.build import build
from vlmill.pipeline.cli.check import check
from vlmill.pipeline.cli.contamination import contamination
from vlmill.pipeline.cli.ledger import ledger
from vlmill.pipeline.cli.look import stats, status, trace, verify
from vlmill.pipeline.cli.mixture import diff, mixtures
from vlmill.pipeline.cli.overlap import overlap
from vlmill.pipeline.cli.schema import schema
from vlmill.pipeline.cli.takedown import takedown
from vlmill.pipeline.cli.training import ablate, evaluate, train
from vlmill.pipeline.cli.what_if import what_if
from vlmill.pipeline.core.errors import VlmillError

app = typer.Typer(
    name="vlmill",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="From raw vision-language data to per-stage training mixtures, their statistics, and a compact model.\n\n"
    "Start with: [bold]vlmill build quickstart --out demo[/bold], then [bold]vlmill stats demo[/bold], then [bold]vlmill train demo[/bold].",
)
for command in (
    check,
    build,
    status,
    ledger,
    what_if,
    stats,
    contamination,
    diff,
    overlap,
    trace,
    verify,
    takedown,
    train,
    evaluate,
    ablate,
    schema,
):
    app.command(command.__name__.replace("_", "-"))(command)
app.add_typer(mixtures, name="mixtures")


def main() -> None:
    """The console command: errors for people go to standard error without a stack trace, and end with 1."""
    try:
        app()
    except (VlmillError, OSError) as error:  # the latter: a full disk, no permission
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted. Run the same command again to go on.")
        sys.exit(130)
