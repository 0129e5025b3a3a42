"""What scoring costs beside decoding: `python -m benchmarks.signals [--images 3000] [--cpus 0]`.

Draws photographs of 1600 x 1200 px with captions and curates them. Then decodes them alone, in as many processes as
there are workers, by the function that feeds models; then builds the phase `signals` with a dual encoder, which decodes
the same images and asks the model. The default is the quickstart's tiny CLIP, so decoding is what bounds it. Prints
images a second of both, from the first task to the last receipt, and their ratio. The model's worker shares the cores
of those that decode; with `--cpus 1`, the default of recipes, it takes one of them for itself.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import vlmill
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.event_log import EVENTS
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, IMAGES_FILE, SAMPLES_FILE
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.images.views import PictureView
from vlmill.pipeline.recipe.mapping import find_recipe
from vlmill.pipeline.signals import SIGNALS
from vlmill.pipeline.steps.score import read_chunks

SIZE = (1600, 1200)
RECIPE = """
name: throughput
sources: {{photos: {{kind: table, files: photos.jsonl, options: {{image: file, caption: text}}}}}}
partition: {{rows: 250}}
signals: {{looks: {{kind: image_embedding, model: {model}, resources: {{cpus: {cpus}, workers: 1}}}}}}
filters: [{{language: {{drop: [zh]}}}}]
"""


def draw_photograph(folder: Path, number: int) -> dict[str, str]:
    """A JPEG of large and small structures, as photographs have them, and its row."""
    noise = np.random.default_rng(number)
    coarse, fine = (Image.fromarray(noise.integers(0, 256, (*size, 3), np.uint8)) for size in ((9, 12), (150, 200)))
    whole = Image.blend(*(one.resize(SIZE, Image.Resampling.BICUBIC) for one in (coarse, fine)), 0.25)
    whole.save(folder / f"{number}.jpg", quality=85)
    return {"file": f"{number}.jpg", "text": f"Photograph number {number} of a series."}


def list_partitions(root: Path) -> list[dict[str, Path]]:
    """The tables of each partition."""
    found = dict[str, dict[str, Path]]()
    for step in ("read", "image_stats"):
        for receipt in read_manifest(root, f"steps/photos/{step}"):
            found.setdefault(receipt.partition, {}).update({file.name: root / file.path for file in receipt.files})
    return [{name: files[name] for name in (SAMPLES_FILE, IMAGES_FILE, IMAGE_STATS_FILE)} for files in found.values()]


def decode_partition(view: PictureView, tables: dict[str, Path]) -> int:
    """Decode and draw the images of a partition; how many."""
    return sum(chunk.images for chunk in read_chunks(tables, [view]))


def main() -> None:
    """Print images a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cpus", type=float, default=0, help="that the model's worker takes from the decoders")
    parser.add_argument("--model", type=Path, default=find_recipe("quickstart").parent / "quickstart" / "similarity")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vlmill-signals-") as name, multiprocessing.Pool(arguments.workers) as pool:
        folder, root = Path(name), Path(name) / "run"
        rows = pool.map(partial(draw_photograph, folder), range(arguments.images))
        (folder / "photos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "recipe.yaml").write_text(RECIPE.format(model=arguments.model.resolve(), cpus=arguments.cpus))
        vlmill.build(folder / "recipe.yaml", root, workers=arguments.workers, until="curate")
        signal = parse_block(SIGNALS["image_embedding"], {"model": str(arguments.model.resolve())}, "signal")
        began = time.perf_counter()
        images = sum(pool.imap_unordered(partial(decode_partition, signal.view()), list_partitions(root)))
        alone = images / (time.perf_counter() - began)
        vlmill.build(folder / "recipe.yaml", root, workers=arguments.workers, until="signals")
        events = [json.loads(line) for line in (root / EVENTS).read_text().splitlines()]
        (phase,) = (one for one in events if one["event"] == "phase_end" and one["phase"] == "signals")
        scored = phase["work"]["images"] / phase["seconds"]
    print(f"{images:,} images of {SIZE[0]} x {SIZE[1]} px, {arguments.workers} workers")
    print(f"decoded alone      {alone:8.1f} images/s")
    print(f"decoded and scored {scored:8.1f} images/s, {scored / alone:.0%}")


if __name__ == "__main__":
    main()
