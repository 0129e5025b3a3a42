"""What the benchmarks of dedupe have in common: its steps over one partition, and how results are measured."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vlmill.pipeline.core.sample import ImageStats, Sample, read_rows, write_image_stats, write_samples
from vlmill.pipeline.dedupe import Dedupe

DEFAULTS = Dedupe()


def read_texts(corpus: Path) -> list[str]:
    """The text of every document, files and rows in order."""
    paths = sorted((corpus / "obelics/parquet").glob("*.parquet"))
    rows = (row for path in paths for row in read_rows(path, ["texts"]))
    return ["\n".join(text for text in row["texts"] if text) for row in rows]


def run_steps(
    samples: Sequence[Sample], image_stats: Sequence[ImageStats], settings: Dedupe = DEFAULTS
) -> tuple[Path, dict[str, float]]:
    """A folder with what signature, pairs and resolve leave of one partition, and the CPU seconds that each took."""
    folder, seconds = Path(tempfile.mkdtemp()), dict[str, float]()
    write_samples(folder / "samples.parquet", samples)
    write_image_stats(folder / "image_stats.parquet", image_stats)
    start = time.process_time()
    settings.signature().run({name: folder / name for name in ("samples.parquet", "image_stats.parquet")}, folder)
    seconds["signature"] = time.process_time() - start
    inputs = {f"web/0/{path.name}": path for path in folder.iterdir()}
    for name, steps in (("candidates", settings.candidates()), ("pairs", settings.pair_steps())):
        start, made = time.process_time(), dict[str, Path]()
        for number, step in enumerate(steps):
            target = folder / f"{name}-{number:05d}"
            target.mkdir()
            step.run(inputs, target)  # type: ignore[attr-defined]
            made |= {f"{number:05d}/{path.name}": path for path in target.iterdir()}
        inputs |= made
        seconds[name] = time.process_time() - start
    start = time.process_time()
    settings.resolve(partitions=("web/0",), priority={}, filters=(), captioned=()).run(inputs, folder)
    seconds["resolve"] = time.process_time() - start
    return folder, seconds


def found_pairs(folder: Path, kind: str, threshold: float) -> set[tuple[int, int]]:
    """Pairs of keys at or above the threshold."""
    rows = (row for path in folder.glob(f"*/{kind}.pairs.parquet") for row in read_rows(path))
    return {(row["one"], row["other"]) for row in rows if row["similarity"] >= threshold}


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def score(what: str, true: set[tuple[int, ...]], found: set[tuple[int, ...]]) -> None:
    """Print recall and precision."""
    common = len(true & found)
    print(f"  {what}: {len(true)}, recall {common / len(true):.4f}, precision {common / len(found):.4f}")
