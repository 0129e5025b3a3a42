"""What only a GPU shows, in about ten minutes of one: `python -m benchmarks.gpu [--tiny] [--seconds 540]`.

    attention   PyTorch's variable-length attention beside SDPA with a mask, on documents packed to 8,192 tokens,
                forward and backward in bfloat16: milliseconds, and how far each is from SDPA in float32 over each
                document alone
    loss        the loss in chunks (train/cross_entropy.py) beside that of all logits at once, 8,192 tokens over a
                vocabulary of 151,936: milliseconds, the most memory, how far losses and gradients are apart
    optimizer   AdamW fused and not, over 135 million parameters
    training    `benchmarks.mfu`: MFU, memory and tokens per second of SmolLM2-135M's shape behind SigLIP base's with
                random weights; packed, padded, compiled; then torch.profiler's table

A part is left out when less than a minute is left. `--tiny` runs every line of all parts on a CPU with small sizes,
where documents are attended to one by one in the kernel's place. Times there mean nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

from benchmarks import mfu
from vlmill.train import attention, cross_entropy
from vlmill.train.cross_entropy import compute_cross_entropy

REPEATS = 10
LEFT = 60.0
"""Seconds that a part has to be left."""


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    tokens: int = 8192
    documents: int = 12
    heads: int = 9  # of SmolLM2-135M, over three of keys and values
    kv_heads: int = 3
    width: int = 64
    vocabulary: int = 151_936
    hidden: int = 2048
    parameters: int = 135_000_000


TINY = Sizes(tokens=256, documents=5, vocabulary=2048, hidden=64, parameters=100_000)


def attend_documents(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, *_: Any, **__: Any
) -> torch.Tensor:
    """Causal attention (tokens, heads, width) of one document after the other, with `varlen_attn`'s first arguments."""
    found = []
    for start, end in pairwise(bounds.tolist()):
        parts = (each[start:end].transpose(0, 1) for each in (query, key, value))
        found.append(functional.scaled_dot_product_attention(*parts, is_causal=True, enable_gqa=True).transpose(0, 1))
    return torch.cat(found)


