"""How fast render's writer puts samples into shards: `python -m benchmarks.write_shards [--samples N]`.

One sample has 1 kB of text and two pictures of one size, as encoded. Prints CPU time, for a shared disk's own time says
little.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from vlmill.pipeline.core.sample import Node, Sample, SampleId
from vlmill.pipeline.images import Layout
from vlmill.pipeline.shards.writer import Rendered, ShardSample, ShardWriter

PICTURES = {"20 kB": 20_000, "200 kB": 200_000}
ROUNDS = 3


def make_samples(count: int, size: int) -> list[ShardSample]:
    """`count` samples that share two pictures of `size` random bytes."""
    nodes = (Node("image", "user", image=0), Node("image", "user", image=1), Node("text", "assistant", text="x" * 1000))
    layout = Layout((384, 384), (384, 384), (1, 1), 1, 81)
    images = tuple(Rendered(layout, {"canvas": ("webp", os.urandom(size))}, "f" * 64) for _ in range(2))
    return [
        ShardSample(f"{row:015d}", Sample(SampleId("web", "a.parquet", row), nodes, "", ""), (0, 1, 2), images)
        for row in range(count)
    ]


def measure(samples: list[ShardSample]) -> float:
    """Seconds of CPU that one sample takes, of the best round."""
    best = float("inf")
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            with ShardWriter(Path(folder), len(samples), 1 << 40) as writer:
                for sample in samples:
                    writer.add(sample)
            best = min(best, time.process_time() - began)
    return best / len(samples)


def main() -> None:
    """Print a line for each size of picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ShardWriter(Path(folder), 1, 1 << 40) as writer:
        writer.add(make_samples(1, 1)[0])  # imports
    for name, size in PICTURES.items():
        seconds = measure(make_samples(arguments.samples, size))
        print(f"two pictures of {name}: {1e3 * seconds:.3f} ms of CPU a sample, {2 * size / seconds / 1e6:.0f} MB/s")


if __name__ == "__main__":
    main()
