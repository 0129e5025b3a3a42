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
class Stage:
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
    once = plan_rows // training.rows
    steps = (
        training.steps if training.steps is not None else (training.epochs or 0) * plan_rows // training.rows
    )
    if once == 0 or (training.steps is not None and steps > once):
        raise RecipeError(
            f"train.steps: {steps or 1} steps of {training.rows} rows want {(steps or 1) * training.rows} rows, and the plan holds {plan_rows} ({once} steps); "
            "take fewer steps or rows, a larger budget for the mixture, or epochs in place of steps to pass over the plan several times"
        )
    return steps


def run(stage: Stage, console: Console) -> Path:
    """Train from the newest checkpoint to the last step; returns the last checkpoint."""
    folder = stage.folder / "checkpoints"
    stage.model.to(stage.device).train()
    optimizer = make_optimizer(stage.model, stage.reader.family, stage.training)
    kept = checkpoint.complete(folder)
    done = checkpoint.restore(kept[-1], stage.model, optimizer, stage.identity) if kept else 0
    stage.world.wait()
    log = Log(stage.folder / "log.jsonl", stage.reader.mixture.stage, done, stage.steps, console)
    with log if stage.world.leads else nullcontext(), closing(_batches(stage, done)) as batches:
        for step in range(done, stage.steps):
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            line = _step(stage, optimizer, step, batch)
            spent = time.perf_counter() - began
            if stage.world.leads:
                log.write(
                    {
                        **line,
                        "tokens_per_second": round(line["tokens"] / spent, 1),
                        "waited": round(waited / spent, 4),
                    }
                )
                if (step + 1) % stage.training.checkpoint_every == 0 or step + 1 == stage.steps:
                    checkpoint.save(
                        folder,
                        step + 1,
                        stage.model,
                        optimizer,
                        identity=stage.identity,
                        keep_last=stage.training.keep_last,
                    )
    stage.world.wait()
    return checkpoint.complete(folder)[-1]


def _batches(stage: Stage, done: int) -> Generator[tuple[Batch, ...]]:
    """This rank's micro-batches of every step from `done` on."""
    mixture, training, world = stage.reader.mixture, stage.training, stage.world
    rows = (
        rows_of_step(
            step,
            training.rows,
            mixture.rows,
            accumulation=training.accumulation,
            rank=world.rank,
            ranks=world.size,
        )
        for step in range(done, stage.steps)
    )
    return load(
        stage.reader.row,
        rows,
        mark_id(stage.reader.tokenizer, mixture.chat.pad),
        stage.machine.readers,
        stage.machine.ahead,
    )


def _step(
    stage: Stage, optimizer: torch.optim.Optimizer, step: int, batch: tuple[Batch, ...]
) -> dict[str, Any]:
    """One update of the weights; returns the step's line of the log, without its times.

    The gradient is that of the mean over all learnt tokens of the step, whatever ranks and micro-batches they stand in.
    """
    training, world = stage.training, stage.world
    torch.manual_seed(int(digest([training.seed, step, world.rank])[:15], 16))  # of dropout
    counts = world.total(torch.tensor(_counts(batch), device=stage.device)).tolist()
    supervised, tokens, places, tiles = counts
    sums = torch.zeros(2, len(stage.reader.mixture.sources), dtype=torch.float64, device=stage.device)
    for micro in batch:
        losses, sources = token_losses(
            stage.model, stage.reader.family, micro, stage.device, getattr(torch, training.dtype)
        )
        (losses.sum() / max(supervised, 1)).backward()
        sums[0].index_add_(0, sources, losses.detach().double())
        sums[1].index_add_(0, sources, torch.ones_like(sources, dtype=torch.float64))
    world.sum_gradients(stage.model)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(trained, training.clip or float("inf"))
    rates = set_rates(optimizer, schedule(step, stage.steps, training))
    optimizer.step()
    optimizer.zero_grad()
    lost, learnt = world.total(sums).tolist()
    return {
        "step": step,
        "loss": sum(lost) / max(supervised, 1),
        "sources": {
            name: {"loss": lost[i] / learnt[i], "supervised": int(learnt[i])}
            for i, name in enumerate(stage.reader.mixture.sources)
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
    tiles = sum(len(tile) for micro in batch for tile in micro.tiles)
    places = sum(micro.ids.numel() for micro in batch)
    return [sum(micro.supervised for micro in batch), sum(micro.tokens for micro in batch), places, tiles]
