"""Training the stages of a run: in this process, or in several that share the model."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path

from rich.console import Console

from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.core.terminal import make_console
from vlmill.pipeline.engine.ray_train import run_distributed
from vlmill.train.distributed import PATIENCE
from vlmill.train.log import follow_logs
from vlmill.train.run import TrainedStage, train_stages
from vlmill.train.settings import Machine


def train_run(
    directory: Path,
    stage: str | None = None,
    machine: Machine | None = None,
    ranks: int | None = None,
    ray: str | None = None,
    console: Console | None = None,
) -> list[TrainedStage]:
    """Train a run's stages; see `Run.train`.

    With `ranks` first in so many processes of Ray, then this one reads what they left.
    """
    machine, console = machine or Machine(), console or make_console(quiet=True)
    if ranks is not None:
        console.print("starting Ray and its ranks")
        whole = directory.absolute()  # ranks have other working folders
        with nullcontext() if isinstance(whole, RunPath) else follow_logs(whole / "train", console):
            work = partial(train_stages, whole, stage, machine)
            run_distributed(work, ranks, ray, gpus=machine.on_gpu, patience=PATIENCE)
    return train_stages(directory, stage, machine, console)
