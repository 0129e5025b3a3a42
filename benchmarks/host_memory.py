"""The most memory that ranks take to build and share out a model: `python -m benchmarks.host_memory [--ranks 1 2 4]`.

A model of some 500 MB in float32 (126 million parameters), on processes of this machine that meet through gloo: with
new weights, and with published ones (bfloat16, several files, tokens that they lack). For each rank the most that it
held above what it had when everything was imported, over its share of the parameters: as a training builds the model
(train/deferred.py), and where every rank builds it whole as torch and transformers do.

`--count 8` builds the form of 8 billion parameters (Qwen3-8B's shape behind SigLIP so400m's) and counts what each of so
many ranks holds; nothing is measured.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

from tests.helpers.ranks import run_ranks
from tests.helpers.stages import ANYRES, model_settings, write_tokenizer
from vlmill.pipeline.chat.encode import FORMATS, load_tokenizer
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.train import deferred, new_rows
from vlmill.train.device import prepare_torch
from vlmill.train.distributed import find_layers, join_process_group
from vlmill.train.families import find_family, language, vision
from vlmill.train.model import defer_model
from vlmill.train.settings import Machine, ModelSettings, TextModel

CHAT = FORMATS["vlmill"]
TEXT = TextModel(kind="llama", hidden_size=1024, layers=10, heads=8)
EIGHT = {"kind": "qwen3", "hidden_size": 4096, "layers": 36, "heads": 32, "kv_heads": 8}
SO400M = {"kind": "siglip", "hidden_size": 1152, "layers": 27, "heads": 16, "image_size": 378, "patch_size": 14}
VOCABULARY = 151_936


class Root(nn.Module):
    """What stands around a model in a training."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self) -> None:
        """Nothing is computed here."""


def describe_model(folder: Path, kind: str) -> ModelSettings:
    """New weights, or those of the folder."""
    if kind == "new":
        return replace(model_settings(), text=TEXT)
    parts = {name: {"kind": "pretrained", "path": str(folder / name)} for name in ("vision", "text")}
    return parse_block(ModelSettings, {"family": "llava_next", **parts}, "model")  # type: ignore[no-any-return]


def publish(folder: Path) -> None:
    """Both towers in bfloat16, the language model in files of 50 MB; it has no rows for the chat format's marks."""
    settings, tokenizer = replace(model_settings(), text=TEXT), load_tokenizer(folder / "tokenizer.json", CHAT)
    text = language.configure_text(settings, tokenizer, CHAT)
    text.vocab_size -= len(CHAT.specials)
    text.update({"bos_token_id": None, "eos_token_id": None, "pad_token_id": None})
    AutoModel.from_config(vision.configure_vision(settings)).bfloat16().save_pretrained(folder / "vision")
    made = AutoModelForCausalLM.from_config(text, dtype=torch.bfloat16)
    made.save_pretrained(folder / "text", max_shard_size="50MB")


def read_peak() -> int:
    """The most bytes that this process has held (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


def count_share(parameters: list[nn.Parameter], ranks: int) -> int:
    """Bytes of the largest share in float32: FSDP2 cuts along the first dimension."""
    return sum(4 * -(-len(each) // ranks) * each.shape[1:].numel() for each in parameters)


def build(folder: str, kind: str, way: str) -> None:
    """One rank: build the model, share it out, and note the most that was held."""
    root, cpu = Path(folder), torch.device("cpu")
    tokenizer, settings = load_tokenizer(root / "tokenizer.json", CHAT), describe_model(root, kind)
    family, own = find_family(settings, ANYRES), load_tokenizer(root / "tokenizer.json", CHAT).get_vocab()
    new = new_rows.find_new_rows(settings, tokenizer, CHAT, own)
    with prepare_torch(Machine(device="cpu", threads=1), cpu), join_process_group(cpu) as group:
        warm = Root(defer_model(find_family(model_settings(), ANYRES), tokenizer, CHAT, 0))
        group.shard(warm, cpu, torch.float32)  # which imports everything
        Path("/proc/self/clear_refs").write_text("5")  # begins to count anew
        before = read_peak()
        if way == "at once":
            torch.manual_seed(0)
            model = family.build(tokenizer, CHAT)
            new_rows.draw_rows(model, tokenizer, new)
        else:
            model = defer_model(family, tokenizer, CHAT, 0, new=new)
        share = count_share(list(model.parameters()), group.size)
        group.shard(Root(model), cpu, torch.float32)
        (root / f"{kind}-{way}-{group.rank}").write_text(f"{share} {read_peak() - before}")


def count_eight_billion(ranks: int) -> None:
    """Print what each rank holds, by count."""
    settings = parse_block(ModelSettings, {"family": "llava_next", "vision": SO400M, "text": EIGHT}, "model")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = load_tokenizer(write_tokenizer(Path(folder) / "tokenizer.json"), CHAT)
    tokenizer.add_tokens([f"<unused {number}>" for number in range(VOCABULARY - tokenizer.get_vocab_size())])
    with torch.device("meta"):
        model = find_family(settings, AnyRes(side=378, patch=14, pinpoints=((378, 756), (756, 378)))).build(
            tokenizer, CHAT
        )
    parameters, layers = list(model.parameters()), find_layers(model)
    inside = {id(each) for layer in layers for each in layer.parameters()}
    unit = sum(4 * each.numel() for each in parameters if id(each) not in inside)
    whole, share = sum(4 * each.numel() for each in parameters), count_share(parameters, ranks)
    small = sum(4 * each.numel() for each in parameters if each.numel() < deferred.LEAST)
    most = max(4 * -(-len(each) // ranks) * each.shape[1:].numel() for each in parameters)
    chunks = 3 * 4 * (deferred.CHUNK + deferred.TAIL)
    print(f"{whole / 4e9:.2f} billion parameters on {ranks} ranks, {whole / 1e9:.2f} GB in float32")
    print(f"share of a rank {share / 1e9:.3f} GB; largest share of a parameter {most / 1e6:,.0f} MB")
    print(f"held besides: {small / 1e6:.1f} MB of small parameters whole, {chunks / 1e6:.1f} MB of chunks")
    print(f"padding of an uneven share copies it: {(share + small + chunks + most) / share:.3f} of the share at most")
    print(f"built by the first rank and sent: {whole / share:.2f} there, {(share + unit) / share:.2f} on the others")


def main() -> None:
    """Print a line per kind, way and rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2])
    parser.add_argument("--count", type=int, metavar="RANKS", help="count for 8 billion parameters")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.count:
        count_eight_billion(options.count)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder) / "tokenizer.json")
        publish(Path(folder))
        for ranks, kind, way in [
            (r, k, w) for r in options.ranks for k in ("new", "published") for w in ("deferred", "at once")
        ]:
            run_ranks(ranks, build, folder, kind, way)
            for rank in range(ranks):
                share, held = map(int, (Path(folder) / f"{kind}-{way}-{rank}").read_text().split())
                print(
                    f"{ranks} ranks, {kind} weights, {way}: rank {rank} held {held / 1e6:,.0f} MB, "
                    f"{held / share:.2f} of its share of {share / 1e6:,.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    from benchmarks.host_memory import main as run  # so that ranks find `build` by its module

    run()
