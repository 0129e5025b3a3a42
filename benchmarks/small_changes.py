"""What builds do again after small changes: `python -m benchmarks.small_changes [--files 30]`.

Questions about pictures in so many files of 20 rows, each a partition, one stage, dedupe. Counted are tasks, their
time, and pairs of pictures that dedupe measures: of the first build, with another threshold that drops pictures of one
file, with one file more, and with nothing to do.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table

import vlmill
from vlmill.pipeline.dedupe import picture
from vlmill.pipeline.engine.timings import TIMINGS

ROWS = 20
TOKENIZER = Path(vlmill.__file__).parent / "recipes/quickstart/tokenizer.json"
SCHEMA = pa.schema([
    ("images", pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()}))),
    ("texts", pa.list_(pa.struct({"user": pa.string(), "assistant": pa.string(), "source": pa.string()}))),
])  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=30)
    arguments = parser.parse_args()
    table = Table("build", "tasks", "share", "of the time", "in dedupe", "pairs measured", "steps")
    with tempfile.TemporaryDirectory(prefix="vlmill-benchmark-") as name:
        folder, whole, longest = Path(name), 0, 0.0
        for number in range(arguments.files):
            write_file(folder, number)
        for title, side, files in (
            ("first", 32, arguments.files),
            ("nothing to do", 32, arguments.files),
            ("another threshold, pictures of one file", 64, arguments.files),
            ("one file more", 64, arguments.files + 1),
        ):
            write_file(folder, files - 1)
            done, seconds, pairs = build(folder, side)
            whole, longest = whole or done.total(), longest or sum(seconds.values())
            in_dedupe = sum(spent for step, spent in seconds.items() if step.startswith("steps/dedupe/"))
            steps = ", ".join(f"{step} {count}" for step, count in sorted(done.items())) if title != "first" else ""
            shares = (done.total() / whole, sum(seconds.values()) / longest, in_dedupe / longest)
            table.add_row(title, f"{done.total():,}", *(f"{share:.1%}" for share in shares), f"{pairs:,}", steps)
    Console(width=180).print(table)


def write_file(folder: Path, number: int) -> None:
    """Pictures of smooth noise, a tenth of them scaled copies of others; one of the first file is small."""
    rows = []
    for at in range(ROWS):
        seed, side = number * ROWS + at, 160 if at % 10 else 200
        seed = seed - 1 if not at % 10 and at else seed
        grid = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
        if number == at == 0:
            side = 48
        data = io.BytesIO()
        Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC).save(data, "PNG")
        turn = {"user": f"What is on picture {number}-{at}?", "assistant": f"Noise {seed}.", "source": "noise"}
        rows.append({"images": [{"bytes": data.getvalue(), "path": f"{at}.png"}], "texts": [turn]})
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / f"{number:05d}.parquet")


def build(folder: Path, side: int) -> tuple[Counter[str], dict[str, float], int]:
    """The tasks that a build did and their seconds, by step, and the pairs of pictures that it measured."""
    mixture = {"shares": {"quiz": 1}, "epochs": 1, "sequence_length": 512}
    recipe = {
        "name": "changes",
        "sources": {"quiz": {"kind": "cauldron", "files": "*.parquet"}},
        "filters": [{"shape": {"min_side": side}}],
        "dedupe": {"image": 0.97},
        "partition": {"rows": ROWS},  # of each file one: small files would share it
        "policies": {"small": {"kind": "letterbox", "side": 56, "patch": 14}},
        "tokenizer": str(TOKENIZER),
        "stages": [{"name": "align", "policy": "small", "mixture": mixture}],
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    log, measured, measure = folder / "run" / TIMINGS, list[int](), picture.measure_similarity

    def count_pairs(one: picture.ComparedPictures, *others: Any, **options: Any) -> np.ndarray:
        measured.append(len(one))
        return measure(one, *others, **options)

    before = len(log.read_text().splitlines()) if log.exists() else 0
    with patch.object(picture, "measure_similarity", count_pairs):
        vlmill.build(folder / "recipe.yaml", folder / "run", workers=0, accept_changes=True)
    done, seconds = Counter[str](), dict[str, float]()
    for line in log.read_text().splitlines()[before:]:
        timing = json.loads(line)
        done[timing["folder"]] += 1
        seconds[timing["folder"]] = seconds.get(timing["folder"], 0.0) + timing["seconds"]
    return done, seconds, sum(measured)


if __name__ == "__main__":
    main()
