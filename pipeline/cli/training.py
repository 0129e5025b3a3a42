"""The command that trains on a run: train."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.terms import Folder, console


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
