"""Packed against padded training on documents of OBELICS-like lengths: `python -m benchmarks.padding`.

Text alone (log-normal, 490 tokens in the median, cut at a row's length), one small Llava on a CPU, every way over the same documents and with as many
steps, from the same weights and with a learning rate of next to nothing, so that losses can be compared:

    vlmill, packed       rows of 2,048 tokens by mixtures/algorithms/pack.py; documents do not see each other
    vlmill, padded       a document per row, rows padded to the longest of the step
    Trainer, padded      transformers' Trainer with DataCollatorForSeq2Seq: the same, with an attention mask
    Trainer, flattened   the same with DataCollatorWithFlattening: all documents of a step in one row, positions from 0

Useful tokens are those of documents; seconds are of the processor, one thread. The loss is the mean over all supervised tokens: where it is another one, documents were not what they are alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)
from transformers.utils import logging

from benchmarks.mfu import Learner, Measured, in_parts, train
from tests.helpers.stages import model_settings, write_tokenizer
from vlmill.mixtures.algorithms.pack import pack_segments as packed_rows
from vlmill.pipeline.chat.encode import FORMATS, IGNORE, load_tokenizer
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.train.batch import Batch, Document, pad_sequences
from vlmill.train.families import find_family
from vlmill.train.model import create_model
from vlmill.train.settings import Training

LENGTH, CHAT = 2048, FORMATS["vlmill"]
WEIGHT = 6
"""New weights times this: a token's loss then depends on what it attends to, as in a trained model."""


def documents(count: int) -> list[Document]:
    """Random tokens, all but the first supervised."""
    random = np.random.default_rng(0)
    lengths = (random.lognormal(6.2, 1.0, count).astype(int) + 8).clip(8, LENGTH)
    texts = (random.integers(0, 250, length).tolist() for length in lengths.tolist())
    return [Document(0, text, [IGNORE, *text[1:]]) for text in texts]


def rows_of(texts: list[Document]) -> list[list[Document]]:
    """The documents in packed rows."""
    lengths = np.array([len(text.ids) for text in texts])
    rows = packed_rows(lengths, np.zeros_like(lengths), LENGTH, 1)
    return [[texts[place] for place in np.flatnonzero(rows == row).tolist()] for row in range(int(rows.max()) + 1)]


class Counting(Trainer):  # type: ignore[misc] - untyped there
    """Trainer, which adds up what it supervised on."""

    found: Measured

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **more: Any) -> Any:
        """Trainer's own."""
        labels = inputs["labels"]
        supervised = int((labels[:, 1:] != IGNORE).sum())
        self.found.places += labels.numel()
        loss = super().compute_loss(model, inputs, *args, **more)
        self.found.lost, self.found.supervised = (
            self.found.lost + loss.item() * supervised,
            self.found.supervised + supervised,
        )
        return loss


def by_trainer(model: Any, texts: list[Document], collator: Any, steps: int, folder: str) -> Measured:
    """Train with transformers' Trainer."""
    data = [{"input_ids": list(text.ids), "labels": list(text.labels)} for text in texts]
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=len(data) // steps,
        max_steps=steps,
        learning_rate=1e-12,
        max_grad_norm=1.0,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        dataloader_pin_memory=False,
    )
    trainer = Counting(model=model, args=arguments, train_dataset=data, data_collator=collator)
    trainer.found = Measured(tokens=sum(len(text.ids) for text in texts))
    began = time.process_time()
    trainer.train()
    trainer.found.seconds = time.process_time() - began
    return trainer.found


def main() -> None:
    """Print a line per way, each the faster of two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=96)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    """All ways in turns."""
    tokenizer = load_tokenizer(write_tokenizer(folder / "tokenizer.json"), CHAT)
    policy = Letterbox(side=28, patch=14)
    family = find_family(model_settings("llava"), policy)
    rates = {"vision": 1e-12, "projector": 1e-12, "text": 1e-12}
    training: Training = parse_block(Training, {"steps": 1, "learning_rate": rates}, "train")
    texts = documents(options.documents // options.steps * options.steps)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=CHAT.pad)

    def batches(rows: list[list[Document]]) -> Iterator[tuple[Batch, ...]]:
        for ((*numbers,),) in in_parts(range(len(rows)), options.steps):
            yield (pad_sequences([rows[number] for number in numbers], 0),)

    def model() -> PreTrainedModel:
        made = create_model(family, tokenizer, CHAT, 0)
        for weights in made.parameters():
            if weights.ndim > 1:
                weights.data.mul_(WEIGHT)
        return made

    def ours(rows: list[list[Document]]) -> Measured:
        learner = Learner.of(family, model(), training, torch.device("cpu"))
        return train(learner, batches(rows), 0, time.process_time)

    def theirs(collator: Any) -> Measured:
        return by_trainer(model(), texts, collator, options.steps, str(folder))

    ways: dict[str, Callable[[], Measured]] = {
        "vlmill, packed": lambda: ours(rows_of(texts)),
        "vlmill, padded": lambda: ours([[text] for text in texts]),
        "Trainer, padded": lambda: theirs(DataCollatorForSeq2Seq(wrapped)),
        "Trainer, flattened": lambda: theirs(DataCollatorWithFlattening()),
    }
    found: dict[str, Measured] = {}
    for name in [name for _ in range(options.rounds) for name in ways]:
        result = ways[name]()
        if name not in found or result.speed > found[name].speed:
            found[name] = result
    tell(found)


def tell(found: Mapping[str, Measured]) -> None:
    """Print a line per way."""
    for name, result in found.items():
        ratio = found["vlmill, packed"].speed / result.speed
        print(
            f"{name:<20} {result.speed:9,.0f} useful tokens/s, packed over it {ratio:.2f}, "
            f"padding {1 - result.tokens / result.places:.1%}, loss {result.lost / result.supervised:.5f}"
        )


if __name__ == "__main__":
    main()
