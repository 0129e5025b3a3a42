"""The most memory that ranks take to build and share out a model: `python -m benchmarks.host_memory [--ranks 2]`.

A model of some 500 MB of random float32 weights (126 million parameters), on processes of this machine that meet
through gloo. For each rank the most that it held above what it had after imports, over the bytes of the whole model:
where every rank builds it whole, and as a training does it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from tests.helpers.ranks import run_ranks
from tests.helpers.stages import ANYRES, model_settings, write_tokenizer
from vlmill.pipeline.chat.encode import FORMATS, load_tokenizer
from vlmill.train.device import prepare_torch
from vlmill.train.distributed import join_process_group
from vlmill.train.families import find_family
from vlmill.train.model import create_empty_model, create_model
from vlmill.train.settings import Machine, TextModel

TEXT = TextModel(kind="llama", hidden_size=1024, layers=10, heads=8)


class Root(nn.Module):
    """What stands around a model in a training."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self) -> None:
        """Nothing is computed here."""


def read_peak() -> int:
    """The most bytes that this process has held (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


def build(folder: str, way: str) -> None:
    """One rank: build the model, share it out, and note the most that was held."""
    chat, cpu = FORMATS["vlmill"], torch.device("cpu")
    tokenizer = load_tokenizer(Path(folder) / "tokenizer.json", chat)
    family = find_family(replace(model_settings(), text=TEXT), ANYRES)
    with prepare_torch(Machine(device="cpu", threads=1), cpu), join_process_group(cpu) as group:
        Path("/proc/self/clear_refs").write_text("5")  # begins to count anew
        before = read_peak()
        if way == "whole" or group.leads:
            model = create_model(family, tokenizer, chat, 0)
        else:
            model = create_empty_model(family, tokenizer, chat)
        size = sum(4 * parameter.numel() for parameter in model.parameters())
        group.shard(Root(model), cpu, torch.float32)
        (Path(folder) / f"{way}-{group.rank}").write_text(f"{size} {read_peak() - before}")


def main() -> None:
    """Print a line per way and rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder) / "tokenizer.json")
        for way in ("whole", "training"):
            run_ranks(options.ranks, build, folder, way)
            for rank in range(options.ranks):
                size, held = map(int, (Path(folder) / f"{way}-{rank}").read_text().split())
                print(
                    f"{way:<9} rank {rank}: {held / 1e6:,.0f} MB, {held / size:.2f} of the model's {size / 1e6:,.0f} MB"
                )


if __name__ == "__main__":
    from benchmarks.host_memory import main as run  # so that ranks find `build` by its module

    run()
