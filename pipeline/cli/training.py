"""The command that trains on a run: train."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from pipeline.cli.terms import Folder, console


def train(
    directory: Folder,
    stage: Annotated[
        str | None,
        typer.Option(help="One stage only, starting from the stage before it. Default: all stages in order."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto takes a GPU if there is one; or cpu, cuda, cuda:1.")] = "auto",
    ranks: Annotated[
        int | None,
        typer.Option(
            min=1, help="So many processes share the model (FSDP2), each with a GPU, started by Ray. Default: this one."
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="The cluster for --ranks, as in build. Default: this machine."),
    ] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Keep no activations of layers: less memory, about a third more time.")
    ] = False,
    threads: Annotated[
        int, typer.Option(min=0, help="Of torch on a CPU. Default: all cores but one, which reads and decodes.")
    ] = 0,
    readers: Annotated[int, typer.Option(min=1, help="Threads of each process that read and decode.")] = 2,
) -> None:
    """Train the recipe's model on its mixtures: one stage, or all in order. Resumes where it was interrupted.

    It may go on with other ranks, devices or readers than it began with: every step sees the same samples. Under torchrun each
    process is a rank. `tensorboard --logdir DIR/train` shows the course of all stages.

        vlmill train demo
        vlmill train demo --stage align
        vlmill train /shared/run --ranks 8 --ray auto
        torchrun --nproc-per-node 8 -m pipeline.cli train /shared/run
    """
    from pipeline.execute import together
    from train.log import following
    from train.run import train_stages
    from train.settings import Machine

    machine = Machine(device=device, threads=threads, readers=readers, recompute=recompute)
    if ranks is not None:
        whole = directory.absolute()  # ranks stand in folders of their own
        with following(whole / "train", console):
            together(partial(train_stages, whole, stage, machine), ranks, ray, gpus=machine.on_gpu)
    results = train_stages(directory, stage, machine, console)
    last = results[-1]
    console.print(
        f"trained {', '.join(result.stage for result in results)}. The model lies in {last.export}: "
        "AutoModelForImageTextToText and AutoProcessor of transformers load it from there.\n"
        f"Next: vlmill trace {directory} ID follows a sample to its origin, vlmill verify {directory} checks every file; "
        "copy a recipe, change a share or a threshold, and build again with --relock: only what the change touches is made anew."
    )
