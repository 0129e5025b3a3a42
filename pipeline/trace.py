"""From a sample or a shard member back to its origin, with every verdict on it and every shard that holds it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.lanes import read_manifest
from pipeline.recipe import locked_recipe
from pipeline.sample import (
    WHOLE_SAMPLE,
    ImageFacts,
    Sample,
    SampleId,
    Verdict,
    read_facts,
    read_rows,
    read_samples,
    read_verdicts,
)
from pipeline.settle import Settled, settle
from pipeline.store import File


@dataclass(frozen=True)
class Traced:
    """All that a run knows of one sample."""

    sample: Sample
    part: str
    facts: list[ImageFacts]  # of the whole partition; nodes say which
    verdicts: list[Verdict]  # on this sample, in the order in which judges were asked
    settled: Settled
    rendered: list[tuple[str, Verdict]]  # policy, and what it could not draw
    shards: list[str]  # "path:key", one per policy that kept it


def find_id(root: Path, name: str) -> SampleId:
    """The id that `name` gives: an id itself, or a shard's path and a key in it, joined with a colon.

    Raises:
        StoreError: it is neither, or the shard does not hold that key.
    """
    try:
        return SampleId.parse(name)
    except ValueError as error:
        path, colon, key = name.rpartition(":")
        index = root / (path.removesuffix(".tar") + ".index.parquet")
        if not colon or not index.exists():
            raise StoreError(f"{error}; or give a shard and a key: shards/SOURCE/POLICY/NAME.tar:KEY") from None
        for row in read_rows(index, ["key", "id"]):
            if row["key"] == key.split(".")[0]:
                return SampleId.parse(row["id"])
        raise StoreError(f"{path} holds no sample with key {key!r}") from None


def trace(root: Path, name: str) -> Traced:
    """Everything about one sample.

    Raises:
        StoreError: the run has no such sample.
    """
    wanted = find_id(root, name)
    recipe = locked_recipe(root)
    if wanted.source not in recipe.sources:
        raise StoreError(
            f"{name}: this run has no source {wanted.source!r}; it has {', '.join(sorted(recipe.sources))}"
        )
    for receipt in read_manifest(root, f"steps/{wanted.source}/read"):
        files = {file.name: file for file in receipt.files}
        for row, sample in enumerate(read_samples(root / files["samples.parquet"].path)):
            if sample.id == wanted:
                return _traced(root, sample, row, receipt.part)
    raise StoreError(
        f"{name}: no such sample. Its origin has no such row, or the row could not be read: see `vlmill status {root}`"
    )


def _traced(root: Path, sample: Sample, row: int, part: str) -> Traced:
    recipe, source = locked_recipe(root), sample.id.source
    facts = read_facts(root / _file(root, f"steps/{source}/inspect", part, "facts.parquet").path)
    verdicts: list[Verdict] = []
    for judge in recipe.deciding():
        verdicts += _verdicts(
            root / _file(root, f"steps/{source}/{judge}", part, f"{judge}.verdicts.parquet").path, row
        )
    if recipe.dedupe is not None:
        verdicts += _verdicts(
            root / _file(root, "steps/dedupe/resolve", "all", f"{source}.{part}.dedupe.verdicts.parquet").path, row
        )
    rendered = [
        (policy, verdict)
        for policy in recipe.policies
        for verdict in _drawn(root, f"shards/{source}/{policy}", part, row)
    ]
    shards = [
        place for policy in recipe.policies for place in _places(root, f"shards/{source}/{policy}", part, sample.id)
    ]
    return Traced(sample, part, facts, verdicts, settle(sample, verdicts, facts), rendered, shards)


def _file(root: Path, folder: str, part: str, name: str) -> File:
    for receipt in read_manifest(root, folder):
        for file in receipt.files:
            if receipt.part == part and file.name == name:
                return file
    raise StoreError(f"{folder}: no {name} for {part}; check the run with: vlmill verify {root}")


def _verdicts(path: Path, row: int) -> list[Verdict]:
    return [verdict for verdict in read_verdicts(path) if verdict.sample == row]


def _drawn(root: Path, folder: str, part: str, row: int) -> list[Verdict]:
    """What rendering found fault with; nothing while there are no shards."""
    if not (root / folder / "manifest.json").exists():
        return []
    return _verdicts(root / _file(root, folder, part, "render.verdicts.parquet").path, row)


def _places(root: Path, folder: str, part: str, wanted: SampleId) -> Iterator[str]:
    if not (root / folder / "manifest.json").exists():
        return
    for receipt in read_manifest(root, folder):
        for file in receipt.files:
            if receipt.part == part and file.name.endswith(".index.parquet"):
                for row in read_rows(root / file.path, ["id", "row", "key"]):
                    if row["id"] == str(wanted):
                        yield f"{file.path.removesuffix('.index.parquet')}.tar:{row['key']}"


def lines(traced: Traced) -> Iterator[str]:
    """The story of a sample for people."""
    sample = traced.sample
    yield f"{sample.id}"
    yield (
        f"  origin    {sample.id.file}, row {sample.id.row}"
        + (f", page {sample.id.page}" if sample.id.page >= 0 else "")
        + f" (partition {traced.part})"
    )
    for name, value in (("url", sample.url), ("licence", sample.licence), ("group", sample.group)):
        if value:
            yield f"  {name:<9} {value}"
    if sample.signals:
        yield f"  signals   {json.dumps(dict(sample.signals), sort_keys=True)}"
    for index, node in enumerate(sample.nodes):
        yield f"  {index:>3} {_fate(traced.settled.nodes[index])} {_content(node, traced.facts)}"
    for verdict in traced.verdicts:
        on = "the sample" if verdict.node == WHOLE_SAMPLE else f"node {verdict.node}"
        other = f", because of {verdict.other}" if verdict.other else ""
        yield f"  {verdict.judge} drops {on}: {verdict.reason} (score {verdict.score:.4g}{other})"
    for policy, verdict in traced.rendered:
        yield f"  policy {policy} cannot draw node {verdict.node}: {verdict.reason}"
    yield f"  {'lost: ' + str(traced.settled.sample) if traced.settled.sample else 'kept'}"
    for shard in traced.shards:
        yield f"  in {shard}"


def _fate(reason: Any) -> str:
    return f"{'- ' + str(reason) if reason else '+':<18}"


def _content(node: Any, facts: list[ImageFacts]) -> str:
    if node.kind == "image":
        fact = facts[node.image]
        seen = (
            f"{fact.format} {fact.width}x{fact.height} sha256 {fact.sha256[:12]}"
            if fact.reason is None
            else str(fact.reason)
        )
        return f"image {seen} {node.url or ''}".rstrip()
    text = " ".join((node.text or "").split())
    who = "" if node.role == "none" else f"{node.role}: "
    return f"{who}{text[:100]}{'...' if len(text) > 100 else ''}"
