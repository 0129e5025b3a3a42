"""The loop of one stage: from the last checkpoint to the last step.

Everything in step s is a function of s: its sequences, its learning rates, its random numbers. So a run that was killed
and started again writes the log and the weights of one that was not: to the bit on a CPU with the same number of
threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from vlmill.pipeline.core.keys import hash_value
from vlmill.train import checkpoint
from vlmill.train.attention import attend_packed
from vlmill.train.batch import Batch
from vlmill.train.checkpoint_writer import CheckpointWriter
from vlmill.train.data import Reader, load_step_batches
from vlmill.train.distributed import ProcessGroup, find_layers
from vlmill.train.flops import Cost, count_flops, find_peak
from vlmill.train.log import Log, tell_start
from vlmill.train.memory import count_held, measure_memory, reduces_once
from vlmill.train.model import compute_token_losses, make_optimizer, scale_rate, set_rates
from vlmill.train.phases import Phase
from vlmill.train.settings import Machine, Training
from vlmill.train.steps import check_shares
from vlmill.train.wandb_run import WandbRun


@dataclass(frozen=True)
class Setup:
    """What a stage's loop works with."""

    reader: Reader
    model: PreTrainedModel
    training: Training
    steps: int
    phase: Phase
    identity: Mapping[str, Any]  # what the course of the training depends on
    folder: Path  # of checkpoints and the log
    device: torch.device
    machine: Machine
    group: ProcessGroup


class Learner(nn.Module):
    """The model with its loss as its forward: what ranks share between them is gathered around it."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.model, self.setup = setup.model, setup
        self.reduces_once = False  # whether ranks add up gradients once a step, not after each micro-batch

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross entropy of every supervised token, and its source; see `compute_token_losses`."""
        training = self.setup.training
        dtype = getattr(torch, training.dtype)
        return compute_token_losses(
            self.model, self.setup.reader.family, batch, self.setup.device, dtype, training.neftune
        )


def run_stage(setup: Setup, console: Console) -> Path:
    """Train from the newest checkpoint to the last step of the phase; returns the last checkpoint.

    The newest one is of the phase, or the last one of the phase before, whose weights the model has already.

    Raises:
        RecipeError: the sequences of a step cannot be shared out.
        StoreError: the newest checkpoint was made under other settings.
    """
    folder, training, group = setup.folder / "checkpoints", setup.training, setup.group
    check_shares(training, group.size)
    setup.model.train()
    if setup.machine.recompute:
        setup.model.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in find_layers(setup.model) if setup.machine.compile else ():
        layer.compile()  # in place, so that parameters keep their names
    learner = Learner(setup)
    kept = checkpoint.list_complete(folder)
    begun = bool(kept) and int(kept[-1].name) > setup.phase.first
    group.shard(learner, setup.device, getattr(torch, training.dtype), compute=not begun)
    optimizer = make_optimizer(setup.model, setup.reader.family, training)
    done = _restore_progress(setup, optimizer, kept[-1]) if kept else 0
    group.wait()
    price = count_flops(setup.model, setup.reader.family, tuple(training.learning_rate))
    most = find_peak(setup.device, training.dtype)
    log = Log(
        setup.folder / "log.jsonl",
        setup.reader.mixture.stage,
        done,
        setup.steps,
        console,
        most and most * group.size,
        _choose_wandb(setup),
    )
    dtype = getattr(torch, training.dtype)
    learner.reduces_once = _reduces_once(setup)
    if group.leads and done < setup.phase.last:
        slow = "; layers are compiled, which takes minutes" if setup.machine.compile else ""
        again = log.count_lost()
        lost = f"; {again} steps behind the last checkpoint are taken again" if again else ""
        tell_start(console, setup.reader.mixture.stage, f"taking step {done + 1} of {setup.steps}{lost}{slow}")
    with (
        log if group.leads else nullcontext(),
        attend_packed(setup.model, setup.device, dtype),
        closing(_load_batches(setup, done)) as batches,
        CheckpointWriter(folder, setup.identity, group, training.keep_last) as writer,
    ):
        for step in range(done, setup.phase.last):
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            line = _take_step(setup, learner, optimizer, step, batch)
            line |= _count_work(batch, price, setup)
            if group.leads:
                log.write(line, time.perf_counter() - began, waited)
            writer.check()
            if (step + 1) % training.checkpoint_every == 0 or step + 1 == setup.phase.last:
                writer.save(step + 1, setup.model, optimizer)
    group.wait()
    return checkpoint.list_complete(folder)[-1]


