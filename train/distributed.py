"""The ranks of a training run, as `torchrun` or Ray Train start them; one process on its own is a world of one.

More than one rank share the model between them (FSDP2): each keeps a part of every parameter, of its gradient and of
the optimizer's state. Gradients are sums over tokens, divided by the tokens of the whole step before they are added up
over ranks. So a rank without answers takes part like any other, and no world size weighs a token differently.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from vlmill.train.materialise import materialise_module, place_shares, take_deferred

T = TypeVar("T")
Found = TypeVar("Found")

PATIENCE = timedelta(hours=2)
"""How long ranks wait for each other at most: for the first one while it writes the export of a stage."""


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """Who I am among how many."""

    rank: int = 0
    size: int = 1
    handle: distributed.ProcessGroup | None = None  # torch's; None: its default one

    @property
    def leads(self) -> bool:
        """Whether this rank writes files and talks."""
        return self.rank == 0

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of `values` over all ranks."""
        if self.size > 1:
            distributed.all_reduce(values, group=self.handle)
        return values

    def most(self, values: torch.Tensor) -> torch.Tensor:
        """The largest of each of `values` over all ranks."""
        if self.size > 1:
            distributed.all_reduce(values, distributed.ReduceOp.MAX, group=self.handle)
        return values

    def shard(self, root: nn.Module, device: torch.device, dtype: torch.dtype, *, compute: bool = True) -> None:
        """Share a module's parameters out over all ranks: every layer on its own, the rest with the root.

        Layers are what transformers' classes name in `_no_split_modules`. Gathered in `dtype`, added up in float32.
        What is not computed by the forward of `root` sees shares of parameters alone.

        Each rank computes its share of parameters that were put off, or leaves it empty without `compute`, for a
        checkpoint to fill. All others are those of the first rank, which sends them layer by layer.

        One rank has all of them, on `device`.
        """
        if self.size == 1:
            materialise_module(root, device)
            root.to(device)
            return
        taken = take_deferred(root)
        mesh = init_device_mesh(device.type, (self.size,))
        precision = MixedPrecisionPolicy(
            param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        for module in [*find_layers(root), root]:
            for tensor in (*module.parameters(), *module.buffers()):
                if not (isinstance(tensor, DTensor) or tensor.is_meta):  # shared out already, or to be computed
                    tensor.data = tensor.data.to(device)
                    distributed.broadcast(tensor.data, 0)
            fully_shard(module, mesh=mesh, mp_policy=precision)
        place_shares(root, taken, device, compute=compute)
        for module in root.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(enable=True)  # gloo has no scaled sum

    def reduce_after(self, root: nn.Module, *, last: bool) -> None:
        """Have gradients added up over ranks after the `last` backward pass alone; until then each has them whole."""
        if isinstance(root, FSDPModule):
            root.set_requires_gradient_sync(last)
            root.set_is_last_backward(last)

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order, on every rank; every rank has to call it."""
        if self.size == 1:
            return [value]
        found: list[T | None] = [None] * self.size
        distributed.all_gather_object(found, value, group=self.handle)
        return found  # type: ignore[return-value]  # each rank has put its own in

    def share(self, items: Sequence[T], work: Callable[[T], Found]) -> Iterator[tuple[T, Found]]:
        """Do `work` on each item on one rank, and yield all items with their results, in order, on every rank.

        Every rank has to go through all of them. Ranks work on an item each at a time, so none waits for another longer
        than `work` on one item takes.
        """
        for start in range(0, len(items), self.size):
            some = items[start : start + self.size]
            mine = work(some[self.rank]) if self.rank < len(some) else None
            yield from zip(some, self.gather(mine), strict=False)

    def wait(self) -> None:
        """Go on when all ranks have come here."""
        if self.size > 1:
            distributed.barrier(group=self.handle)

    def split(self) -> ProcessGroup:
        """The same ranks for another thread, which meets theirs beside this one; every rank has to call it."""
        handle = distributed.new_group(backend="gloo", timeout=PATIENCE) if self.size > 1 else None
        return replace(self, handle=handle)


def find_layers(root: nn.Module) -> list[nn.Module]:
    """The layers of all of transformers' models in a module; of nested ones, as Idefics2 names, the outer ones."""
    models = [module for module in root.modules() if isinstance(module, PreTrainedModel)]
    names = {name for model in models for name in model._no_split_modules or ()}  # noqa: SLF001 - transformers' own contract with accelerate
    found = [module for module in root.modules() if type(module).__name__ in names]
    inner = {below for module in found for below in module.modules() if below is not module}
    return [module for module in found if module not in inner]


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """The world that the environment of `torchrun` describes, left again at the end.

    Without it, the world that this process is in.

    Of GPUs `device` is this rank's, and the current one.
    """
    if distributed.is_initialized():
        yield ProcessGroup(distributed.get_rank(), distributed.get_world_size())
        return
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup()
        return
    gpu = device.type == "cuda"
    distributed.init_process_group("nccl" if gpu else "gloo", timeout=PATIENCE, device_id=device if gpu else None)
    try:
        yield ProcessGroup(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
