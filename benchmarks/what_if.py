"""How long another threshold takes to answer: `python -m benchmarks.what_if [--samples 1000000]`.

Writes the tables of so many pairs of an image and a text, in partitions of 10,000, each image with a score, and the
verdicts of a threshold that drops a tenth. Then asks what one comes to that drops a fifth: the threshold looks at the
scores of every partition again, and both sets of verdicts are applied. Prints CPU seconds and the most memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from vlmill.pipeline.core.names import IMAGE_STATS_FILE, SAMPLES_FILE, name_scores, name_verdicts
from vlmill.pipeline.core.sample import ImageStats, Node, Sample, SampleId, write_image_stats, write_samples
from vlmill.pipeline.core.scores import Scores, write_scores
from vlmill.pipeline.filters import FilterStep, Threshold
from vlmill.pipeline.filters.threshold import Bound
from vlmill.pipeline.reports.what_if import WhatIfAnswer, compare_partition
from vlmill.pipeline.reports.what_if_verdicts import WhatIfPartition

ROWS = 10_000
WORDS = "A caption of some dozen words that says what a reader of the page would see."


def make_part(folder: Path, number: int) -> dict[str, Path]:
    """The tables of a partition."""
    folder.mkdir()
    pair = (Node("image", image=0, required=True), Node("text", text=WORDS))
    samples = (
        Sample(SampleId("web", f"{number}.parquet", row), (Node("image", image=row, required=True), pair[1]))
        for row in range(ROWS)
    )
    write_samples(folder / SAMPLES_FILE, samples)
    thumbnail = bytes(4096)
    stats = (
        ImageStats(row, None, sha256=f"{row:064x}", width=400, height=300, thumbnail=thumbnail) for row in range(ROWS)
    )
    write_image_stats(folder / IMAGE_STATS_FILE, stats)
    rows, values = np.arange(ROWS, dtype=np.int32), np.random.default_rng(number).random((ROWS, 1), np.float32)
    write_scores(folder / name_scores("match"), Scores(rows, np.zeros_like(rows), (None,) * ROWS, values), ["match"])
    return {name: folder / name for name in (SAMPLES_FILE, IMAGE_STATS_FILE, name_scores("match"))}


def ask_threshold(tables: dict[str, Path], least: float, folder: Path) -> dict[str, Path]:
    """The verdicts of a bound, by filter."""
    folder.mkdir()
    FilterStep(Threshold(any={"match": Bound(min=least)})).run(tables, folder)
    return {"threshold": folder / name_verdicts("threshold")}


def main() -> None:
    """Print what it took, and the answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vlmill-what-if-", dir=arguments.folder) as name:
        root, partitions = Path(name), list[WhatIfPartition]()
        for number in range(arguments.samples // ROWS):
            tables = make_part(root / str(number), number)
            now = ask_threshold(tables, 0.1, root / f"{number}.now")
            partitions.append(WhatIfPartition("web", str(number), tables, now))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        began, answer = time.process_time(), WhatIfAnswer()
        for number, partition in enumerate(partitions):
            partition.then.update(ask_threshold(dict(partition.tables), 0.2, root / f"{number}.then"))
        asked = time.process_time()
        for partition in partitions:
            compare_partition(partition, answer)
        ended = time.process_time()
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = answer.sources["web"]["samples"]
    print(f"{line.came:,} samples: {line.now:,} are kept, {line.then:,} would be")
    print(f"threshold {asked - began:.1f} s, compared {ended - asked:.1f} s of CPU; {before:.0f} -> {most:.0f} MiB")


if __name__ == "__main__":
    main()
