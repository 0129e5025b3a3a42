"""What a rank holds of a training, in bytes, and whether gradients may stay whole until a step's end."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from vlmill.train.settings import Machine

FLOAT32 = 4
MOMENTS = 2
"""Of AdamW, for each parameter that is trained."""

KEPT = 0.5
"""Fraction of a device's memory that weights, gradients and moments may take; the rest is for activations."""


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of a rank. Activations are not counted: they depend on sequences and on what is computed again."""

    weights: int  # its share, in float32
    gradients: int  # the same of those that are trained
    moments: int  # of the optimizer, two of each that is trained
    whole_gradients: int  # of all that is trained, where ranks add up gradients once a step

    @property
    def copied(self) -> int:
        """What a checkpoint takes of host memory while it is written in the background."""
        return self.weights + self.moments

    @property
    def state(self) -> int:
        """What a rank holds in any case."""
        return self.weights + self.gradients + self.moments


def count_held(parameters: Iterable[torch.nn.Parameter], ranks: int) -> Held:
    """What each rank holds of a model whose parameters are shared over `ranks`, as they say whether they are trained.

    Works on the meta device, and on parameters that are shared already.
    """
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in parameters]
    every, trained = sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)
    share = FLOAT32 * trained // ranks
    return Held(FLOAT32 * every // ranks, share, MOMENTS * share, FLOAT32 * trained if ranks > 1 else 0)


def reduces_once(machine: Machine, held: Held, memory: int, accumulation: int) -> bool:
    """Whether ranks add up gradients once a step, and not after each micro-batch.

    Once is less to send, and keeps the gradients of the whole model on each rank meanwhile: 32 GB for 8 billion
    parameters. By default it is done where these fit beside the rest.
    """
    if accumulation == 1 or machine.reduce_after != "auto":
        return machine.reduce_after == "step"
    return held.state + held.whole_gradients <= KEPT * memory


def measure_free_memory() -> int:
    """Bytes of this machine's memory that a process could take now, for each of its ranks (Linux)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:")))
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def measure_memory(device: torch.device) -> int:
    """Bytes of a GPU, or of this machine's memory for each of its ranks."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return pages // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
