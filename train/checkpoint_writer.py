"""Checkpoints in the background: the loop goes on while a copy of its state in host memory is written.

One checkpoint is written at a time, by a thread on each rank, and is complete when its folder has its name
(checkpoint.py). So a kill at any moment leaves the checkpoint before. Bytes are those of one that the loop waits for.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from transformers import PreTrainedModel

from vlmill.train import checkpoint
from vlmill.train.distributed import ProcessGroup
from vlmill.train.memory import measure_free_memory
from vlmill.train.stage_folder import put_stage_folder

SPARE = 1.25
"""Of the bytes of a copy, how many have to be free for it; else the loop waits."""


class CheckpointWriter:
    """Writes the checkpoints of one phase; every rank has one, and calls it at the same steps.

    Where host memory does not hold a copy of the state on every rank, `save` returns when the checkpoint is written.

    Args:
        folder: of checkpoints.
        identity: what the course of the training depends on.
        group: the ranks.
        keep_last: so many checkpoints stay.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], group: ProcessGroup, keep_last: int) -> None:
        self._folder, self._identity, self._keep_last = folder, identity, keep_last
        self._group = group.split()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
        """Copy the state after `step` steps, and begin to write it when the checkpoint before is complete.

        Raises:
            StoreError: this one, or the one before, cannot be written: a full disk.
        """
        self.wait()
        state = checkpoint.collect_state(model, optimizer)
        if not all(self._group.gather(SPARE * _count_bytes(state) <= measure_free_memory())):
            self._write(step, state)
            return
        stager = DefaultStager(StagingOptions(False, False, False, False))
        copied = stager.stage(state)
        stager.close()
        self._thread = threading.Thread(target=self._try_write, args=(step, copied), daemon=True, name="checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Say what has gone wrong since it was asked last.

        Raises:
            StoreError: the checkpoint that was begun last cannot be written.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Go on when what was begun is written.

        Raises:
            StoreError: it cannot be.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _try_write(self, step: int, state: dict[str, Any]) -> None:
        try:
            self._write(step, state)
        except BaseException as error:  # noqa: BLE001 - raised by the loop
            self._error = error

    def _write(self, step: int, state: dict[str, Any]) -> None:
        checkpoint.write_state(self._folder, step, state, self._identity, self._group)
        if self._group.leads:
            checkpoint.prune_checkpoints(self._folder, self._keep_last)
            put_stage_folder(self._folder.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the last checkpoint; after an error of the loop only where no other rank is needed for it."""
        if kind is None:
            self.wait()
        elif self._group.size == 1 and self._thread is not None:
            self._thread.join()


def _count_bytes(state: Any) -> int:
    """Of all tensors of a state, of shared ones of this rank's share."""
    if isinstance(state, torch.Tensor):
        local: torch.Tensor = state.to_local() if hasattr(state, "to_local") else state
        return local.nbytes
    return sum(map(_count_bytes, state.values())) if isinstance(state, dict) else 0
