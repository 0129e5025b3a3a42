"""The device of a rank, and torch and transformers as trainings and scorings need them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.utils import logging

from vlmill.pipeline.core.errors import RecipeError
from vlmill.train.settings import Machine


def take_device(machine: Machine) -> torch.device:
    """The device that the machine names; a GPU becomes the current one, before anything is made on any.

    A GPU without a number is this rank's: the one with its number among the ranks of this machine (`LOCAL_RANK`).

    Raises:
        RecipeError: there is no such kind, this process does not see it, or other ranks of this machine would take it,
            too.
    """
    named = machine.device if machine.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(named)
    except RuntimeError as error:
        raise RecipeError(
            f"--device {machine.device}: there is no such kind; allowed: auto, cpu, cuda, cuda:N"
        ) from error
    if device.type != "cuda":
        return device
    seen, ranks = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    number = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
    if number >= seen:
        way = "start as many ranks as it sees, one for each" if device.index is None and seen else "take another"
        raise RecipeError(
            f"--device {machine.device}: this rank's GPU is cuda:{number}, and torch {torch.__version__} sees "
            f"{seen} GPUs here; {way}, or --device cpu"
        )
    if device.index is not None and min(ranks, seen) > 1:
        raise RecipeError(
            f"--device {machine.device}: {ranks} ranks of this machine would share one of its {seen} GPUs; "
            "take --device cuda, a GPU for each"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def move_tensor(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on a device. To a GPU it goes by way of page-locked memory, and nothing waits for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def prepare_torch(machine: Machine, device: torch.device) -> Iterator[None]:
    """Set up torch and transformers for a training, and put back at its end what was there.

    Torch takes as many threads as `machine` says, and on a CPU only operations that always give the same bits.
    """
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    bars = logging.is_progress_bar_enabled()
    torch.set_num_threads(machine.threads or max(1, (os.cpu_count() or 2) - 1))
    torch.use_deterministic_algorithms(device.type == "cpu")
    logging.disable_progress_bar()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        if bars:
            logging.enable_progress_bar()
