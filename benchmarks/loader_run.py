"""The run that `benchmarks.loader` reads.

Samples of a text and one to three pictures, packed, and a plan of more than 10^6 steps.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.helpers.stages import Made, write_run
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.core.seal import seal_json
from vlmill.pipeline.images import Policy
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.letterbox import Letterbox

STAGE, LENGTH, PER_SHARD = "align", 8192, 250
ROWS = 4  # of a step
FAR = 1_000_000  # steps
POLICIES: dict[str, tuple[Policy, str]] = {
    "letterbox": (Letterbox(side=384, patch=14), "llava"),
    "anyres": (AnyRes(), "llava_next"),
}
WORDS = [
    "a",
    "picture",
    "of",
    "what",
    "stands",
    "before",
    "the",
    "house",
    "and",
    "how",
    "it",
    "came",
    "to",
    "be",
    "there",
    "in",
    "those",
    "years",
]


def make(run: Path, policy: str, quality: int | None, samples: int, folder: Path | None) -> None:
    """The run, and beside it the same with a plan so long."""
    drawn = replace(POLICIES[policy][0], quality=quality)  # type: ignore[type-var]
    write_run(run, {"web": made(samples, folder)}, drawn, STAGE, LENGTH, per_shard=PER_SHARD)
    lengthen(run)


def pictures(folder: Path | None) -> Iterator[Image.Image]:
    """Pictures without end: the files in a folder, in turns, or noise at several scales, as photographs have it."""
    if folder is not None:
        for path in itertools.cycle(sorted(path for path in folder.rglob("*") if path.is_file())):
            try:
                with Image.open(path) as image:
                    found = image.convert("RGB")
            except (OSError, ValueError):
                continue
            if min(found.size) >= 64:
                yield found
    random = np.random.default_rng(0)
    while True:
        width, height = random.integers(240, 900, 2).tolist()
        layers = np.zeros((height, width, 3))
        for side, strength in ((4, 100), (24, 50), (96, 25), (400, 10)):
            small = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
            layers += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) / 255 * strength
        yield Image.fromarray(layers.clip(0, 255).astype(np.uint8))


def made(samples: int, folder: Path | None) -> list[Made]:
    """Documents of one to three pictures with some 60 words behind each."""
    random, source, found = np.random.default_rng(1), pictures(folder), list[Made]()
    for _ in range(samples):
        nodes, shown = list[Node](), list[Image.Image]()
        for image in range(int(random.integers(1, 4))):
            words = " ".join(random.choice(WORDS, int(random.integers(20, 100))).tolist())
            nodes += [Node("image", image=image), Node("text", text=words)]
            shown.append(next(source))
        found.append((tuple(nodes), shown))
    return found


def lengthen(run: Path) -> None:
    """A run over the same files whose plan has as many sequences as FAR steps need, and some more.

    Its own plan as one block, repeated.
    """
    far = run / "far"
    far.mkdir()
    for name in ("shards", "tokenizer.json"):
        (far / name).symlink_to(run / name)
    lock = json.loads((run / "mixtures" / STAGE / "mixture.lock.json").read_bytes())
    folder = far / "mixtures" / STAGE
    folder.mkdir(parents=True)
    files = [run / "mixtures" / STAGE / block["path"] for block in lock["plan"]["blocks"]]
    block = pa.concat_tables([pq.read_table(path) for path in files])
    pq.write_table(block, folder / "block.parquet")
    firsts = range(0, (FAR + 9) * ROWS, block.num_rows)
    listed = {
        "path": "block.parquet",
        "sequences": block.num_rows,
        "sha256": hash_file(folder / "block.parquet"),
    }
    lock["plan"] = {
        "sequences": len(firsts) * block.num_rows,
        "blocks": [{**listed, "first": first} for first in firsts],
    }
    lock.pop("sha256")
    (folder / "mixture.lock.json").write_text(seal_json(lock))
