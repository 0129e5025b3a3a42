"""The command that removes from a run what is of no use to it: clean."""

from __future__ import annotations

from typing import Annotated

import typer

from vlmill.pipeline.cli.arguments import Folder, JsonFlag, console, print_json


def clean(
    directory: Folder,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove it. Default: say what would go, and change nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say what in a run's folder its recipe has no use for, with sizes; remove it with --yes.

    This lists steps of earlier recipes, with what was fetched, scored or answered for them, and files that no manifest
    names. A build keeps these, since going back to the earlier recipe would need them. Steps that are not complete,
    trainings and what `vlmill takedown` removed are not looked at.

        vlmill clean run
        vlmill clean run --yes
    """
    from vlmill.api.runs import open_run
    from vlmill.pipeline.reports.unused import make_unused_table

    run = open_run(directory)
    unused = run.clean() if yes else run.list_unused()
    if as_json:
        print_json(
            [{"folder": one.folder, "why": one.why, "files": len(one.paths), "bytes": one.bytes} for one in unused]
        )
        return
    if not unused:
        console.print("everything in the folder is of use to its recipe")
        return
    console.print(make_unused_table(unused))
    size = sum(one.bytes for one in unused) / 1e6
    done = "removed" if yes else f"nothing was removed; to do so: vlmill clean {directory} --yes"
    console.print(f"{sum(len(one.paths) for one in unused):,} files, {size:,.1f} MB: {done}", markup=False)
