"""One sample: its nodes with their outcomes, verdicts and values. What a trainer sees: trainer_view.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from vlmill.explore.index import OF_SAMPLES
from vlmill.pipeline.core.names import IMAGE_STATS_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import ImageStats, Sample, Verdict
from vlmill.pipeline.reports.trace import describe_verdict
from vlmill.pipeline.verdicts.apply import Outcome, apply_verdicts

if TYPE_CHECKING:
    from pathlib import Path

    from vlmill.explore.state import Opened

TEXT = 20_000
"""Characters of a node that are shown."""
NODES = 200


def describe_sample(opened: Opened, number: int) -> dict[str, Any]:
    """All that is shown of a sample, but for what the trainer sees of it."""
    source, partition, row = opened.index.find_place(number)
    at, sample = opened.reader.find_partition(source, partition), opened.reader.read_sample(number)
    verdicts = _read_verdicts(at.verdicts or {}, row)
    stats = _read_stats(at.tables.get(IMAGE_STATS_FILE), sample)
    outcome = _find_outcome(sample, verdicts, stats) if at.verdicts is not None else None
    values = _list_values(opened, number)
    return {
        "number": number,
        "id": str(sample.id),
        "source": source,
        "partition": partition,
        "upstream_id": sample.upstream_id,
        "url": sample.url,
        "licence": sample.licence,
        "group": sample.group,
        "ratings": dict(sample.signals),
        "outcome": opened.index.outcomes[int(opened.index.column("outcome")[number])],
        "verdicts": [
            {
                "filter": verdict.filter,
                "reason": str(verdict.reason),
                "node": verdict.node,
                "score": round(verdict.score, 4),
                "other": verdict.other,
                "said": said,
            }
            for verdict in verdicts
            if (said := describe_verdict(verdict, outcome or Outcome(None, ())))
        ],
        "values": values.get(-1, {}),
        "nodes": [
            {
                "kind": node.kind,
                "role": node.role,
                "supervised": node.supervised,
                "required": node.required,
                "url": node.url or "",
                "text": (node.text or "")[:TEXT],
                "cut": len(node.text or "") > TEXT,
                "reason": str(reason) if reason else "",
                "picture": None
                if node.image is None or not _is_decoded(stats.get(node.image))
                else {"source": source, "partition": partition, "image": node.image},
                "facts": _describe_stats(stats.get(node.image)) if node.image is not None else "",
                "values": values.get(place, {}),
            }
            for place, (node, reason) in enumerate(
                zip(sample.nodes[:NODES], outcome.nodes if outcome else (None,) * len(sample.nodes), strict=False)
            )
        ],
        "more": max(0, len(sample.nodes) - NODES),
    }


def _read_verdicts(tables: Mapping[str, Path], row: int) -> list[Verdict]:
    """The verdicts on a row, in the order in which they count."""
    found = list[Verdict]()
    for path in tables.values():
        mine = pl.scan_parquet(path, glob=False).filter(pl.col("sample") == row).collect()
        found += [Verdict(**{**one, "reason": Reason(one["reason"])}) for one in mine.iter_rows(named=True)]
    return found


def _read_stats(path: Path | None, sample: Sample) -> dict[int, ImageStats]:
    """The stats of a sample's images."""
    images = [node.image for node in sample.nodes if node.image is not None]
    if path is None or not images:
        return {}
    columns = ["image", "reason", "sha256", "format", "width", "height", "contrast", "sharpness"]
    mine = pl.scan_parquet(path, glob=False).filter(pl.col("image").is_in(images)).select(columns).collect()
    return {
        row["image"]: ImageStats(**{**row, "reason": Reason(row["reason"]) if row["reason"] else None})
        for row in mine.iter_rows(named=True)
    }


def _find_outcome(sample: Sample, verdicts: Sequence[Verdict], stats: Mapping[int, ImageStats]) -> Outcome:
    """The outcome, with the sample's own images numbered from 0."""
    numbers = {image: place for place, image in enumerate(stats)}
    nodes = tuple(node if node.image is None else replace(node, image=numbers[node.image]) for node in sample.nodes)
    return apply_verdicts(replace(sample, nodes=nodes), verdicts, list(stats.values()))


def _is_decoded(stats: ImageStats | None) -> bool:
    """Whether an image can be drawn; where nothing is known of it yet, it may be."""
    return stats is None or stats.reason is None


def _describe_stats(stats: ImageStats | None) -> str:
    if stats is None or stats.reason is not None:
        return ""
    measured = f"contrast {stats.contrast:.1f}, sharpness {stats.sharpness:,.0f}"
    return f"{stats.format} {stats.width} x {stats.height}, {measured}"


def _list_values(opened: Opened, number: int) -> dict[int, dict[str, float]]:
    """The values of signals and ratings by node; -1 is the sample."""
    index, found = opened.index, dict[int, dict[str, float]]()
    for name, dimension in index.dimensions.items():
        if name in OF_SAMPLES:
            for value in opened.reader.list_values(number, name):
                found.setdefault(-1, {})[name] = value
        elif dimension.of != "image":
            first, last = opened.reader.find_owned(number, name)
            nodes, values_of = index.column(f"{name}.node")[first:last], index.column(name)[first:last]
            for node, value in zip(nodes.tolist(), values_of.tolist(), strict=True):
                found.setdefault(node, {})[name] = round(value, 6)
    return found
