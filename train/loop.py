"""The loop of one stage: from the last checkpoint to the last step.

Everything in step s is a function of s: its rows, its learning rates, its random numbers. So a run that was killed and started
again writes the log and the weights of one that was not: to the bit on a CPU with the same number of threads.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedModel

from pipeline.encode import mark_id
from pipeline.errors import RecipeError
from pipeline.keys import digest
from train import checkpoint
from train.data import Batch, Reader, load, rows_of_step
from train.log import Log
from train.model import optimizer as make_optimizer
from train.model import schedule, set_rates, token_losses
from train.settings import Machine, Training
from train.world import World


@dataclass(frozen=True)
class Setup:
    """What a stage's loop works with."""

    reader: Reader
    model: PreTrainedModel
    training: Training
    steps: int
    identity: Mapping[str, Any]  # what the course of the training depends on
    folder: Path  # of checkpoints and the log
    device: torch.device
    machine: Machine
    world: World


def planned_steps(training: Training, plan_rows: int) -> int:
    """Steps of a stage over a plan of so many rows.

    Raises:
        RecipeError: the plan has too few rows.
    """
    if training.epochs is not None:
        steps, enough = training.epochs * plan_rows // training.rows, plan_rows >= training.rows
    else:
        steps = training.steps or 0
        enough = steps * training.rows <= plan_rows
    if not enough:
        raise RecipeError(
            f"train: {steps or 1} steps of {training.rows} rows want {(steps or 1) * training.rows} rows, and the plan has {plan_rows}; "
            "take fewer steps or rows, a larger budget for the mixture, or epochs in place of steps to pass over the plan several times"
        )
    return steps


def run(setup: Setup, console: Console) -> Path:
    """Train from the newest checkpoint to the last step; returns the last checkpoint.

    Raises:
        RecipeError: the rows of a step cannot be shared out.
        StoreError: the newest checkpoint was made under other settings.
    """
    folder, training, world = setup.folder / "checkpoints", setup.training, setup.world
    if training.rows % (training.accumulation * world.size):
        raise RecipeError(
            f"train.rows: {training.rows} rows cannot be cut into {training.accumulation} micro-batches for each of {world.size} ranks"
        )
    setup.model.to(setup.device).train()
    optimizer = make_optimizer(setup.model, setup.reader.family, training)
    kept = checkpoint.complete(folder)
    done = checkpoint.restore(kept[-1], setup.model, optimizer, setup.identity) if kept else 0
    world.wait()
    log = Log(setup.folder / "log.jsonl", setup.reader.mixture.stage, done, setup.steps, console)
    with log if world.leads else nullcontext(), closing(_batches(setup, done)) as batches:
        for step in range(done, setup.steps):
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            line = _step(setup, optimizer, step, batch)
            if world.leads:
                log.write(line, time.perf_counter() - began, waited)
                if (step + 1) % training.checkpoint_every == 0 or step + 1 == setup.steps:
                    checkpoint.save(folder, step + 1, setup.model, optimizer, setup.identity)
                    checkpoint.prune(folder, training.keep_last)
    world.wait()
    return checkpoint.complete(folder)[-1]


def _batches(setup: Setup, done: int) -> Generator[tuple[Batch, ...]]:
    """This rank's micro-batches of every step from `done` on."""
    mixture, training, world = setup.reader.mixture, setup.training, setup.world
    share = {"accumulation": training.accumulation, "rank": world.rank, "ranks": world.size}
    rows = (rows_of_step(step, training.rows, mixture.rows, **share) for step in range(done, setup.steps))
    pad = mark_id(setup.reader.tokenizer, mixture.chat.pad)
    return load(setup.reader.row, rows, pad, setup.machine.readers, setup.machine.ahead, setup.reader.blank)


def _step(setup: Setup, optimizer: torch.optim.Optimizer, step: int, batch: tuple[Batch, ...]) -> dict[str, Any]:
    """One update of the weights; returns the step's line of the log, without its times.

    The gradient is that of the mean over all learnt tokens of the step, whatever ranks and micro-batches they stand in.
    """
    training, world = setup.training, setup.world
    torch.manual_seed(int(digest([training.seed, step, world.rank])[:15], 16))  # of dropout
    counts = world.total(torch.tensor(_counts(batch), device=setup.device)).tolist()
    supervised, tokens, places, tiles = counts
    sums = torch.zeros(2, len(setup.reader.mixture.sources), dtype=torch.float64, device=setup.device)
    for micro in batch:
        losses, sources = token_losses(
            setup.model, setup.reader.family, micro, setup.device, getattr(torch, training.dtype), training.neftune
        )
        (losses.sum() / max(supervised, 1)).backward()
        sums[0].index_add_(0, sources, losses.detach().double())
        sums[1].index_add_(0, sources, torch.ones_like(sources, dtype=torch.float64))
    world.sum_gradients(setup.model)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(trained, training.clip or float("inf"))
    rates = set_rates(optimizer, schedule(step, setup.steps, training))
    optimizer.step()
    optimizer.zero_grad()
    lost, learnt = world.total(sums).tolist()
    return {
        "step": step,
        "loss": sum(lost) / max(supervised, 1),
        "sources": {
            name: {"loss": lost[i] / learnt[i], "supervised": int(learnt[i])}
            for i, name in enumerate(setup.reader.mixture.sources)
            if learnt[i]
        },
        "learning_rate": dict(rates),
        "gradient_norm": float(norm),
        "supervised": supervised,
        "tokens": tokens,
        "padding": places - tokens,
        "tiles": tiles,
    }


def _counts(batch: tuple[Batch, ...]) -> list[int]:
    """Learnt tokens, tokens, places (tokens and padding) and tiles of a rank's step."""
    tiles = sum(micro.shown for micro in batch)
    places = sum(micro.ids.numel() for micro in batch)
    return [sum(micro.supervised for micro in batch), sum(micro.tokens for micro in batch), places, tiles]
