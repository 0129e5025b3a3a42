"""A run with a stage over so many samples, for `python -m benchmarks.flat --commands`, in minutes.

Its input files are one file under many names, so the tasks of their partitions would leave the same bytes but for names
of files. The first partition's are done; those of the others get links to its files and receipts of their own. All
that is over partitions is done: manifests, selection, plan and lock. So every command finds a complete run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import yaml

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


def write_linked_inputs(folder: Path, pairs: Path, times: int) -> Path:
    """The recipe in `folder`, over the file `pairs` under so many names."""
    from tests.helpers.stages import write_tokenizer  # noqa: PLC0415 - imports torch

    folder.mkdir()
    for number in range(times):
        (folder / f"pairs-{number:05d}.parquet").hardlink_to(pairs)
    write_tokenizer(folder / "tokenizer.json")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder / "recipe.yaml"


class LinkingStore(Store):
    """A store that does a task of a partition once, and links what it left for all others."""

    done: dict[tuple[str, str], Receipt] = {}  # noqa: RUF012 - one for all stores of the process

    def perform(self, task: Task, elsewhere: Mapping[str, Path] = MappingProxyType({})) -> Receipt:
        """See Store."""
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
