"""The command `vlmill`: puts the three packages together. The only package that may import all of them."""

from __future__ import annotations

import inspect
import io
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup
from typer.exceptions import TyperException

import vlmill
from vlmill.api.wording import keep_options
from vlmill.pipeline.cli.arguments import console
from vlmill.pipeline.cli.build import build
from vlmill.pipeline.cli.check import check
from vlmill.pipeline.cli.clean import clean
from vlmill.pipeline.cli.disclose import disclose
from vlmill.pipeline.cli.explore import explore
from vlmill.pipeline.cli.export import export
from vlmill.pipeline.cli.look import stats, status, trace, verify
from vlmill.pipeline.cli.mixture import diff, mixtures
from vlmill.pipeline.cli.new import new
from vlmill.pipeline.cli.preview import preview
from vlmill.pipeline.cli.refused import explain_lack_of_memory, explain_place, note_options
from vlmill.pipeline.cli.report import report
from vlmill.pipeline.cli.schema import schema
from vlmill.pipeline.cli.takedown import takedown
from vlmill.pipeline.cli.training import ablate, evaluate, train
from vlmill.pipeline.cli.unbuilt import warn_unbuilt
from vlmill.pipeline.cli.what_if import what_if
from vlmill.pipeline.core.arrow import keep_pandas_out
from vlmill.pipeline.core.errors import VlmillError
from vlmill.pipeline.core.places import check_encodable, take_local_path, take_run_folder
from vlmill.pipeline.core.terminal import make_console
from vlmill.pipeline.core.termination import explain_interrupt, heed_sigterm

QUOTED = ". A shell takes values with blanks or braces apart: quote them, as in --set 'language={keep: [en, de]}'"

ANYWHERE = ("--quiet", "-q", "--verbose", "-v")


class Commands(TyperGroup):
    """All commands. `vlmill build RECIPE --quiet` is read as `vlmill --quiet build RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the options that every command has to the front."""
        end = args.index("--") if "--" in args else len(args)
        found = [option for option in args[:end] if option in ANYWHERE]
        return super().parse_args(ctx, [*found, *(one for one in args[:end] if one not in ANYWHERE), *args[end:]])

    def invoke(self, ctx: Any) -> Any:
        """Run a command; of too many arguments say what they mostly are."""
        try:
            return super().invoke(ctx)
        except TyperException as error:
            if "unexpected extra argument" in error.message:
                error.message += QUOTED
            raise


app = typer.Typer(
    name="vlmill",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Curate vision-language data, plan training mixtures, and train a compact model on them.\n\n"
    "Start with: [bold]vlmill build quickstart --out demo[/bold], then [bold]vlmill stats demo[/bold], then "
    "[bold]vlmill train demo[/bold].",
    epilog="Exit status: 0 done; 1 an error, or a check that found something; 2 a wrong option; 130 interrupted; "
    "143 ended by SIGTERM.",
)


VERBOSE: ContextVar[bool] = ContextVar("verbose", default=False)
"""Whether errors show where in the code they came up."""


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"vlmill {vlmill.__version__} ({Path(vlmill.__file__).parent})")
        raise typer.Exit


