"""Where a kept sample stands in the plan of a stage, and why a plan does not hold it.

Read by traces of samples and by the viewer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from vlmill.mixtures.build import list_image_pairs
from vlmill.mixtures.lineage import LineageTables
from vlmill.mixtures.reader import PlannedMixture, Segment, read_columns
from vlmill.mixtures.steps.lock import restore_select
from vlmill.mixtures.steps.select import Select
from vlmill.pipeline.core.reasons import Reason


def find_sample(mixture: PlannedMixture, name: str, below: str = "") -> Iterator[tuple[int, int, int]]:
    """Where a sample lies in the mixture's shards whose path begins with `below`: (source, shard, row)."""
    for source, listed in enumerate(mixture.lock["sources"]):
        for shard, file in enumerate(listed["shards"]):
            if not file["path"].startswith(below):
                continue
            ids = read_columns(mixture.root / file["index"], file["index_sha256"], ["id"])["id"].to_pylist()
            if name in ids:
                yield source, shard, ids.index(name)


def find_sequences(mixture: PlannedMixture, source: int, shard: int, row: int) -> Iterator[int]:
    """The sequences of the plan that hold segments of a sample."""
    yield from dict.fromkeys(sequence for sequence, _ in find_segments(mixture, source, shard, row))


def list_unplanned(mixture: PlannedMixture, sample: Segment, segments: Iterable[Mapping[str, int]]) -> list[int]:
    """The nodes of a sample, as it was read, that its shard has and none of these segments of it, in order.

    They are turns behind those that fit, texts and images of a document that fit no sequence, or segments for which the
    plan has no room.
    """
    held = {node for segment in segments for node in range(segment["first"], segment["last"])}
    listed = LineageTables(mixture).find(sample)["nodes"]
    return [node["node"] for place, node in enumerate(listed) if place not in held]


def find_segments(
    mixture: PlannedMixture, source: int, shard: int, row: int
) -> Iterator[tuple[int, Mapping[str, int]]]:
    """The segments of a sample, each with its sequence, in the order of the plan."""
    for block in mixture.lock["plan"]["blocks"]:
        table = read_columns(mixture.folder / block["path"], block["sha256"], ["segments"])
        segments = table["segments"].combine_chunks()
        flat = segments.flatten()
        hit = np.logical_and.reduce(
            [
                flat.field(name).to_numpy() == value
                for name, value in (("source", source), ("shard", shard), ("row", row))
            ]
        )
        sequences = segments.value_parent_indices().to_numpy()[hit]
        for place, segment in zip(sequences, flat.filter(pa.array(hit)).to_pylist(), strict=True):
            yield block["first"] + int(place), segment


def explain_unplanned(mixture: PlannedMixture, source: int, shard: int, row: int) -> str:
    """Why no sequence of the plan holds a sample of its shards, in a few words.

    The entry's rows are divided again, as the select step did, so this takes as long as that.
    """
    entry = mixture.lock["sources"][source]
    select = restore_select(mixture.lock, entry)
    inputs = {name: mixture.root / name for name in select.reads if "*" not in name}
    if select.near is not None:
        inputs |= {file.name: mixture.root / file.path for file in list_image_pairs(mixture.root)}
    with tempfile.TemporaryDirectory() as folder:
        reason = select.find_reason(inputs, Path(folder), shard, row)
    if reason is not None:
        return f"{reason}: {_describe_reason(select, reason)}"
    planned, available = (entry[name]["samples"] for name in ("planned", "available"))
    return f"no room: the plan takes {planned:,} of the {available:,} samples that entry {entry['label']} may give"


def _describe_reason(select: Select, reason: Reason) -> str:
    entry = select.entry
    if reason is Reason.HELD_OUT:
        return f"{select.held_out:g} of {entry.source} is kept for evaluation"
    if reason is Reason.NOT_TAKEN:
        asked = [f"where: {entry.where}"] if entry.where is not None else []
        asked += [f"take: {entry.take}"] if entry.take != "all" else []
        return f"its entry passes it over ({', '.join(asked)})"
    if reason is Reason.OVER_CAP and entry.balance is not None:
        return f"its group by {entry.balance.by} has more than {entry.balance.cap} samples"
    if reason is Reason.TOO_LONG:
        return f"no part of it fits a sequence of {select.limit:,} tokens and its images"
    return EXPLAINED.get(reason, "of a sequence that could be cut from it, nothing is left")


EXPLAINED = {
    Reason.TEMPLATE_REFUSED: "the chat template has no form for it",
    Reason.TEMPLATE_CHANGED: "the chat template would leave out or change some of it",
    Reason.NO_TEXT: "it has images alone, so there is nothing to learn",
}