def measure(device: torch.device, work: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of a call in the mean, and the most GiB that it holds beside what was held before."""
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    began = time.perf_counter()
    for _ in range(REPEATS):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    spent = (time.perf_counter() - began) / REPEATS
    held = torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 0
    return 1000 * spent, held / 2**30


def compare_attention(device: torch.device, sizes: Sizes) -> None:
    """Print a line per way to attend."""
    torch.manual_seed(0)
    cuts = torch.randperm(sizes.tokens - 1)[: sizes.documents - 1].sort().values + 1
    bounds = torch.tensor([0, *cuts.tolist(), sizes.tokens], dtype=torch.int32, device=device)
    longest = int(bounds.diff().max())
    heads = (sizes.heads, sizes.kv_heads, sizes.kv_heads)
    exact = [torch.randn(sizes.tokens, number, sizes.width, device=device, requires_grad=True) for number in heads]
    rounded = [each.detach().bfloat16().requires_grad_() for each in exact]
    gradient = torch.randn(sizes.tokens, sizes.heads, sizes.width, device=device)
    document = torch.bucketize(torch.arange(sizes.tokens, device=device), bounds[1:].long(), right=True)
    place = torch.arange(sizes.tokens, device=device)
    mask = (document[:, None] == document) & (place[:, None] >= place)

    def flash(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        kernel: Any = varlen_attn if device.type == "cuda" else attend_documents
        window: dict[str, Any] = {"window_size": (-1, 0), "enable_gqa": True}
        return kernel(query, key, value, bounds, bounds, longest, longest, **window)  # type: ignore[no-any-return]

    def masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        parts = (each.transpose(0, 1)[None] for each in (query, key, value))
        found = functional.scaled_dot_product_attention(*parts, mask, enable_gqa=True)
        return found[0].transpose(0, 1)

    def run(work: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        found = work(*inputs)
        return [found.detach(), *torch.autograd.grad(found, inputs, gradient.to(found.dtype))]

    right = run(lambda *parts: attend_documents(*parts, bounds), exact)
    for name, work in {"variable length": flash, "mask": masked}.items():
        off = [float((one.float() - other).abs().max()) for one, other in zip(run(work, rounded), right, strict=True)]
        spent, held = measure(device, lambda work=work: run(work, rounded))  # type: ignore[misc]
        said = ", ".join(f"{part} {value:.4f}" for part, value in zip(("result", "dq", "dk", "dv"), off, strict=True))
        print(f"attention, {name:<16} {spent:8.2f} ms, {held:.2f} GiB, off by at most: {said}", flush=True)


def compare_losses(device: torch.device, sizes: Sizes) -> None:
    """Print a line for the loss of all tokens at once, and one for that in chunks."""
    torch.manual_seed(0)
    head = nn.Linear(sizes.hidden, sizes.vocabulary, bias=False, device=device)
    hidden = torch.randn(sizes.tokens, sizes.hidden, device=device, requires_grad=True)
    labels = torch.randint(0, sizes.vocabulary, (sizes.tokens,), device=device)

    def run(work: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
        with torch.autocast(device.type, torch.bfloat16):
            losses = work(head, hidden, labels)
        return [losses.detach(), *torch.autograd.grad(losses.mean(), [hidden, head.weight])]

    def whole(head: nn.Linear, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(head(hidden).float(), labels, reduction="none")

    ways = {"whole": whole, "chunks": compute_cross_entropy}
    found = {name: run(work) for name, work in ways.items()}
    for name, work in ways.items():
        spent, held = measure(device, lambda work=work: run(work))  # type: ignore[misc]
        print(f"loss, {name:<8} {spent:8.2f} ms, {held:.2f} GiB", flush=True)
    off = [float((one - other).abs().max()) for one, other in zip(found["whole"], found["chunks"], strict=True)]
    print(f"loss, apart by at most: {off[0]:.2e}, gradients {off[1]:.2e} and {off[2]:.2e} (of the head)", flush=True)


def compare_optimizers(device: torch.device, sizes: Sizes) -> None:
    """Print a line for AdamW in many kernels, and one for the fused one."""
    for fused in (False, True):
        weights = [nn.Parameter(torch.randn(sizes.parameters // 100, device=device)) for _ in range(100)]
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        optimizer = torch.optim.AdamW(weights, fused=fused or None)
        spent, held = measure(device, optimizer.step)
        print(f"optimizer, {'fused' if fused else 'plain'} {spent:8.2f} ms, {held:.2f} GiB", flush=True)


def compare_training(device: torch.device, *, tiny: bool) -> None:
    """Print the lines of `benchmarks.mfu`."""
    steps, sequences = (1, 1) if tiny else (12, 2)
    options = Namespace(steps=steps, sequences=sequences, readers=2 if tiny else 12, tiny=tiny, compile=True)
    with tempfile.TemporaryDirectory() as folder:
        mixture, settings = mfu.settle(Path(folder) / "run", tiny, 5 * (steps + mfu.WARM) * sequences)
        mfu.compare(mixture, settings, options, device)


def main() -> None:
    """Run all parts that there is time for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="to see on a CPU that it runs")
    parser.add_argument("--seconds", type=float, default=540, help="after which no part is begun")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not options.tiny and device.type != "cuda":
        parser.error("there is no GPU; --tiny shows on a CPU that it runs")
    if device.type == "cpu":
        attention.varlen_attn = attend_documents  # type: ignore[assignment]
        attention.use_flash = lambda *_: True
    sizes, ends = TINY if options.tiny else Sizes(), time.monotonic() + options.seconds
    if options.tiny:
        cross_entropy.LOGITS = sizes.tokens * sizes.vocabulary // 4
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}", flush=True)
    parts: dict[str, Callable[[], None]] = {
        "attention": lambda: compare_attention(device, sizes),
        "loss": lambda: compare_losses(device, sizes),
        "optimizer": lambda: compare_optimizers(device, sizes),
        "training": lambda: compare_training(device, tiny=options.tiny),
    }
    for part, work in parts.items():
        if ends - time.monotonic() < LEFT:
            print(f"{part}: left out, there is no time left", flush=True)
            continue
        try:
            work()
        except RuntimeError as error:  # what CUDA refuses is a result, and the other parts are measured
            print(f"{part}: {type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main()
