"""How near realised shares are to declared ones, for any number of ranks: `python -m benchmarks.shares`.

A source of 313 samples (as many as VQA-RAD has in The Cauldron) and one of 20,000, half and half, for about a million samples. Printed are the
share of the small source in the first 10^2 to 10^6 samples of the order, then in what all ranks together have read of the plan, and that of
the rank that has least of it: rank r of R reads row s * R + r in step s. Loaders that cut a source into a range per worker run dry where there
are more workers than samples: Megatron-Energon 7.4.1 gives this small source 49.8 % at 256 workers, 30.9 % at 512, 17.2 % at 1,024.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.plan import LENGTH, RANKS, segments_of, write_part
from vlmill.mixtures.config import MixtureSettings
from vlmill.mixtures.steps.mix import Mix, order_samples
from vlmill.mixtures.steps.plan import Plan
from vlmill.mixtures.steps.selection import Selection

SOURCES = {"quiz": 313, "pairs": 20_000}
PREFIXES = tuple(10**power for power in range(2, 7))


def plan(root: Path, unit: str, samples: int) -> tuple[Path, dict[str, Path]]:
    """Plan about `samples` samples; the folder of the blocks, and all inputs by name."""
    entries, mixed, blocks = (root / name for name in ("entries", "mix", "plan"))
    for folder in (entries, mixed, blocks):
        folder.mkdir()
    for source, number in SOURCES.items():
        write_part(entries / source, source, number)
    inputs = {f"{path.parent.name}/{path.name}": path for path in entries.glob("*/*")}
    held = {source: json.loads((entries / source / "selection.json").read_text())["available"] for source in SOURCES}
    mean = sum(each["tokens"] / each["samples"] for each in held.values()) / 2
    budget = samples * mean * (1.1 if unit == "samples" else 1.6)  # in tokens, samples of the shorter kind are more
    shares = dict.fromkeys(SOURCES, 0.5)
    mixture = MixtureSettings(sequence_length=LENGTH, tiles_per_sequence=32, shares=shares, unit=unit, tokens=budget)  # type: ignore[arg-type]
    Mix("bench", mixture, 17).run(inputs, mixed)
    inputs |= {path.name: path for path in mixed.iterdir()}
    for block in range(json.loads(inputs["mix.json"].read_text())["blocks"]):
        Plan(block).run(inputs, blocks)
    return blocks, inputs


def in_order(inputs: dict[str, Path], unit: str) -> dict[int, float]:
    """The small source's share of the first samples of the order, before packing."""
    entries = [Selection.open(inputs, label, unit, 17, MixtureSettings.shard_window) for label in SOURCES]  # type: ignore[arg-type]
    counts = np.load(inputs["starts.npy"])[-1].tolist()
    order = np.fromiter(islice(order_samples(entries, [0] * len(entries), counts), max(PREFIXES)), np.int64)
    found = {}
    for prefix in PREFIXES:
        taken = np.bincount(order[:prefix], minlength=2).tolist()
        spent = [entry.spent(count) for entry, count in zip(entries, taken, strict=True)]
        found[prefix] = spent[0] / sum(spent)
    return found


def by_ranks(blocks: Path, unit: str) -> dict[int, dict[int, tuple[float, float]]]:
    """Prefix of rows -> ranks -> the small source's share of all that they read, and of what the poorest of them did."""
    rows, sources, amounts = segments_of(blocks, unit)
    small, every = (np.bincount(rows, amounts * kind) for kind in (sources == 0, np.ones_like(sources)))
    found: dict[int, dict[int, tuple[float, float]]] = {}
    for prefix in (prefix for prefix in PREFIXES if prefix <= rows.max()):
        for ranks in (ranks for ranks in RANKS if ranks <= prefix):
            read = prefix // ranks * ranks
            mine, all_of_it = (np.bincount(np.arange(read) % ranks, amount[:read]) for amount in (small, every))
            poorest = float(np.min(mine / np.maximum(all_of_it, 1)))
            found.setdefault(prefix, {})[ranks] = (float(mine.sum() / all_of_it.sum()), poorest)
    return found


def main() -> None:
    """Print a line per unit and prefix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=float, default=1e6)
    options = parser.parse_args()
    for unit in ("samples", "tokens"):
        with tempfile.TemporaryDirectory() as folder:
            started = time.process_time()
            blocks, inputs = plan(Path(folder), unit, int(options.samples))
            print(f"shares in {unit}: declared 50 %, planned in {time.process_time() - started:.1f} s")
            for prefix, share in in_order(inputs, unit).items():
                print(f"  first {prefix:>9,} samples of the order: {share:.4%}")
            for prefix, ranks in by_ranks(blocks, unit).items():
                shares = ", ".join(
                    f"{number:,} ranks {whole:.3%} (poorest {least:.1%})" for number, (whole, least) in ranks.items()
                )
                print(f"  first {prefix:>9,} rows of the plan: {shares}")


if __name__ == "__main__":
    main()
