"""The ranks of a training run, as `torchrun` starts them; one process on its own is a world of one.

Gradients are sums over tokens, divided by the tokens of the whole step before they are added up over ranks. So a rank without
images or without answers takes part like any other, and no world size weighs a token differently.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn

PATIENCE = timedelta(hours=2)
"""How long ranks wait for the first one while it exports and scores a stage."""


@dataclass(frozen=True, slots=True)
class World:
    """Who I am among how many."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this rank writes files and talks."""
        return self.rank == 0

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of `values` over all ranks."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def sum_gradients(self, model: nn.Module) -> None:
        """Add up every trainable parameter's gradient over all ranks; none counts as zero."""
        if self.size == 1:
            return
        for parameter in model.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                distributed.all_reduce(parameter.grad)

    def wait(self) -> None:
        """Go on when all ranks have come here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world that the environment of `torchrun` describes, left again at the end."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield World(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
