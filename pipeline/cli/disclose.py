"""The command that writes what laws and catalogues ask about training data: disclose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmill.pipeline.cli.arguments import Folder, console, print_json


def disclose(
    directory: Folder,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", file_okay=False, help="Where to write. Default: DIR/disclosure.")
    ] = None,
    figure: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Compute one figure anew and print it, such as total.samples; writes nothing."
        ),
    ] = None,
) -> None:
    """Write drafts of what laws and catalogues ask about training data, from a complete run alone.

        eu_public_summary.md   the summary of Article 53(1)(d), EU AI Act
        california_ab_2013.md  the documentation of California's AB 2013
        figures.json           all figures by name
        croissant.json         Croissant 1.1, with licences; always in DIR

    Every figure stands with its name, and --figure NAME computes it again. What only a person knows is marked OPEN:
    search for that word. A takedown, or a build that changes anything, removes the files from DIR, so run this again
    afterwards. The drafts are no legal advice.

        vlmill disclose demo
        vlmill disclose demo --out for-the-lawyers
        vlmill disclose demo --figure sources.web.pictures
    """
    from vlmill.api.runs import open_run

    run = open_run(directory)
    if figure is not None:
        print_json(run.disclosure_figure(figure))
        return
    for path in run.disclose(out):
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    console.print("what only a person knows is marked OPEN in them")
