"""The log of a stage in Weights & Biases, beside `log.jsonl` and TensorBoard, where `vlmill train --wandb` asks for it.

A part of log.py. One run of W&B for each stage: an interrupted one goes on in it, since its id comes from the folder of
the stage. `WANDB_MODE=offline` keeps it on disk; keys and servers are W&B's own settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from vlmill.pipeline.core.errors import VlmillError


class WandbRun:
    """A run of W&B that is open until `close`."""

    def __init__(self, run: Any) -> None:
        self.run = run

    @classmethod
    def open(cls, project: str, stage: Path, config: Mapping[str, Any]) -> Self:
        """The run of a stage.

        Args:
            project: Its name in W&B.
            stage: The folder of the stage, `DIR/train/STAGE`; W&B's own files go below it.
            config: What W&B shows as the run's settings.

        Raises:
            VlmillError: wandb is not installed, or W&B refuses.
        """
        try:
            import wandb  # noqa: PLC0415 - only who asks for it needs it
        except ModuleNotFoundError as error:
            raise VlmillError("--wandb: the package wandb is not installed; run: pip install wandb") from error
        key = hashlib.sha256(str(stage.resolve()).encode()).hexdigest()[:12]
        name = f"{stage.parent.parent.name}-{stage.name}"
        try:
            run = wandb.init(
                project=project,
                id=key,
                name=name,
                dir=str(stage),
                config=dict(config),
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(console="off"),  # our own bar and lines stay what they are
            )
        except wandb.Error as error:
            raise VlmillError(
                f"--wandb {project}: W&B refused ({error}); run `wandb login`, or set WANDB_MODE=offline, or leave out "
                "--wandb: log.jsonl and TensorBoard have the same"
            ) from error
        run.define_metric("*", step_metric="step")  # steps that are trained again after a kill replace nothing
        return cls(run)

    def write(self, scalars: Mapping[str, float]) -> None:
        """Add the numbers of a step, `step` among them."""
        self.run.log(dict(scalars))

    def close(self, *, failed: bool) -> None:
        """Finish the run."""
        self.run.finish(exit_code=int(failed))
