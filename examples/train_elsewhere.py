"""Trains on a stage's plan in two loops that are not vlmill's: transformers' Trainer, and a plain one with Accelerate.

    python examples/train_elsewhere.py RUN STAGE trainer EXPORT STEPS
    python examples/train_elsewhere.py RUN STAGE accelerate EXPORT STEPS

EXPORT is a folder that transformers loads, such as RUN/train/STAGE/export. What a step sees, packed and in which order,
is what `vlmill train` would see; the optimizer and the schedule are the other loop's. Both need the package accelerate.
"""

from __future__ import annotations

import sys
import tempfile

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader
from transformers import AutoModelForImageTextToText, PreTrainedModel, Trainer, TrainingArguments

import vlmill


class PlanTrainer(Trainer):
    """A Trainer that takes batches as they are planned: packed, and dealt over ranks."""

    def get_train_dataloader(self) -> DataLoader:
        """Without workers and samplers of its own."""
        return DataLoader(self.train_dataset, batch_size=None)


def train_with_trainer(stage: vlmill.StageMixture, model: PreTrainedModel, steps: int) -> list[float]:
    """The loss of each step.

    To go on from a Trainer's checkpoint, give `ignore_data_skip=True` and a dataset that starts there.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps, logging_steps=1, report_to=[], save_strategy="no", use_cpu=True
        )
        trainer = PlanTrainer(model, arguments, train_dataset=stage.torch_dataset(model))
        trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def train_with_accelerate(stage: vlmill.StageMixture, model: PreTrainedModel, steps: int) -> list[float]:
    """The loss of each step. The state of the data is a dict to keep with each checkpoint."""
    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), 5e-5))
    inner = accelerator.unwrap_model(model)
    dataset = stage.torch_dataset(inner, rank=accelerator.process_index, ranks=accelerator.num_processes)
    losses = []
    for _, batch in zip(range(steps), DataLoader(dataset, batch_size=None), strict=False):
        loss = model(**send_to_device(batch, accelerator.device)).loss
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


LOOPS = {"trainer": train_with_trainer, "accelerate": train_with_accelerate}

if __name__ == "__main__":
    if len(sys.argv) != 6 or sys.argv[3] not in LOOPS:
        sys.exit("usage: python train_elsewhere.py RUN STAGE trainer|accelerate EXPORT STEPS")
    run, name, loop, export, count = sys.argv[1:]
    loaded = AutoModelForImageTextToText.from_pretrained(export)
    print(LOOPS[loop](vlmill.open_run(run).stage(name), loaded, int(count)))
