"""A run with a stage over so many samples, for `python -m benchmarks.flat --commands`, in minutes.

Its input files are one file under many names, so the tasks of their partitions would leave the same bytes but for names
of files. Those of one partition are done; the others get links to its files and receipts of their own. Only the last
picture of the first file is in no other, so that it can be taken down; the tasks of its partition are done too. All
that is over partitions is done: manifests, selection, plan and lock. So every command finds a complete run.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from vlmill.pipeline import cli
from vlmill.pipeline.core.keys import DIGITS
from vlmill.pipeline.engine.store import Receipt, Store, Task

RECIPE = {
    "name": "flat",
    "sources": {
        "pairs": {
            "kind": "table",
            "files": "pairs-*.parquet",
            "licence": "CC0-1.0",
            "options": {"image": "image", "caption": "caption"},
        }
    },
    "filters": [{"shape": {"min_side": 32}}],
    "dedupe": None,  # all samples are copies
    "policies": {"small": {"kind": "letterbox", "side": 56, "patch": 14}},
    "tokenizer": "tokenizer.json",
    "stages": [
        {
            "name": "align",
            "policy": "small",
            "mixture": {
                "shares": {"pairs": 1.0},
                "epochs": 1,
                "sequence_length": 512,
                "held_out": {"pairs": 0.01},
            },
            "train": {
                "steps": 2,
                "sequences": 2,
                "learning_rate": {"text": 0.001, "projector": 0.001, "vision": 0.001},
            },
        }
    ],
    "model": {
        "family": "llava",
        "vision": {"kind": "siglip", "hidden_size": 32, "layers": 1, "heads": 2, "image_size": 56, "patch_size": 14},
        "text": {"kind": "llama", "hidden_size": 32, "layers": 1, "heads": 2},
    },
}


OWN_PARTITION = "00000-0000"
"""Of the file whose last picture is in no other."""


def write_linked_inputs(folder: Path, pairs: Path, times: int) -> Path:
    """The recipe in `folder`, over so many files that are `pairs`, but for the last picture of the first."""
    from tests.helpers.stages import write_tokenizer  # noqa: PLC0415 - imports torch

    folder.mkdir()
    rows = pq.read_table(pairs)
    picture = io.BytesIO()
    Image.radial_gradient("L").save(picture, "PNG")
    images = [*rows["image"].to_pylist()[:-1], {"bytes": picture.getvalue(), "path": "gradient.png"}]
    captions = [*rows["caption"].to_pylist()[:-1], "A gradient from the middle to the edges."]
    pq.write_table(pa.table({"image": images, "caption": captions}), folder / "pairs-00000.parquet")
    for number in range(1, times):
        (folder / f"pairs-{number:05d}.parquet").hardlink_to(pairs)
    write_tokenizer(folder / "tokenizer.json")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder / "recipe.yaml"


class LinkingStore(Store):
    """A store that does a task of one partition, and of that of its own, and links what the one left for all others."""

    done: dict[tuple[str, str], Receipt] = {}  # noqa: RUF012 - one for all stores of the process

    def perform(self, task: Task, elsewhere: Mapping[str, Path] = MappingProxyType({})) -> Receipt:
        """See Store."""
        if task.partition == OWN_PARTITION:
            return PERFORM(self, task, elsewhere)
        key = task.key()
        what = task.folder, "" if task.folder.endswith("/read") or task.folder.startswith("shards/") else key
        first = self.done.get(what)
        if first is None or self.find(task) is not None:
            return self.done.setdefault(what, PERFORM(self, task, elsewhere))
        files = []
        for file in first.files:
            digits = (key if task.step.pure else file.sha256)[:DIGITS]
            path = f"{task.folder}/{task.partition}.{digits}.{file.name}"
            (self.root / path).hardlink_to(self.root / file.path)
            files.append(replace(file, path=path))
        return self._sign(task, replace(first, key=key, partition=task.partition, files=tuple(files)))


PERFORM = Store.perform


def main() -> None:
    """`python -m benchmarks.flat_stage RECIPE ROOT`: build the run."""
    Store.perform = LinkingStore.perform
    Store.done = LinkingStore.done
    os.fsync = lambda _: None
    sys.argv = ["vlmill", "build", sys.argv[1], "--out", sys.argv[2], "--workers", "0"]
    cli.main()


if __name__ == "__main__":
    main()
