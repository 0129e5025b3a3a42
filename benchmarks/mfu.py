"""What one GPU makes of a training: `python -m benchmarks.mfu [--steps N] [--tiny]`.

A Llama of SmolLM2-135M's shape behind a vision tower of SigLIP base's size, LLaVA-NeXT, all parts trained, bfloat16, on
AnyRes shards that it makes itself (documents of one or two generated pictures). The same documents are trained on in
these ways:

    packed, exact      sequences of the plan; documents do not see each other, attention as `attend_packed` chooses
    packed, compiled   the same, layers through torch.compile (with --compile)
    packed, mask       the same through transformers' SDPA path, with its mask of length x length
    packed, unmasked   the same sequences as one text each: constant-length packing as in nanoVLM; other results
    padded             a document per sequence, sequences padded to the longest of the step

For each the MFU by `train/flops.py`, which counts what the documents need and no padding; tokens and tiles per second
without padding; the most memory; the share of the time that the loader was waited for. Then torch.profiler's table of
the first way. `--tiny` is all of it smaller, to try it on a CPU.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel

from benchmarks.loader_run import made
from tests.helpers.stages import write_run, write_tokenizer
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.chat.encode import get_mark_id, load_tokenizer
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.train.attention import attend_packed
from vlmill.train.batch import Batch, Document
from vlmill.train.data import Reader, load_batches
from vlmill.train.distributed import find_layers
from vlmill.train.families import find_family
from vlmill.train.families.base import Family
from vlmill.train.flops import Cost, count_flops, find_peak
from vlmill.train.model import compute_token_losses, create_model, make_optimizer, set_rates
from vlmill.train.settings import ModelSettings, Training

STAGE, VOCABULARY, WARM = "tune", 49_152, 3
TEXT = {"kind": "llama", "hidden_size": 576, "layers": 30, "heads": 9, "kv_heads": 3, "tied": True}
VISION = {"kind": "siglip", "hidden_size": 768, "layers": 12, "heads": 12, "image_size": 336, "patch_size": 14}
TINY = {"hidden_size": 64, "layers": 2, "heads": 2}
TINY_POLICY = AnyRes(side=56, pinpoints=((56, 112), (112, 56), (112, 112)))


@dataclass(frozen=True)
class Learner:
    """A model on its device, and what a step of it needs."""

    family: Family
    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    price: Cost
    device: torch.device
    dtype: torch.dtype
    seen: Callable[[Batch], Batch] = lambda batch: batch  # what the model is shown; counted is what the documents need

    @classmethod
    def of(cls, family: Family, model: PreTrainedModel, training: Training, device: torch.device) -> Learner:
        """One whose every part learns."""
        model.to(device).train()
        descent = make_optimizer(model, family, training)
        set_rates(descent, 1.0)
        price = count_flops(model, family, tuple(training.learning_rate))
        return cls(family, model, descent, price, device, getattr(torch, training.dtype))

    def step(self, batch: Batch) -> tuple[float, int]:
        """Update the weights; returns the sum of losses and the number of supervised tokens."""
        losses, _ = compute_token_losses(self.model, self.family, self.seen(batch), self.device, self.dtype)
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(losses.detach().sum()), losses.numel()  # waits for the device


@dataclass
class Measured:
    """The measurements of some steps; all but the loss leave out the first steps."""

    seconds: float = 0.0
    waited: float = 0.0
    tokens: int = 0
    places: int = 0
    tiles: int = 0
    flops: float = 0.0
    lost: float = 0.0
    supervised: int = 0
    memory: int = 0

    @property
    def speed(self) -> float:
        """Tokens of documents per second."""
        return self.tokens / self.seconds

    def line(self, name: str, best: float | None) -> str:
        """For a person; `best` is the peak of the device."""
        share = f"MFU {self.flops / self.seconds / best:.1%}, " if best else ""
        return (
            f"{name:<18} {share}{self.speed:,.0f} tokens/s, {self.tiles / self.seconds:,.1f} tiles/s, "
            f"{self.flops / self.seconds / 1e12:.3f} TFLOP/s, padding {1 - self.tokens / self.places:.1%}, waited "
            f"{self.waited / self.seconds:.1%}, memory {self.memory / 2**30:.2f} GiB, loss per token "
            f"{self.lost / self.supervised:.4f}"
        )


def train(
    learner: Learner,
    batches: Iterable[tuple[Batch, ...]],
    warm: int = WARM,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """A step per item; `warm` steps first that are not timed."""
    found, steps = Measured(), iter(batches)
    if learner.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(learner.device)
    for number in range(1 << 60):
        began = clock()
        step = next(steps, None)
        waited = clock() - began
        if step is None:
            break
        (batch,) = step
        lost, supervised = learner.step(batch)
        found.lost, found.supervised = found.lost + lost, found.supervised + supervised
        if number < warm:
            continue
        found.seconds += clock() - began
        found.waited += waited
        found.tokens, found.places = found.tokens + batch.tokens, found.places + batch.ids.numel()
        found.tiles, found.flops = found.tiles + batch.shown, found.flops + learner.price.of(batch)
    if learner.device.type == "cuda":
        found.memory = torch.cuda.max_memory_allocated(learner.device)
    return found


def as_one_text(batch: Batch) -> Batch:
    """The same with sequences that are one text each, whatever they hold: a plain causal batch for transformers."""
    return replace(batch, positions=torch.arange(batch.ids.shape[1]).expand_as(batch.ids))


def in_parts(items: Sequence[int], parts: int) -> list[list[list[int]]]:
    """Items in order, in at most so many steps of one micro-batch each."""
    bounds = [len(items) * component // parts for component in range(parts + 1)]
    return [[list(items[first:last])] for first, last in pairwise(bounds) if last > first]


# -- a run to train on


def settle(root: Path, tiny: bool, samples: int) -> tuple[PlannedMixture, ModelSettings]:
    """A run whose tokenizer has SmolLM2's number of tokens, and the model for it."""
    root.mkdir()
    tokenizer = Tokenizer.from_file(str(write_tokenizer(root / "tokenizer.json")))
    if not tiny:
        tokenizer.add_tokens([f"<unused {number}>" for number in range(VOCABULARY - 16 - tokenizer.get_vocab_size())])
        tokenizer.save(str(root / "tokenizer.json"))
    short = [(nodes, shown) for nodes, shown in made(samples, None) if len(shown) < 3]  # none is longer than a sequence
    write_run(root, {"web": short}, TINY_POLICY if tiny else AnyRes(), STAGE, 2048 if tiny else 8192, per_shard=250)
    text, vision = (values | (TINY if tiny else {}) for values in (TEXT, VISION))
    if tiny:
        text, vision = text | {"kv_heads": 1}, vision | {"image_size": TINY_POLICY.side}
    settings: ModelSettings = parse_block(
        ModelSettings, {"family": "llava_next", "vision": vision, "text": text}, "model"
    )
    return PlannedMixture(root, STAGE), settings