@app.callback()
def read_options(
    version: Annotated[  # noqa: ARG001 - its callback has read it
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Say which version this is, and where it lies."
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print errors and JSON alone; the exit status says how it went.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show where in the code an error came up.")] = False,
) -> None:
    """Options of every command."""
    if quiet and verbose:
        raise typer.BadParameter("choose one of --quiet and --verbose")
    console.quiet = quiet
    VERBOSE.set(verbose)


RUN_FOLDERS = {"build": ("out",), "check": ("out", "from_run"), "what_if": ("out",)}
"""Parameters of commands that name the folder of a run, which may be on object storage; of other commands it is DIR."""

RESUMED = frozenset({"build", "takedown", "train", "evaluate", "ablate", "export"})
"""Commands that keep what they did when they are interrupted."""


def _take_path(command: str, name: str, value: Any) -> Any:
    """An argument or option of a command: a path is checked, and that texts are texts; anything else is as it was."""
    for text in [value] if isinstance(value, str) else value if isinstance(value, list) else ():
        check_encodable(str(text))
    if not isinstance(value, Path):
        return value
    if name in RUN_FOLDERS.get(command, ("directory",)):
        return take_run_folder(value)
    return take_local_path(value, "DIR" if name == "directory" else f"--{name.strip('_')}")


def _join_lines(text: str) -> str:
    """A docstring with each paragraph on one line, which a terminal of any width wraps; examples stay as they are.

    typer takes away an indent that all lines but the first have, so examples begin with an empty mark.
    """
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(f"[b][/b]{one}" if one[:1] == " " else " ".join(one.split("\n")) for one in paragraphs)


def _end_interrupted(command: Callable[..., None]) -> Callable[..., None]:
    """The command, ending with 130 (143) and the way to go on when Ctrl-C (SIGTERM) ends it.

    Before the command begins, a path that is an address is refused, unless it is that of a run, and it is said where a
    run that it reads is not built to its end.
    """

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            with keep_options():
                taken = {name: _take_path(command.__name__, name, value) for name, value in options.items()}
                note_options(taken)
                warn_unbuilt(command.__name__, taken)
                command(*arguments, **taken)
        except KeyboardInterrupt:
            said, ended = explain_interrupt()
            way = " What is done is kept: run the same command again to go on." if command.__name__ in RESUMED else ""
            make_console(stderr=True, wrap=False).print(f"{said}.{way}")
            raise typer.Exit(ended) from None

    return run


for command in (
    new,
    check,
    preview,
    build,
    status,
    report,
    what_if,
    stats,
    explore,
    diff,
    trace,
    verify,
    takedown,
    clean,
    disclose,
    train,
    evaluate,
    ablate,
    export,
    schema,
):
    app.command(command.__name__.replace("_", "-"), help=_join_lines(command.__doc__ or ""))(_end_interrupted(command))
app.add_typer(mixtures, name="mixtures")

EXTRAS = {
    "onnxruntime": "signals",
    "torch": "train",
    "transformers": "train",
    "cv2": "train",
    "scipy": "train",
    "tensorboardX": "train",
}
"""The extra of vlmill that brings a module which commands beyond the data side import."""


def main() -> None:
    """Run the console command: known errors go to standard error without a stack trace, and end with 1."""
    keep_pandas_out()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal of another encoding shows what it cannot as escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with nullcontext() if "RANK" in os.environ else heed_sigterm():  # torchrun ends its ranks by SIGTERM, at once
            app()
    except (VlmillError, OSError) as error:  # the latter: a full disk, no permission
        _print_error(explain_place(error) or str(error))
        sys.exit(1)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        hint = (
            f"this command needs the package of the module {module}; run, in the clone of vlmill: pip install "
            f"'.[{EXTRAS[module]}]'"
        )
        _print_error(hint)
        sys.exit(1)
    except KeyboardInterrupt:  # while it was still being read what to do
        said, ended = explain_interrupt()
        make_console(stderr=True).print(f"{said}.")
        sys.exit(ended)
    except Exception as error:
        if not (hint := explain_place(error) or explain_lack_of_memory(error) or _explain_table(error)):
            raise
        _print_error(hint)
        sys.exit(1)


def _explain_table(error: Exception) -> str:
    """What to do about a table that a library cannot read; empty for other errors."""
    if type(error).__module__.partition(".")[0] not in {"pyarrow", "polars"}:
        return ""
    return f"a table cannot be read ({error}); vlmill verify DIR says which file is damaged, and the way out"


def _print_error(message: str) -> None:
    """Print the error that is being handled."""
    if VERBOSE.get():
        make_console(stderr=True, wrap=False).print(traceback.format_exc(), markup=False)
    make_console(stderr=True, wrap=False).print(f"[bold red]error:[/] {escape(message)}")
