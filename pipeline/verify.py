"""Checks everything that a run promises about its files: every sha256, every count, every lock. Reads, never writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.keys import file_sha256
from pipeline.lanes import read_manifest
from pipeline.recipe import locked_recipe
from pipeline.step import Count
from pipeline.store import Receipt, total


def verify(root: Path) -> Iterator[str]:
    """Yield one line per broken promise; none means that the run is sound.

    Raises:
        StoreError: the folder holds no run.
    """
    recipe = locked_recipe(root)
    for manifest in manifests(root):
        yield from _manifest(root, manifest)
    for source in recipe.sources:
        if (root / f"steps/{source}/read/manifest.json").exists():
            yield from _funnel(root, source, recipe.policies)
    for stage in recipe.stages:
        lock = root / "mixtures" / stage.name / "mixture.lock.json"
        if lock.exists():
            yield from _mixture(root, lock)


def manifests(root: Path) -> list[Path]:
    """Every manifest of a run, in order."""
    return sorted([*root.glob("steps/**/manifest.json"), *root.glob("shards/**/manifest.json")])


def _manifest(root: Path, path: Path) -> Iterator[str]:
    """Its files are there and unchanged; its receipts balance and add up to its books."""
    data = json.loads(path.read_bytes())
    receipts = [Receipt.from_json(item) for item in data["receipts"]]
    for receipt in receipts:
        for file in receipt.files:
            yield from _file(root, file.path, file.sha256)
        for level, line in receipt.counts.items():
            if not Count.from_json(line).balanced():
                yield f"{path.parent.relative_to(root)} {receipt.part}: {level} does not balance: {line}"
        written = path.parent / f"{receipt.part}.{receipt.key[:12]}.receipt.json"
        if not written.exists() or json.loads(written.read_bytes()) != receipt.to_json():
            yield f"{written.relative_to(root)}: differs from the manifest or is missing"
    if {level: count.to_json() for level, count in total(receipts).items()} != data["counts"]:
        yield f"{path.relative_to(root)}: its counts are not the sum of its receipts"


def _file(root: Path, path: str, sha256: str) -> Iterator[str]:
    if not (root / path).exists():
        yield f"{path}: is missing"
    elif file_sha256(root / path) != sha256:
        yield f"{path}: its sha256 is not the one in its receipt"


def _funnel(root: Path, source: str, policies: Iterable[str]) -> Iterator[str]:
    """What render took in is what stands in the tables that read made, whatever the policy."""
    made = Counter[str]()
    for receipt in read_manifest(root, f"steps/{source}/read"):
        for file in receipt.files:
            if file.name == "samples.parquet" and (root / file.path).exists():
                with pq.ParquetFile(root / file.path) as table:
                    for batch in table.iter_batches(columns=["nodes.list.element.kind"]):
                        kinds = pc.struct_field(pc.list_flatten(batch.column(0)), "kind")
                        made["samples"] += batch.num_rows
                        made["nodes"] += len(kinds)
                        made["images"] += pc.sum(pc.equal(kinds, "image")).as_py() or 0
    for policy in policies:
        path = root / f"shards/{source}/{policy}/manifest.json"
        rendered = json.loads(path.read_bytes())["counts"] if path.exists() else {}
        for level, line in rendered.items():
            if line["in"] != made[level]:
                yield f"{source}: read made {made[level]} {level}, {policy} took in {line['in']}"


def _mixture(root: Path, lock: Path) -> Iterator[str]:
    """The lock's shards, plan blocks and held-out list are there and unchanged."""
    data = json.loads(lock.read_bytes())
    for source in data["sources"]:
        for shard in source["shards"]:
            yield from _file(root, shard["path"], shard["sha256"])
    for block in data["plan"]["blocks"]:
        yield from _file(lock.parent, block["path"], block["sha256"])
    if data.get("held_out"):
        yield from _file(lock.parent, data["held_out"]["path"], data["held_out"]["sha256"])
