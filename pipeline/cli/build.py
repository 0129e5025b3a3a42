"""The command that makes a run: build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmill.pipeline.cli.arguments import (
    FilterFiles,
    RecipeName,
    RecipeValues,
    RowLimit,
    Scale,
    SourcePlaces,
    TrustCode,
    console,
    format_scale,
    get_command,
    parse_pairs,
)
from vlmill.pipeline.cli.hub_recipe import take_recipe
from vlmill.pipeline.core.errors import RecipeError


def build(
    context: typer.Context,
    recipe: RecipeName,
    out: Annotated[
        Path | None, typer.Option(help="The folder for the run's files. Default: build/ and the recipe's name.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Worker processes on this machine; 0 runs everything in this process. Default: one per core, and none "
            "for a small run.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Join a Ray cluster, for example auto or ray://head:10001. All nodes must see DIR."
        ),
    ] = None,
    source: SourcePlaces = None,
    limit: RowLimit = None,
    scale: Scale = None,
    set_: RecipeValues = None,
    filter_: FilterFiles = None,
    trust_code: TrustCode = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="PHASE",
            help="Stop after this phase: survey, benchmarks, write, curate, signals, dedupe, shard or mixture.",
        ),
    ] = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="Accept a recipe that differs from the one DIR is locked to. Only the steps that the change touches "
            "run again; vlmill check RECIPE --out DIR lists each of them before.",
        ),
    ] = False,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Run pure steps again under the installed library versions. Nothing is fetched again."
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Request once more the images that failed (addresses and files), or that have left all opt-out "
            "lists. No others are requested.",
        ),
    ] = False,
) -> None:
    """Build a run: from a recipe's raw data to shards, mixtures and plans.

    It begins with what `vlmill check` looks at, the estimate aside. Anything wrong ends it before it writes anything.

    Run it again after any interruption, or with more workers: committed work is kept, the rest is done, and the bytes
    are the same. It ends with the share kept of each source, and with an error where nothing was kept, or less than the
    recipe's `expect` says.

        vlmill build quickstart --out demo
        vlmill build my.yaml --out run --limit 1000 --set partition.rows=500
        vlmill build my.yaml --out try --scale 0.001
        vlmill build my.yaml --out run --source web=/data/obelics --ray auto
        vlmill build my.yaml --out run --source quiz=hf://datasets/OWNER/NAME@main
        vlmill build my.yaml --out run --filter my_filter.py
        vlmill build hf://datasets/OWNER/NAME --limit 1000

    A dataset on the Hub in the place of a recipe is read by its shipped recipe, else by one that is written into this
    folder, as `vlmill new` does.
    """
    from vlmill.api.builds import build, load_for_build
    from vlmill.pipeline.recipe.mapping import find_recipe, read_mapping
    from vlmill.train.validate import is_trainable

    recipe = take_recipe(recipe)
    sets = parse_pairs(set_, "--set") | format_scale(scale)
    there = out or Path("build") / str(sets.get("name", read_mapping(find_recipe(recipe)).get("name")))
    code = _name_code(
        recipe, there, filter_ or [], trust_code or [], get_command(context), accept_changes=accept_changes
    )
    moves = parse_pairs(source, "--source")
    loaded = load_for_build(recipe, moves, limit, sets, code, there, accept_changes=accept_changes)
    run = build(
        loaded,
        out,
        workers=workers,
        ray=ray,
        until=until,
        accept_changes=accept_changes,
        rebuild=rebuild,
        retry_failed=retry_failed,
        console=console,
    )
    if until not in (None, "mixture"):
        console.print(
            f"built {run.folder} until {until}. Next: vlmill status {run.folder}; the same command without --until "
            "goes on"
        )
    elif run.stages:
        stage = loaded.recipe.stages[0].name
        export = f"vlmill export {run.folder} --stage {stage} --to webdataset --out {stage}"
        ways = [f"vlmill status {run.folder}", f"vlmill stats {run.folder}"]
        if not loaded.recipe.model:
            ways.append(export)
        elif is_trainable(run.folder, loaded.recipe):
            ways.append(f"vlmill train {run.folder}")  # else a note has said what to change first
        console.print(f"built {run.folder}. Next: {', '.join(ways)}")
    else:
        console.print(
            f"built {run.folder}. Next: vlmill status {run.folder}. The recipe has no stages, so nothing is "
            "mixed or trained"
        )


def _name_code(
    recipe: str, root: Path, files: list[str], digests: list[str], command: list[str], *, accept_changes: bool
) -> list[tuple[str, str]]:
    """Find the code of custom filters that the command line names: file name and code.

    Raises:
        RecipeError: the recipe or the folder's lock holds code that the command line does not name.
    """
    from vlmill.pipeline.filters.custom import explain_refusal, find_named_code
    from vlmill.pipeline.recipe.lock import is_bound
    from vlmill.pipeline.recipe.mapping import LOCK, find_recipe, read_held_code

    path, lock = find_recipe(recipe), root / LOCK
    inline, locked = read_held_code(path), {} if accept_changes and not digests else read_held_code(lock)
    given = find_named_code(files, digests, {**inline, **locked})
    for where, held in ((path, inline), (lock, locked if is_bound(root) and not accept_changes else {})):
        if unnamed := {file: code for file, code in held.items() if file not in dict(given)}:
            raise RecipeError(explain_refusal(str(where), unnamed, command))
    return given
