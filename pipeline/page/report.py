"""`vlmill report --html`: a summary, all sections of the report, and a contact sheet of losses by reason and source.

Duplicates stand beside what is kept for them, and what many documents repeat is shown once. The page is a function of
the run's files. What it shows a part of, it says so.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.engine.partition_tables import list_raw_tables
from vlmill.pipeline.images.decode import MAX_PIXELS, Undecodable, decode_image
from vlmill.pipeline.page import make_data_url, render_page
from vlmill.pipeline.page.histogram import draw_histogram, draw_scores
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.funnel import format_share, format_steps, loss_to_json, make_lines_by_source
from vlmill.pipeline.reports.keepers import read_keepers
from vlmill.pipeline.reports.losses import Loss, list_losses, list_refused_losses
from vlmill.pipeline.reports.overview import count_bytes, list_odd, sum_levels
from vlmill.pipeline.reports.sections import format_funnel_notes, read_report
from vlmill.pipeline.reports.signals import SignalCounts
from vlmill.pipeline.steps.image_bytes import Pictures

MOST = 300
"""Examples on a page, over all sources and reasons."""
SIDE = 160
"""Pixels of a thumbnail's longer side."""

REPEATED = frozenset({Reason.BOILERPLATE_IMAGE, Reason.HOST_IMAGE, Reason.REPEATED_PARAGRAPH})
"""Reasons of what many samples have in common: one example stands for all that are the same."""

Group = tuple[str, str]
"""Reason and source."""


@dataclass
class LossGroup:
    """The losses of a source for one reason: how many, their scores, and some of them, chosen by a hash."""

    number: int = 0
    scores: Counter[float] = field(default_factory=Counter)  # to two digits, so there are few
    examples: dict[str, tuple[Loss, int]] = field(default_factory=dict)  # hash -> a loss, and how many are the same

    def add_loss(self, loss: Loss) -> None:
        """Count a loss. Examples with the smallest hashes stay, so what is dropped once never comes back."""
        self.number += 1
        if loss.score is not None:
            self.scores[float(f"{loss.score:.2g}")] += 1
        key = _hash_loss(loss)
        first, same = self.examples.get(key, (loss, 0))
        self.examples[key] = first, same + 1
        if len(self.examples) > 4 * MOST:
            self.examples = dict(heapq.nsmallest(MOST, self.examples.items(), key=lambda item: item[0]))

    def choose_examples(self, number: int) -> list[tuple[Loss, int]]:
        """Those with the smallest hashes, what is repeated most first."""
        chosen = heapq.nsmallest(number, self.examples.items(), key=lambda item: item[0])
        return sorted((found for _, found in chosen), key=lambda found: -found[1])


def _hash_loss(loss: Loss) -> str:
    """Of what repeats its content, of the rest its id."""
    repeated = loss.reason in REPEATED and (loss.sha256 or loss.text)
    return hashlib.sha256((repeated or f"{loss.id} {loss.node}").encode()).hexdigest()


def render_report_page(root: Path, source: str | None = None) -> str:
    """The page of a run: all sections that it has, and losses.

    It shows the same number of losses of every reason and source, as far as there are any.

    Args:
        root: The run's folder.
        source: One source only.

    Raises:
        StoreError: a source is not filtered to its end, or there is no such source.
    """
    recipe, report = read_locked_recipe(root), read_report(root, source=source)
    if report.funnel is None:
        raise StoreError(str((report.missing or {})["funnel"]))
    counts, steps = report.funnel.counts, report.funnel.steps
    groups = _group_losses(root, recipe, counts)
    quota = max(1, MOST // max(1, len(groups)))
    cards = {key: group.choose_examples(quota) for key, group in sorted(groups.items())}
    losses = [loss for found in cards.values() for loss, _ in found]
    thumbnails = dict(_read_thumbnails(root, recipe, losses))
    keepers = {
        _key_loss(loss): {"text": keeper.text, "thumbnail": make_thumbnail(keeper.picture) if keeper.picture else ""}
        for loss, keeper in read_keepers(root, recipe, losses)
    }
    return render_page(
        "vlmill.pipeline.page",
        "report.html.jinja",
        name=recipe.name,
        policies=list(dict.fromkeys(policy for source in counts for policy in recipe.list_policies(source)[:1])),
        report=report,
        totals=sum_levels(counts),
        sizes=count_bytes(root, recipe),
        licences={name: block.licence for name in counts if (block := recipe.sources[name]).licence},
        odd=list(list_odd(root, recipe, counts)),
        funnel=dict(make_lines_by_source(root, counts)),
        notes=list(format_funnel_notes(report.funnel)),
        signals=[
            {"title": f"{one.value}, {one.source}", "plot": draw_histogram(one.edges, one.counts, _list_bounds(one))}
            for one in report.signals or ()
        ],
        share=format_share,
        sources=sorted({source for _, source in cards}),
        reasons=sorted({reason for reason, _ in cards}),
        shown=len(losses),
        groups=[
            {
                "reason": reason,
                "source": source,
                "number": groups[reason, source].number,
                "scores": draw_scores(groups[reason, source].scores),
                "steps": format_steps(reason, steps[source]),
                "cards": [_make_card(loss, same, thumbnails, keepers) for loss, same in found],
            }
            for (reason, source), found in cards.items()
        ],
    )


def _group_losses(root: Path, recipe: Recipe, sources: Iterable[str]) -> dict[Group, LossGroup]:
    """All losses by reason and source, in memory that does not grow with the run."""
    groups = defaultdict[Group, LossGroup](LossGroup)
    for source in sources:
        for loss in chain(list_refused_losses(root, recipe, source), list_losses(root, recipe, source)):
            groups[str(loss.reason), source].add_loss(loss)
    return dict(groups)


def _list_bounds(found: SignalCounts) -> list[float]:
    return [bound for bounds in found.bounds for bound in bounds if bound is not None]


def _make_card(
    loss: Loss,
    same: int,
    thumbnails: Mapping[tuple[str, int], str],
    keepers: Mapping[tuple[str, int], Mapping[str, str]],
) -> dict[str, Any]:
    """A loss as the template shows it."""
    key = _key_loss(loss)
    where = f"{loss.where}: {loss.detail}" if loss.detail else loss.where
    shown = {"where": where, "same": same, "thumbnail": thumbnails.get(key, ""), "keeper": keepers.get(key)}
    return {**loss_to_json(loss), **shown}


def _key_loss(loss: Loss) -> tuple[str, int]:
    return loss.id, loss.node


def _read_thumbnails(root: Path, recipe: Recipe, wanted: Iterable[Loss]) -> Iterator[tuple[tuple[str, int], str]]:
    """Small pictures of the losses that have one, as addresses; each partition's table is opened once."""
    by_partition = defaultdict[tuple[str, str], list[Loss]](list)
    for loss in wanted:
        if loss.image is not None:
            by_partition[loss.source, loss.partition].append(loss)
    for source in sorted({source for source, _ in by_partition}):
        for raw in list_raw_tables(root, recipe, source):
            if (source, raw.partition) not in by_partition:
                continue
            pictures = Pictures(raw.paths(root))
            for loss in sorted(by_partition[source, raw.partition], key=lambda loss: loss.image or 0):
                if loss.image is not None:
                    yield _key_loss(loss), make_thumbnail(pictures.read(loss.image))


def make_thumbnail(data: bytes) -> str:
    """A picture, at most SIDE pixels long, as a data URI; empty where it is too large to be opened for this. Pure."""
    try:
        return make_data_url(decode_image(data, MAX_PIXELS), SIDE, quality=60)
    except Undecodable:
        return ""
