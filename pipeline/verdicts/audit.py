"""The counts of a partition, counted again from its tables and verdicts. Those of receipts have to come to the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from vlmill.pipeline.core.names import IMAGE_STATS_FILE, REFUSED_FILE, SAMPLES_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Sample, read_image_stats, read_rows, read_samples
from vlmill.pipeline.core.step import Count, Counts
from vlmill.pipeline.verdicts.apply import Outcome, apply_verdicts, read_verdicts_by_sample

CONSEQUENCES = frozenset({Reason.REQUIRED_LOST, Reason.TURN_LOST, Reason.NOTHING_LEFT})
"""Reasons of what fell with something else."""
FALLEN = CONSEQUENCES | {Reason.TOO_FEW_IMAGES}
"""Reasons that may have another behind them."""


@dataclass
class Recount:
    """What the tables of a partition come to."""

    samples: int = 0  # rows of samples.parquet
    nodes_filtered: int = 0  # that filters were shown: all but those of samples that were taken down
    samples_left: int = 0  # by the filters, before dedupe
    nodes_left: int = 0
    counts: Counts = field(default_factory=lambda: {"samples": Count(), "nodes": Count(), "images": Count()})

    def enter(self, sample: Sample, outcome: Outcome, before: Outcome) -> None:
        """Add a sample with its fate, and that which it had before dedupe."""
        self.samples += 1
        self.nodes_filtered += 0 if sample.taken_down else len(sample.nodes)
        self.samples_left += before.sample is None
        self.nodes_left += len(before.kept) if before.sample is None else 0
        count_sample(self.counts, sample, outcome)


def count_sample(counts: Counts, sample: Sample, outcome: Outcome) -> None:
    """Enter a sample in the counts, at all three levels; images are image nodes.

    What fell with something else is also entered in a level of its reason, as lost for what it fell with.
    """
    fates = [("samples", outcome.sample), *(("nodes", reason) for reason in outcome.nodes)]
    fates += [
        ("images", reason) for node, reason in zip(sample.nodes, outcome.nodes, strict=True) if node.kind == "image"
    ]
    for level, reason in fates:
        if reason is None:
            counts[level].keep()
        else:
            counts[level].lose(reason)
    for reason, cause in list_causes(sample, outcome):
        counts.setdefault(str(reason), Count()).lose(cause)


def list_causes(sample: Sample, outcome: Outcome) -> Iterator[tuple[Reason, Reason]]:
    """Each consequence of a sample, of itself or of a node, with its cause; pure.

    REQUIRED_LOST has that of the first required image that was lost, TURN_LOST that of the first text of its turn,
    NOTHING_LEFT what most nodes went for. TOO_FEW_IMAGES is one where images were lost before: it has what most of
    these went for.
    """
    nodes = [(node, why) for node, why in zip(sample.nodes, outcome.nodes, strict=True) if why not in FALLEN]
    whole = outcome.sample
    if whole is Reason.REQUIRED_LOST:
        yield from [(whole, why) for node, why in nodes if node.required and why][:1]
    elif whole is Reason.NOTHING_LEFT:
        yield from ((whole, why) for why, _ in Counter(why for _, why in nodes if why).most_common(1))
    elif whole is Reason.TOO_FEW_IMAGES:
        images = Counter(why for node, why in nodes if node.kind == "image" and why)
        yield from ((whole, why) for why, _ in images.most_common(1))
    for node, lost in zip(sample.nodes, outcome.nodes, strict=True):
        if lost is Reason.TURN_LOST:
            texts = (why for one, why in nodes if one.kind == "text" and one.turn == node.turn and why)
            if cause := next(texts, None):
                yield lost, cause


def count_read(inputs: Mapping[str, Path]) -> Counts:
    """The counts of `read`, counted again; pure.

    A row is kept if it gave a sample, else lost for the first reason that it was refused for.
    """
    rows, pages = Count(), Count()
    seen = {(row["file"], row["row"]) for row in read_rows(inputs[SAMPLES_FILE], ["file", "row"])}
    rows.keep(len(seen))
    pages.keep(_count_rows(inputs[SAMPLES_FILE]))
    for row in read_rows(inputs[REFUSED_FILE], ["file", "row", "reason"]):
        pages.lose(Reason(row["reason"]))
        if (place := (row["file"], row["row"])) not in seen:
            seen.add(place)
            rows.lose(Reason(row["reason"]))
    return {"rows": rows, "pages": pages}


def _count_rows(table: Path) -> int:
    return int(pq.read_metadata(table).num_rows)


def recount_partition(inputs: Mapping[str, Path], all_verdict_steps: Sequence[str]) -> Recount:
    """Count a partition again; pure.

    Args:
        inputs: `samples.parquet`, `image_stats.parquet` and the verdicts of all voices, by name.
        all_verdict_steps: The steps that write verdicts, in the order in which they count.
    """
    found, verdicts, image_stats = (
        Recount(),
        read_verdicts_by_sample(inputs, all_verdict_steps),
        read_image_stats(inputs[IMAGE_STATS_FILE], ()),  # only why there is no image
    )
    for row, sample in enumerate(read_samples(inputs[SAMPLES_FILE])):
        mine = verdicts.get(row, [])
        outcome = apply_verdicts(sample, mine, image_stats)
        filtered = [verdict for verdict in mine if verdict.filter not in {"dedupe", "render"}]
        found.enter(
            sample, outcome, outcome if len(filtered) == len(mine) else apply_verdicts(sample, filtered, image_stats)
        )
    return found
