"""The command that makes a run: build."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmill.pipeline.cli.arguments import FilterFiles, TrustCode, console, get_command, parse_pairs
from vlmill.pipeline.core.errors import RecipeError, VlmillError

if TYPE_CHECKING:
    from vlmill.pipeline.recipe.schema import Recipe


def build(
    context: typer.Context,
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
        typer.Option(
            metavar="NAME=PATH",
            help="Take the files of a source or benchmark from elsewhere: a folder, a file or a pattern, here or on anything fsspec reads, "
            "or hf://datasets/OWNER/NAME@REVISION.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows of each source.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replace one value of the recipe, for example filters.language.in_doubt=drop.",
        ),
    ] = None,
    filter_: FilterFiles = None,
    trust_code: TrustCode = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="STEP", help="Stop after this phase: survey, benchmarks, curate, dedupe, shard or mixture."
        ),
    ] = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="Let this recipe replace the one that DIR is locked to. What the change does not touch is kept.",
        ),
    ] = False,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Make pure steps anew under today's library versions. Nothing is fetched again."
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Ask once more for the images that could not be had (addresses and files), or that have left all lists of opt-outs; for no others.",
        ),
    ] = False,
) -> None:
    """Carry a recipe's raw data to shards, mixtures and plans.

    Run it again after any interruption, or with more workers: what is there is kept, the rest is made, and the bytes are the same.
    It ends with what was kept of each source; with an error where that is nothing, or less than the recipe's `expect` says.

        vlmill build quickstart --out demo
        vlmill build my.yaml --out run --limit 1000 --set partition.rows=500
        vlmill build my.yaml --out run --source web=/data/obelics --ray auto
        vlmill build my.yaml --out run --source quiz=hf://datasets/OWNER/NAME@main
        vlmill build my.yaml --out run --filter examples/filters/shouting.py
    """
    from vlmill.mixtures.build import read_stats
    from vlmill.pipeline.engine.build import PHASES
    from vlmill.pipeline.recipe.load import load_recipe
    from vlmill.pipeline.recipe.mapping import find_recipe, read_mapping
    from vlmill.pipeline.reports import kept
    from vlmill.pipeline.reports.contamination import list_warnings
    from vlmill.train.validate import validate

    if until is not None and until not in PHASES:
        raise RecipeError(f"--until {until}: there is no such phase; choose among {', '.join(PHASES)}")
    sets = parse_pairs(set_, "--set")
    there = out or Path("build") / str(sets.get("name", read_mapping(find_recipe(recipe)).get("name")))
    filters = _filters(
        recipe, there, filter_ or [], trust_code or [], get_command(context), accept_changes=accept_changes
    )
    loaded, data, base = load_recipe(recipe, parse_pairs(source, "--source"), limit, sets, filters)
    validate(loaded)
    shown = out or Path("build") / loaded.name
    root = shown.absolute()  # workers stand in folders of their own
    came = list[kept.KeptOfSource]()
    try:
        build_recipe(
            root,
            loaded,
            data,
            base,
            workers,
            ray,
            until=until,
            accept_changes=accept_changes,
            rebuild=rebuild,
            retry_failed=retry_failed,
            outcome=lambda folders: came.extend(kept.count_kept(root, loaded, folders)),
        )
    finally:  # a mixture that cannot be made has its reasons there
        if came:
            console.print(kept.make_kept_table(came))
        for warning in kept.list_kept_warnings(came, shown):
            console.print(warning, markup=False, soft_wrap=True)
    for warning in list_warnings(root, loaded) if until != "survey" else ():
        console.print(warning, markup=False)
    if loaded.stages and until in (None, "mixture"):
        for stage, stats in read_stats(root, None).items():
            for note in stats["notes"]:
                console.print(f"{stage}: {note}", markup=False)
    if short := kept.explain_shortfall(came, shown):
        raise VlmillError(
            f"{short}\nWhat was made stays in {shown}; `expect: {{kept: SHARE}}` in the recipe says what is enough"
        )
    if loaded.stages:
        console.print(f"built {shown}. Next: vlmill status {shown}, vlmill stats {shown}, vlmill train {shown}")
    else:
        console.print(
            f"built {shown}. Next: vlmill status {shown}. The recipe has no stages, so nothing is mixed or trained"
        )


def _filters(
    recipe: str, root: Path, files: list[str], digests: list[str], command: list[str], *, accept_changes: bool
) -> list[tuple[str, str]]:
    """The code of custom filters that the command line names: file name and code.

    Raises:
        RecipeError: the recipe holds code that it does not name, or the folder is locked to such.
    """
    from vlmill.pipeline.filters.custom import explain_refusal, find_named_code
    from vlmill.pipeline.recipe.lock import is_bound
    from vlmill.pipeline.recipe.mapping import LOCK, find_recipe, read_held_code

    path, lock = find_recipe(recipe), root / LOCK
    inline, locked = read_held_code(path), {} if accept_changes and not digests else read_held_code(lock)
    given = find_named_code(files, digests, {**inline, **locked})
    for where, held in ((path, inline), (lock, locked if is_bound(root) and not accept_changes else {})):
        if unnamed := {file: code for file, code in held.items() if file not in dict(given)}:
            raise RecipeError(explain_refusal(where, unnamed, command))
    return given


def build_recipe(
    root: Path,
    recipe: Recipe,
    data: Mapping[str, Any],
    base: Path,
    workers: int | None = None,
    ray: str | None = None,
    *,
    until: str | None = None,
    accept_changes: bool = False,
    rebuild: bool = False,
    retry_failed: bool = False,
    outcome: Callable[[dict[str, str]], None] | None = None,
) -> None:
    """Build a recipe in a folder: `data` is its mapping, `base` where its relative paths start; the rest is as in the command.

    Before mixtures are made, `applied` is told source -> the folder whose books say what was kept.
    """
    from vlmill.mixtures.build import build_stages
    from vlmill.pipeline.core.progress import ProgressBars
    from vlmill.pipeline.engine.build import Build, list_phases
    from vlmill.pipeline.engine.executor import open_executor
    from vlmill.pipeline.engine.outcomes import count_outcomes
    from vlmill.pipeline.engine.workdir import forget_versions as forget
    from vlmill.pipeline.engine.workdir import open_run_folder, pin_hub_roots, remove_unused
    from vlmill.pipeline.recipe.lock import lock_folder

    with open_run_folder(root):
        lock_folder(root, data, accept_changes=accept_changes)
        recipe = pin_hub_roots(root, recipe, accept_changes=accept_changes)
        if rebuild:
            forget(root)
        with _served(recipe, base) as serving, ProgressBars(console) as watcher, open_executor(workers, ray) as pool:
            run = Build(root, recipe, base, pool, watcher, serving, retry=retry_failed)
            for phase in list_phases(run, until):
                phase()
            if until not in ("survey", "benchmarks"):
                folders = count_outcomes(run, until)
                if outcome:
                    outcome(folders)
            if until in (None, "mixture"):
                build_stages(run)
        if until is None:
            remove_unused(root, run.folders if run.rules else None)


class _Server(ThreadingHTTPServer):
    request_queue_size = 512  # with the default of 5, connections are lost and asked for again after a second
    daemon_threads = True


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@contextmanager
def _served(recipe: Recipe, base: Path) -> Iterator[dict[str, dict[str, str]]]:
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
