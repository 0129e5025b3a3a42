"""What small builds, many small files and builds with nothing to do cost: `python -m benchmarks.small_runs`.

Each figure is of a whole process with all that it starts. `--partitions` is how many partitions the build with nothing
to do has; its folder is synthesised: the first partition is built, and the tasks of the others are hard links to what
that one left, under their own keys and receipts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Table

import vlmill
from vlmill.pipeline.core.keys import DIGITS
from vlmill.pipeline.engine.store import Receipt, Store, Task

WORDS = [
    f"{start}{end}" for start in ("th", "wh", "st", "pr", "m", "l") for end in ("e", "at", "is", "ore", "ing", "ere")
]
COLUMNS = pa.schema([
    ("images", pa.list_(pa.string())), ("texts", pa.list_(pa.string())),
    ("metadata", pa.string()), ("general_metadata", pa.string()),
])  # fmt: skip


def make(folder: Path, files: int, documents: int, rows: int = 10_000) -> Path:
    """A recipe over files of so many documents of three paragraphs, in partitions of `rows`; returns its path."""
    folder.mkdir()
    chance = random.Random(0)
    for number in range(files):
        told = [
            {
                "images": [None] * 3,
                "texts": [" ".join(chance.choices(WORDS, k=60)).capitalize() + "." for _ in range(3)],
                "metadata": "[null, null, null]",
                "general_metadata": json.dumps({"url": f"http://documents.example.test/{number}-{document}"}),
            }
            for document in range(documents)
        ]
        pq.write_table(pa.Table.from_pylist(told, schema=COLUMNS), folder / f"{number:05d}.parquet")
    recipe = {
        "name": "small",
        "sources": {"web": {"kind": "obelics", "files": "*.parquet"}},
        "partition": {"rows": rows},
        "policies": {"large": {"kind": "letterbox", "side": 384, "patch": 14}},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def build(recipe: Path, *options: str) -> tuple[float, float, float]:
    """Wall and CPU seconds of `vlmill build` with all its processes, and MB of the largest of them."""
    command = [sys.executable, "-m", "vlmill.pipeline.cli", "build", str(recipe), "--out", str(recipe.parent / "run")]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    spent, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, cpu, after.ru_maxrss / 1024


class Copying(Store):
    """A store in which tasks of a chain are done once, and their files linked for all other partitions."""

    templates: Mapping[str, Receipt] = MappingProxyType({})

    def perform(self, task: Task, elsewhere: Mapping[str, Path] = MappingProxyType({})) -> Receipt:
        """See Store."""
        if (done := self.find(task)) is not None:
            return done
        if "/dedupe" in task.folder or task.folder not in self.templates:
            receipt = super().perform(task, elsewhere)
            type(self).templates = {**self.templates, task.folder: receipt}
            return receipt
        template, key, files = self.templates[task.folder], task.key(), []
        for file in template.files:
            name = f"{task.partition}.{(key if task.step.pure else file.sha256)[:DIGITS]}.{file.name}"
            path = f"{task.folder}/{name}"
            if not (self.root / path).exists():
                os.link(self.root / file.path, self.root / path)
            files.append(replace(file, path=path))
        receipt = Receipt(key, task.partition, tuple(files), template.counts, template.made_by)
        place = self.root / task.folder / f"{task.partition}.{key[:DIGITS]}.receipt.json"
        place.write_text(json.dumps(receipt.to_json()))
        return receipt


def synthesise(recipe: Path) -> None:
    """Fill the run's folder."""
    from vlmill.pipeline.engine import chain  # noqa: PLC0415

    chain.Store = Copying  # type: ignore[misc]
    flush, os.fsync = os.fsync, lambda _: None
    try:
        vlmill.build(recipe, recipe.parent / "run", workers=0)
    finally:
        chain.Store, os.fsync = Store, flush  # type: ignore[misc]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, default=1000, help="of the build with nothing to do")
    arguments = parser.parse_args()
    table = Table("build", "wall s", "CPU s", "MB of the largest process")
    with tempfile.TemporaryDirectory(prefix="vlmill-benchmark-") as name:
        for title, files, documents, options in (
            ("5 documents", 1, 5, ()),
            ("28 files of 7 documents", 28, 7, ()),
            ("28 files of 7 documents, 2 workers", 28, 7, ("--workers", "2")),
            ("1 file of 196 documents", 1, 196, ()),
        ):
            recipe = make(Path(name) / title, files, documents)
            table.add_row(title, *(f"{value:.1f}" for value in build(recipe, *options)))
        recipe = make(Path(name) / "nothing", 1, arguments.partitions, 1)
        synthesise(recipe)
        title = f"nothing to do, {arguments.partitions:,} partitions"
        table.add_row(title, *(f"{value:.1f}" for value in build(recipe)))
    Console().print(table)


if __name__ == "__main__":
    main()