def main() -> None:
    """Print a line per way, and the profile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--sequences", type=int, default=4, help="of 8,192 tokens in a step")
    parser.add_argument("--readers", type=int, default=8, help="threads that read and decode")
    parser.add_argument("--compile", action="store_true", help="measure compiled layers as well")
    parser.add_argument("--tiny", action="store_true", help="to see on a CPU that it runs")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not options.tiny and device.type != "cuda":
        parser.error("there is no GPU; --tiny shows on a CPU that it runs")
    with tempfile.TemporaryDirectory() as folder:
        wanted = (options.steps + WARM) * options.sequences
        mixture, settings = settle(Path(folder) / "run", options.tiny, 5 * wanted)
        compare(mixture, settings, options, device)


def compare(
    mixture: PlannedMixture, settings: ModelSettings, options: argparse.Namespace, device: torch.device
) -> None:
    """Train a new model in each way on the same documents."""
    family = find_family(settings, mixture.policy)
    reader = Reader(mixture, load_tokenizer(mixture.tokenizer, mixture.chat), family, "text")
    rates = {"vision": 1e-5, "projector": 1e-4, "text": 1e-5}
    training: Training = parse_block(Training, {"steps": 1, "learning_rate": rates, "dtype": "bfloat16"}, "train")
    count = min(options.steps + WARM, mixture.sequences // options.sequences)
    numbers = list(range(count * options.sequences))
    segments = [segment for number in numbers for segment in mixture.sequence(number)]
    pad = get_mark_id(reader.tokenizer, mixture.chat.pad)
    best = find_peak(device, training.dtype)

    def steps(sequence: Callable[[int], Sequence[Document]], items: Sequence[int]) -> Iterator[tuple[Batch, ...]]:
        return load_batches(sequence, in_parts(items, count), pad, options.readers, 4, reader.blank)

    def alone(item: int) -> list[Document]:
        return [reader.document(segments[item])]

    ways: dict[str, tuple[bool, bool, Callable[[], Iterator[tuple[Batch, ...]]]]] = {
        "packed, exact": (True, False, lambda: steps(reader.sequence, numbers)),
        "packed, mask": (False, False, lambda: steps(reader.sequence, numbers)),
        "packed, unmasked": (False, True, lambda: steps(reader.sequence, numbers)),
        "padded": (False, True, lambda: steps(alone, range(len(segments)))),
    }
    print(f"{count} steps of {options.sequences} sequences, {len(segments)} documents, {_named(device)}", flush=True)
    if options.compile:
        ways["packed, compiled"] = ways["packed, exact"]
    for name, (exact, whole, batches) in ways.items():
        learner = Learner.of(family, create_model(family, reader.tokenizer, mixture.chat, 0), training, device)
        for layer in find_layers(learner.model) if name == "packed, compiled" else ():
            layer.compile(backend="inductor" if device.type == "cuda" else "aot_eager")  # a CPU may have no compiler
        learner = replace(learner, seen=as_one_text) if whole else learner
        with attend_packed(learner.model, device, learner.dtype) if exact else nullcontext():
            try:
                print(train(learner, batches()).line(name, best), flush=True)
            except torch.cuda.OutOfMemoryError:
                print(f"{name:<18} does not fit into the device's memory", flush=True)
        del learner
    learner = Learner.of(family, create_model(family, reader.tokenizer, mixture.chat, 0), training, device)
    kinds: list[Any] = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with attend_packed(learner.model, device, learner.dtype):
        found = list(islice(steps(reader.sequence, numbers), WARM + 2))
        train(learner, found[:WARM])
        with profile(activities=kinds) as profiled:
            train(learner, found[WARM:], 0)
    by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(profiled.key_averages().table(sort_by=by, row_limit=20, max_name_column_width=70))


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


if __name__ == "__main__":
    main()
