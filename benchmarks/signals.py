"""What scoring costs beside decoding: `python -m benchmarks.signals [--images 3000] [--repeats 3]`.

Draws photographs of 1600 x 1200 px with captions and curates them. Then in turn, as often as `--repeats` says: decodes
them alone, in as many processes as there are workers, by the function that feeds models; and scores them with a dual
encoder as a build does, under the resources that a recipe has by default. The default model is the quickstart's tiny
CLIP, so decoding is what bounds it.

Prints images a second of both, from the first task to the last receipt, with the model's start-up; of scoring also over
its second half, when what was decoded while the model loaded (up to 600 images) is worked off, so take 2,500 at least;
and CPU seconds of all processes for 1,000 images, which other work on the machine changes least.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from PIL import Image

import vlmill
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, IMAGES_FILE, SAMPLES_FILE
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.executor import Executor, open_executor
from vlmill.pipeline.engine.scoring import ScoringFlow, ScoringJob, find_signal_weights
from vlmill.pipeline.engine.store import File
from vlmill.pipeline.images.views import PictureView
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.recipe.mapping import find_recipe
from vlmill.pipeline.steps.score import read_chunks

SIZE = (1600, 1200)
RECIPE = """
name: throughput
sources: {{photos: {{kind: table, files: photos.jsonl, options: {{image: file, caption: text}}}}}}
partition: {{rows: 250}}
signals: {{looks: {{kind: image_embedding, model: {model}}}}}
filters: [{{language: {{drop: [zh]}}}}]
"""


@dataclass(frozen=True)
class Measured:
    """One pass over all images."""

    rate: float  # images/s from the first task to the last result
    second_half: float  # images/s from when half of them had a result
    cpu: float  # seconds of all processes


class CpuClock:
    """CPU seconds of this process and all below it, those that ended between two looks as last seen."""

    def __init__(self) -> None:
        self.seen = dict[int, float]()

    def read(self) -> float:
        """Seconds in all."""
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                times = process.cpu_times()
                self.seen[process.pid] = times.user + times.system
        return sum(self.seen.values())


def draw_photograph(folder: Path, number: int) -> dict[str, str]:
    """A JPEG of large and small structures, as photographs have them, and its row."""
    noise = np.random.default_rng(number)
    coarse, fine = (Image.fromarray(noise.integers(0, 256, (*size, 3), np.uint8)) for size in ((9, 12), (150, 200)))
    whole = Image.blend(*(one.resize(SIZE, Image.Resampling.BICUBIC) for one in (coarse, fine)), 0.25)
    whole.save(folder / f"{number}.jpg", quality=85)
    return {"file": f"{number}.jpg", "text": f"Photograph number {number} of a series."}


def list_jobs(root: Path) -> list[ScoringJob]:
    """Each partition with its tables."""
    found = dict[str, dict[str, File]]()
    for step in ("read", "image_stats"):
        for receipt in read_manifest(root, f"steps/photos/{step}"):
            found.setdefault(receipt.partition, {}).update({file.name: file for file in receipt.files})
    return [ScoringJob("photos", partition, files, ("looks",)) for partition, files in found.items()]


def decode_partition(view: PictureView, root: Path, files: Mapping[str, File]) -> int:
    """Decode and draw the images of a partition; how many."""
    tables = {name: root / files[name].path for name in (SAMPLES_FILE, IMAGES_FILE, IMAGE_STATS_FILE)}
    return sum(chunk.images for chunk in read_chunks(tables, [view]))


def list_scored(executor: Executor, flow: ScoringFlow, jobs: Sequence[ScoringJob]) -> Iterator[int]:
    """Score all partitions anew; how many images, as they are done."""
    for job in jobs:
        shutil.rmtree(flow.root / f"steps/{job.source}/looks", ignore_errors=True)
    for event in executor.stream(flow, jobs):
        yield event.amount


def measure_pass(done: Iterator[int], images: int) -> Measured:
    """Rates and CPU time of a pass that yields numbers of images."""
    clock = CpuClock()
    cpu, began, half, count = clock.read(), time.perf_counter(), (0.0, 0), 0
    for number in done:
        count += number
        clock.read()
        if not half[1] and count >= images / 2:
            half = time.perf_counter(), count
    ended = time.perf_counter()
    assert count == images, (count, images)
    return Measured(count / (ended - began), (count - half[1]) / (ended - half[0]), clock.read() - cpu)


def print_figures(alone: Sequence[Measured], scored: Sequence[Measured], images: int) -> None:
    """Medians, and the shares of each turn."""
    for name, turns in (("decoded alone", alone), ("decoded and scored", scored)):
        rate, second, cpu = (median(getattr(turn, key) for turn in turns) for key in ("rate", "second_half", "cpu"))
        late = f", second half {second:.1f}" if turns is scored else ""
        print(f"{name:<19}{rate:7.1f} images/s{late}; CPU {1000 * cpu / images:.1f} s for 1,000 images")
    pairs = list(zip(scored, alone, strict=True))
    for name, shares in (
        ("with start-up", [one.rate / other.rate for one, other in pairs]),
        ("second half", [one.second_half / other.rate for one, other in pairs]),
        ("CPU of decoding", [other.cpu / one.cpu for one, other in pairs]),
    ):
        print(f"{name:<19}{median(shares):7.0%}   (turns: {', '.join(f'{share:.0%}' for share in shares)})")


def main() -> None:
    """Print images a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", type=Path, default=find_recipe("quickstart").parent / "quickstart" / "similarity")
    arguments = parser.parse_args()
    alone, scored = list[Measured](), list[Measured]()
    with tempfile.TemporaryDirectory(prefix="vlmill-signals-") as name, multiprocessing.Pool(arguments.workers) as pool:
        folder, root = Path(name), Path(name) / "run"
        rows = pool.map(partial(draw_photograph, folder), range(arguments.images))
        (folder / "photos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "recipe.yaml").write_text(RECIPE.format(model=arguments.model.resolve()))
        vlmill.build(folder / "recipe.yaml", root, workers=arguments.workers, until="curate")
        models = find_signal_weights(load_recipe(str(folder / "recipe.yaml"))[0], root, folder).models
        flow, jobs, view = ScoringFlow(root, models), list_jobs(root), models["looks"].view()
        decode = partial(decode_partition, view, root)
        with open_executor(arguments.workers, None, models=True) as executor:
            list(executor.each(flow.choose_stages, jobs))  # processes that have begun, as after the phase `curate`
            for _ in range(arguments.repeats):
                decoded = pool.imap_unordered(decode, [job.files for job in jobs])
                alone.append(measure_pass(decoded, arguments.images))
                scored.append(measure_pass(list_scored(executor, flow, jobs), arguments.images))
    print(f"{arguments.images:,} images of {SIZE[0]} x {SIZE[1]} px, {arguments.workers} workers")
    print_figures(alone, scored, arguments.images)


if __name__ == "__main__":
    main()