def _choose_wandb(setup: Setup) -> Callable[[], WandbRun] | None:
    """What opens the run of Weights & Biases, where there is to be one."""
    if setup.machine.wandb is None:
        return None
    config = {"training": asdict(setup.training), "steps": setup.steps, "ranks": setup.group.size}
    return partial(WandbRun.open, setup.machine.wandb, setup.folder, config)


def _restore_progress(setup: Setup, optimizer: torch.optim.Optimizer, path: Path) -> int:
    """Load a checkpoint, and return how many steps it has behind it."""
    done = checkpoint.check_identity(path, setup.identity)
    if done > setup.phase.first:
        return checkpoint.restore_checkpoint(path, setup.model, optimizer, setup.identity, setup.group)
    checkpoint.restore_optimizer(path, setup.model, optimizer, setup.group)
    return done


def _load_batches(setup: Setup, done: int) -> Generator[tuple[Batch, ...]]:
    """This rank's micro-batches of every step from `done` on."""
    group, machine, steps = setup.group, setup.machine, range(done, setup.phase.last)
    return load_step_batches(
        setup.reader, setup.training, steps, group.rank, group.size, machine.readers, machine.ahead
    )


def _reduces_once(setup: Setup) -> bool:
    """Whether ranks add up gradients once a step; all do the same."""
    held, memory = count_held(setup.model.parameters(), setup.group.size), measure_memory(setup.device)
    return all(setup.group.gather(reduces_once(setup.machine, held, memory, setup.training.accumulation)))


def _take_step(
    setup: Setup, learner: Learner, optimizer: torch.optim.Optimizer, step: int, batch: tuple[Batch, ...]
) -> dict[str, Any]:
    """One update of the weights; returns the step's line of the log, without its times.

    The gradient is that of the weighted mean over all supervised tokens of the step, whatever ranks and micro-batches
    they stand in.
    """
    training, group = setup.training, setup.group
    torch.manual_seed(int(hash_value([training.seed, step, group.rank])[:15], 16))  # of dropout
    counted = torch.tensor(_count_tokens(batch), dtype=torch.float64, device=setup.device)
    *counts, weight = group.total(counted).tolist()
    supervised, tokens, places, tiles = map(int, counts)
    sums = torch.zeros(3, len(setup.reader.mixture.sources), dtype=torch.float64, device=setup.device)
    for number, micro in enumerate(batch, start=1):
        group.reduce_after(learner, last=not learner.reduces_once or number == len(batch))
        losses, sources = learner(micro)
        weights = micro.weights.to(losses.device)
        ((losses * weights).sum() / (weight or 1.0)).backward()
        sums[0].index_add_(0, sources, (losses.detach() * weights).double())
        sums[1].index_add_(0, sources, weights.double())
        sums[2].index_add_(0, sources, torch.ones_like(sources, dtype=torch.float64))
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in trained:  # no gradient counts as zero, so that the optimizer's state is whole after any step
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    norm = nn.utils.clip_grad_norm_(trained, training.clip or float("inf"))
    rates = set_rates(optimizer, scale_rate(step, setup.steps, training))
    optimizer.step()
    optimizer.zero_grad()
    lost, weighed, taught = group.total(sums).tolist()
    return {
        "step": step,
        "loss": sum(lost) / (weight or 1.0),
        "sources": {
            name: {"loss": lost[i] / weighed[i], "weight": weighed[i] / weight, "supervised": int(taught[i])}
            for i, name in enumerate(setup.reader.mixture.sources)
            if weighed[i]
        },
        "learning_rate": dict(rates),
        "gradient_norm": float(norm.full_tensor() if isinstance(norm, DTensor) else norm),
        "supervised": supervised,
        "tokens": tokens,
        "padding": places - tokens,
        "tiles": tiles,
    }


def _count_work(batch: tuple[Batch, ...], price: Cost, setup: Setup) -> dict[str, float]:
    """Floating point operations of a step over all ranks, and how unevenly they are dealt (see train/balance.py)."""
    mine = torch.tensor([price.split(micro) for micro in batch], dtype=torch.float64, device=setup.device)
    if setup.group.size == 1:
        return {"flops": float(mine.sum())}
    slowest, total = float(setup.group.most(mine.clone()).sum()), float(setup.group.total(mine).sum())
    return {"flops": total, "imbalance": round(slowest * setup.group.size / total, 4) if total else 1.0}


def _count_tokens(batch: tuple[Batch, ...]) -> list[float]:
    """Supervised tokens, tokens, places (tokens and padding), tiles and weight of the loss of a rank's step."""
    tiles = sum(micro.shown for micro in batch)
    places = sum(micro.ids.numel() for micro in batch)
    weight = sum(float(micro.weights.sum(dtype=torch.float64)) for micro in batch)
    return [sum(micro.supervised for micro in batch), sum(micro.tokens for micro in batch), places, tiles, weight]
