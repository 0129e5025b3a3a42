"""The command `vlmill`: where the three packages are put together. The only file that may import all of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline.errors import RecipeError, VlmillError

app = typer.Typer(
    name="vlmill",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="From raw vision-language data to per-stage training mixtures, their statistics, and a compact model.\n\n"
    "Start with: [bold]vlmill build quickstart --out demo[/bold], then [bold]vlmill stats demo[/bold], then [bold]vlmill train demo[/bold].",
)
WIDE = 160
"""Columns of a table that goes to a file or a pipe."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run, as given to build --out.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command()
def build(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe such as quickstart.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where the run's files go. Default: build/ and the recipe's name.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Worker processes on this machine; 0 works in this process, without Ray. Default: one per core."
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Join a Ray cluster, for example auto or ray://head:10001. All nodes must see DIR."
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Take a source's files from elsewhere: a folder, a file or a pattern."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows of each source.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replace one value of the recipe, for example judges.language.in_doubt=drop.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="STEP", help="Stop after this phase: survey, curate, dedupe, shard or mixture."),
    ] = None,
    relock: Annotated[
        bool,
        typer.Option(
            "--relock",
            help="Let this recipe replace the one that DIR is locked to. What the change does not touch is kept.",
        ),
    ] = False,
    remake: Annotated[
        bool,
        typer.Option("--remake", help="Make pure steps anew under today's library versions. Nothing is fetched again."),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Ask once more for the images that could not be had, and only for those."),
    ] = False,
) -> None:
    """Carry a recipe's raw data to shards, mixtures and plans.

    Run it again after any interruption, or with more workers: what is there is kept, the rest is made, and the bytes are the same.

        vlmill build quickstart --out demo
        vlmill build my.yaml --out run --limit 1000 --set partition.rows=500
        vlmill build my.yaml --out run --source web=/data/obelics --ray auto
    """
    from mixtures.build import build_stages
    from mixtures.build import check as check_mixtures
    from pipeline.execute import executor
    from pipeline.folder import clean, opened
    from pipeline.folder import remake as forget
    from pipeline.progress import Progressing
    from pipeline.recipe import load, lock
    from pipeline.run import PHASES, Run, phases
    from train.settings import check as check_training

    if until is not None and until not in PHASES:
        raise RecipeError(f"--until {until}: there is no such phase; choose among {', '.join(PHASES)}")
    loaded, data, base = load(recipe, _pairs(source, "--source"), limit, _pairs(set_, "--set"))
    check_mixtures(loaded)
    check_training(loaded)
    shown = out or Path("build") / loaded.name
    root = shown.absolute()  # workers stand in folders of their own
    with opened(root):
        lock(root, data, relock=relock)
        if remake:
            forget(root)
        with _served(loaded, base) as serving, Progressing(console) as watcher, executor(workers, ray) as pool:
            run = Run(root, loaded, base, pool, watcher, serving, retry=retry_failed)
            for phase in phases(run, until):
                phase()
            if until in (None, "mixture"):
                build_stages(run)
        if until is None:
            clean(root)
    console.print(
        f"built {shown}. Next: vlmill status {shown}, vlmill stats {shown}"
        + (f", vlmill train {shown}" if loaded.stages else "")
    )


@app.command()
def status(directory: Folder, as_json: JsonFlag = False) -> None:
    """Say which parts of a run exist, which are missing, and the funnel: in, kept, dropped by reason, failed by reason."""
    from pipeline.status import funnel, progress, tables

    if as_json:
        steps = {step.folder: {"done": step.done, "parts": step.parts} for step in progress(directory)}
        _print_json({"steps": steps, "funnel": funnel(directory)})
        return
    for table in tables(directory):
        console.print(table)


@app.command()
def stats(
    directory: Folder,
    stage: Annotated[str | None, typer.Option(help="One stage only. Default: all.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what the mixtures hold: declared and realised shares, samples, images, text, visual and supervised tokens, packing, losses."""
    from mixtures.build import read_stats
    from mixtures.stats import table

    found = read_stats(directory, stage)
    if as_json:
        _print_json(found)
        return
    for stats_of_stage in found.values():
        console.print(table(stats_of_stage))


@app.command()
def trace(
    directory: Folder,
    name: Annotated[
        str, typer.Argument(metavar="ID", help="A sample id such as web/part-0.parquet#12, or SHARD.tar:KEY.")
    ],
) -> None:
    """Follow a sample or a shard member back to its origin, with every verdict on it.

    vlmill trace demo web/part-0.parquet#12
    vlmill trace demo shards/quiz/small/00000-0000.1f0c53b9a1de.00.tar:000000000000004
    """
    from pipeline.trace import lines
    from pipeline.trace import trace as traced

    for line in lines(traced(directory, name)):
        console.print(line, markup=False)


@app.command()
def verify(directory: Folder) -> None:
    """Check every sha256, every count and every lock of a run. Ends with 1 if a promise is broken."""
    from pipeline.verify import verify as broken

    promises = list(broken(directory))
    for line in promises:
        console.print(line, markup=False)
    if promises:
        console.print(
            f"{len(promises)} broken. Delete the receipts of the damaged files and build again: what is sound is kept."
        )
        raise typer.Exit(1)
    console.print(f"{directory} is sound: every file, count and lock is as its receipts say")


@app.command()
def train(
    directory: Folder,
    stage: Annotated[
        str | None,
        typer.Option(help="One stage only, starting from the stage before it. Default: all stages in order."),
    ] = None,
) -> None:
    """Train the recipe's model on its mixtures: one stage, or all in order. Resumes where it was interrupted.

    vlmill train demo
    vlmill train demo --stage align
    """
    from train.run import train_stages

    results = train_stages(directory, stage, console)
    last = results[-1]
    console.print(
        f"trained {', '.join(result.stage for result in results)}. The model lies in {last.export}: "
        "AutoModelForImageTextToText and AutoProcessor of transformers load it from there.\n"
        f"Next: vlmill trace {directory} ID follows a sample to its origin, vlmill verify {directory} checks every file; "
        "copy a recipe, change a share or a threshold, and build again with --relock: only what the change touches is made anew."
    )


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """NAME=VALUE arguments as a mapping."""
    pairs = {}
    for item in given or []:
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise RecipeError(f"{option} {item}: give a name, = and a value")
        pairs[name] = value
    return pairs


def _print_json(value: Any) -> None:
    import json

    sys.stdout.write(json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n")


class _Server(ThreadingHTTPServer):
    request_queue_size = 512  # with the default of 5, connections are lost and asked for again after a second
    daemon_threads = True


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@contextmanager
def _served(recipe: Any, base: Path) -> Iterator[dict[str, dict[str, str]]]:
    """Serve the folders that sources name under `serve` on loopback; yields source -> {URL prefix: served prefix}."""
    servers: list[_Server] = []
    mirrors: dict[str, dict[str, str]] = {}
    try:
        for name, settings in recipe.sources.items():
            for prefix, folder in settings.serve.items():
                server = _Server(("127.0.0.1", 0), partial(_Quiet, directory=str(base / folder)))
                Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
                servers.append(server)
                mirrors.setdefault(name, {})[prefix] = f"http://127.0.0.1:{server.server_address[1]}/"
        yield mirrors
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def main() -> None:
    """The console command: errors for people go to standard error without a stack trace, and end with 1."""
    try:
        app()
    except (VlmillError, OSError) as error:  # the latter: a full disk, no permission
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {_escaped(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted. Run the same command again to go on.")
        sys.exit(130)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
