"""Single losses, with who said so and what was lost: what the report shows examples of."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.core.names import BAD_FILES, IMAGE_STATS_FILE, SAMPLES_FILE, name_verdicts
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    LEAST_IMAGES,
    WHOLE_SAMPLE,
    ImageStats,
    Sample,
    Verdict,
    read_image_stats,
    read_samples,
)
from vlmill.pipeline.core.shown import describe_more
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.partition_tables import PartitionTables, list_filtered_tables
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.refused import read_refused_rows
from vlmill.pipeline.sources.image_places import explain_lost_image
from vlmill.pipeline.verdicts.apply import Outcome, apply_verdicts, read_verdicts_by_sample
from vlmill.pipeline.verdicts.audit import CONSEQUENCES

CAUSES = 3
"""Causes of a consequence that are named."""
EXCERPT = 300
"""Characters of a text that are shown."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A sample or a node that was lost for a reason of its own.

    Nodes that were lost with their sample are not counted again.
    """

    source: str  # its name
    partition: str  # that holds it
    id: str  # of the sample, row or page; the name of an input file
    node: int  # or WHOLE_SAMPLE
    reason: Reason  # as the funnel counts it
    filter: str  # which filter dropped it; empty where none did: it failed, or fell with something else
    score: float | None  # as the filter measured it
    other: str  # the keeper's id, of duplicates
    kind: str  # of what was lost: sample, text or image; row, page or file where there was no sample
    text: str  # the beginning of it
    url: str  # of the image, or of the document
    image: int | None  # that can be shown: its number in the partition
    detail: str = ""  # what the source said of a row or page; what a sample or node fell with, or which images failed
    sha256: str = ""  # of the image as it came
    upstream_id: str = ""  # of its row in the input file

    @property
    def where(self) -> str:
        """What was lost, in words."""
        return f"the {self.kind}" if self.node == WHOLE_SAMPLE else f"node {self.node}, {self.kind}"


def list_losses(root: Path, recipe: Recipe, source: str) -> Iterator[Loss]:
    """Every loss of a source, partition by partition, under the first policy that it is rendered under.

    What left no sample is not here: see `list_refused_losses`.

    Raises:
        StoreError: the source is not filtered to its end.
    """
    policy = next(iter(recipe.list_policies(source)), None)
    folder = f"shards/{source}/{policy}"
    rendered = {}
    if (root / folder / "manifest.json").exists():
        rendered = {receipt.partition: receipt.files for receipt in read_manifest(root, folder)}
    for tables in list_filtered_tables(root, recipe, source):
        drawn = {file.name: file for file in rendered.get(tables.partition, ())}
        tables.files.update({name: file for name, file in drawn.items() if name == name_verdicts("render")})
        yield from _read_losses(root, tables, (*recipe.all_verdict_steps(), *(("render",) if drawn else ())))


def list_refused_losses(root: Path, recipe: Recipe, source: str) -> Iterator[Loss]:
    """Every row and page of a source that left no sample, in the order of its rows. Raises StoreError as `refused`."""
    for one in read_refused_rows(root, recipe, source):
        detail = one.detail or (f"taken down by {one.taken_down}" if one.taken_down else "")
        named = str(one.id), one.reason, one.kind, one.excerpt, detail, one.upstream_id
        yield _make_refused_loss(source, one.partition, *named)


def list_bad_files(root: Path, source: str) -> Iterator[Loss]:
    """Every input file of a source that was skipped as a whole. Raises StoreError where it is not surveyed."""
    for receipt in read_manifest(root, f"steps/{source}/survey"):
        for file in receipt.files:
            for bad in read_json(root / file.path) if file.name == BAD_FILES else ():
                yield _make_refused_loss(
                    source, receipt.partition, bad["file"], Reason.BAD_FILE, "file", "", bad["fault"]
                )


def _make_refused_loss(
    source: str, partition: str, name: str, reason: Reason, kind: str, text: str, detail: str, upstream_id: str = ""
) -> Loss:
    """What no sample was made of."""
    return Loss(
        source=source,
        partition=partition,
        id=name,
        node=WHOLE_SAMPLE,
        reason=reason,
        filter="",
        score=None,
        other="",
        kind=kind,
        text=text,
        url="",
        image=None,
        detail=detail,
        upstream_id=upstream_id,
    )


def _read_losses(root: Path, tables: PartitionTables, all_verdict_steps: Sequence[str]) -> Iterator[Loss]:
    paths = tables.paths(root)
    verdicts, image_stats = (
        read_verdicts_by_sample(paths, all_verdict_steps),
        read_image_stats(paths[IMAGE_STATS_FILE], ("sha256",)),
    )
    for row, sample in enumerate(read_samples(paths[SAMPLES_FILE])):
        mine = verdicts.get(row, [])
        outcome = apply_verdicts(sample, mine, image_stats)
        for node, reason in _list_lost(outcome):
            loss = _make_loss(tables, sample, node, reason, mine, image_stats)
            yield replace(loss, detail=_name_causes(sample, node, outcome, mine)) if reason in CONSEQUENCES else loss


def _list_lost(outcome: Outcome) -> Iterator[tuple[int, Reason]]:
    """What fell for a reason of its own: the sample, and nodes that fell for another."""
    if outcome.sample is not None:
        yield WHOLE_SAMPLE, outcome.sample
    for node, reason in enumerate(outcome.nodes):
        if reason is not None and reason is not outcome.sample:
            yield node, reason


def _name_causes(sample: Sample, lost: int, outcome: Outcome, verdicts: Sequence[Verdict]) -> str:
    """What a sample or node fell with: nodes that were lost for reasons of their own, of a node those of its turn."""
    turn = None if lost == WHOLE_SAMPLE else sample.nodes[lost].turn
    causes = [
        (place, reason)
        for place, (node, reason) in enumerate(zip(sample.nodes, outcome.nodes, strict=True))
        if reason is not None and reason not in CONSEQUENCES and turn in {None, node.turn}
    ]
    said = list[str]()
    for place, reason in causes[:CAUSES]:
        found = next((one for one in verdicts if one.node == place and one.reason is reason), None)
        by = f" ({found.filter}{f', because of {found.other}' if found.other else ''})" if found else ""
        said.append(f"node {place}, {sample.nodes[place].kind}: {reason}{by}")
    return f"fell with {'; '.join(said)}{describe_more(len(causes) - CAUSES, 'node')}" if said else ""


def _make_loss(
    tables: PartitionTables,
    sample: Sample,
    node: int,
    reason: Reason,
    verdicts: Sequence[Verdict],
    image_stats: Sequence[ImageStats],
) -> Loss:
    said = [
        verdict
        for verdict in verdicts
        if verdict.reason is reason and verdict.node in {node, WHOLE_SAMPLE, LEAST_IMAGES}
    ]
    verdict = said[0] if said else None
    lost = sample.nodes if node == WHOLE_SAMPLE else sample.nodes[node : node + 1]
    shown = [node.image for node in lost if node.image is not None and image_stats[node.image].reason is None]
    text = "\n".join(node.text for node in lost if node.text)
    url = (sample.url if node == WHOLE_SAMPLE else sample.nodes[node].url) or ""
    return Loss(
        source=tables.source,
        partition=tables.partition,
        id=str(sample.id),
        node=node,
        reason=reason,
        filter=verdict.filter if verdict else "",
        score=verdict.score if verdict else None,
        other=verdict.other if verdict else "",
        kind="sample" if node == WHOLE_SAMPLE else sample.nodes[node].kind,
        text=text[:EXCERPT] + ("..." if len(text) > EXCERPT else ""),
        url=url,
        detail=_name_failed(sample, reason, image_stats) if node == WHOLE_SAMPLE else explain_lost_image(url, reason),
        image=shown[0] if shown else None,
        sha256=image_stats[shown[0]].sha256 if shown else "",
        upstream_id=sample.upstream_id,
    )


def _name_failed(sample: Sample, reason: Reason, image_stats: Sequence[ImageStats]) -> str:
    """The images of a sample that failed for this reason, as its row names them."""
    named = [
        (f"node {place}, image: {node.url}", node.url)
        for place, node in enumerate(sample.nodes)
        if node.image is not None and node.url and image_stats[node.image].reason is reason
    ]
    more = describe_more(len(named) - CAUSES, "image")
    whys = dict.fromkeys(explain_lost_image(url, reason) for _, url in named)
    return "; ".join([*(said for said, _ in named[:CAUSES]), *filter(None, whys)]) + more


def choose_losses(found: Iterable[Loss], number: int) -> list[Loss]:
    """`number` of the losses by a hash of their ids: the same ones whatever their order and partitions."""
    return heapq.nsmallest(number, found, key=_hash_loss)


def _hash_loss(loss: Loss) -> bytes:
    return hashlib.sha256(f"{loss.id} {loss.node}".encode()).digest()
