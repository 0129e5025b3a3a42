"""From a model under deferred initialisation to one whose parameters are there: whole, or on each rank its share.

Published weights are put off as well: a parameter that was read from a safetensors file knows where, and a range of it
is one read. Where weights lie in other files, transformers reads them whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from torch import nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from transformers import modeling_utils

from vlmill.train.deferred import CHUNK, DeferredTensor, Deferring, defer_reading, is_deferred


@contextmanager
def defer_init() -> Iterator[None]:
    """Put off what is built, and what transformers reads, in this thread."""
    opened = modeling_utils.safe_open
    modeling_utils.safe_open = _PublishedFile
    try:
        with Deferring():  # type: ignore[no-untyped-call]
            yield
    finally:
        modeling_utils.safe_open = opened


def open_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name, the large ones not read yet."""
    with safe_open(path, framework="pt") as file:
        return {name: _PublishedTensor(path, name, file.get_slice(name))[...] for name in file.keys()}  # noqa: SIM118 - it is no dict


class _PublishedFile:
    """In the place of safetensors' `safe_open`, as transformers uses it."""

    def __init__(self, path: Path, *arguments: Any, **settings: Any) -> None:
        self.path = path
        self.file: Any = safe_open(path, *arguments, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Self:
        self.file.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.file.__exit__(*error)

    def get_slice(self, name: str) -> Any:
        """A tensor that is not read yet."""
        return _PublishedTensor(self.path, name, self.file.get_slice(name))


class _PublishedTensor:
    """In the place of safetensors' slice: `[...]` puts a large tensor off."""

    def __init__(self, path: Path, name: str, found: Any) -> None:
        self.path, self.name, self.found = path, name, found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.found, name)

    def __getitem__(self, item: Any) -> torch.Tensor:
        shape = torch.Size(self.found.get_shape())
        dtype = modeling_utils.str_to_torch_dtype[self.found.get_dtype()]
        if item is not Ellipsis or not is_deferred(shape, dtype):
            return self.found[item]  # type: ignore[no-any-return]
        return defer_reading(shape, dtype, _Reading(self.path, self.name, shape[1:].numel()))


@dataclass(frozen=True, slots=True)
class _Reading:
    """Reads part of a tensor. The file is opened for each chunk, so that no pages of it stay mapped."""

    path: Path
    name: str
    row: int  # elements of one

    def __call__(self, part: torch.Tensor, start: int) -> None:
        rows, end = max(1, CHUNK // self.row), start + len(part)
        after = -(-end // self.row)
        for row in range(start // self.row, after, rows):
            with safe_open(self.path, framework="pt") as file:
                found = file.get_slice(self.name)[row : min(row + rows, after)].flatten()
            begins = row * self.row
            first, last = max(start, begins), min(end, begins + len(found))
            part[first - start : last - start] = found[first - begins : last - begins]


def materialise_module(module: nn.Module, device: torch.device | str = "cpu") -> None:
    """Compute all that was put off, in place; what is shared stays shared."""
    made = list[tuple[DeferredTensor, torch.Tensor, int]]()
    for tensor, places in _find_deferred(module):
        whole = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
        made.append((tensor, whole, 0))
        exchanged = nn.Parameter(whole, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else whole
        for owner, name in places:
            owner[name] = exchanged
    _fill_all(made)


@dataclass(frozen=True, slots=True)
class Taken:
    """A parameter that was put off, where a module has one on the meta device in its place."""

    tensor: DeferredTensor
    places: list[tuple[dict[str, Any], str]]  # one for each module that has it, with its name there


def take_deferred(module: nn.Module) -> list[Taken]:
    """Put parameters on the meta device in the place of those that were put off. Buffers are computed."""
    taken = [Taken(tensor, places) for tensor, places in _find_deferred(module) if isinstance(tensor, nn.Parameter)]
    for each in taken:
        meta = torch.empty(each.tensor.shape, dtype=each.tensor.dtype, device="meta")
        form = nn.Parameter(meta, each.tensor.requires_grad)
        for owner, name in each.places:
            owner[name] = form
    materialise_module(module)
    return taken


def place_shares(module: nn.Module, taken: list[Taken], device: torch.device, *, compute: bool) -> None:
    """Give a rank its shares of what `take_deferred` took, when the parameters on the meta device are shared out.

    Each is read or drawn on its own, so a rank never has more than its shares and a chunk.

    Args:
        module: whose parameters are DTensors now.
        taken: of it.
        device: of the shares.
        compute: else they have any values, and are filled from a checkpoint.
    """
    names = {id(owner): prefix for prefix, each in module.named_modules() for owner in [each._parameters]}  # noqa: SLF001
    for each in taken:
        form: Any = each.places[0][0][each.places[0][1]]
        where = (form.device_mesh, form.placements)
        shape, _ = compute_local_shape_and_global_offset(form.shape, *where)
        rows = -(-form.shape[0] // form.device_mesh.size())  # the last rank may have fewer; FSDP2 pads them in a copy
        local = torch.empty(rows, *shape[1:], dtype=form.dtype, device=device)[: shape[0]]  # room for the next copy
        share = DTensor.from_local(local, *where, run_check=False, shape=form.shape, stride=form.stride())
        parameter = nn.Parameter(share, form.requires_grad)
        shares = {f"{names[id(owner)]}.{name}".lstrip("."): parameter for owner, name in each.places}
        del local, share, parameter
        module.load_state_dict(shares, strict=False, assign=True)
    if compute:
        _fill_all([(each.tensor, *_find_share(each)) for each in taken])


def _find_share(taken: Taken) -> tuple[torch.Tensor, int]:
    """A rank's memory of a parameter, and which of its elements is the first there.

    FSDP2 may have taken other memory for it: a share that is shorter than those of other ranks is padded.
    """
    owner, name = taken.places[0]
    share: Any = owner[name]
    _, begins = compute_local_shape_and_global_offset(share.shape, share.device_mesh, share.placements)
    return share.to_local().detach(), begins[0] * share.shape[1:].numel()


def _fill_all(made: Sequence[tuple[DeferredTensor, torch.Tensor, int]]) -> None:
    """Compute elements of tensors, from a number on, into contiguous memory that was taken for all of them before.

    What is needed for a chunk then takes the same memory each time.
    """
    for tensor, memory, first in made:
        tensor.read_into(memory.view(-1), first)


def _find_deferred(module: nn.Module) -> list[tuple[DeferredTensor, list[tuple[dict[str, Any], str]]]]:
    """Parameters and buffers that were put off, each with all places where it stands."""
    found = dict[int, tuple[DeferredTensor, list[tuple[dict[str, Any], str]]]]()
    for each in module.modules():
        for owner in (each._parameters, each._buffers):  # noqa: SLF001 - the only way to exchange one in place
            for name, tensor in owner.items():
                if isinstance(tensor, DeferredTensor):
                    found.setdefault(id(tensor), (tensor, []))[1].append((owner, name))
    return list(found.values())
