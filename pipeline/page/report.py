"""`vlmill report --html`: all sections of the report, and a contact sheet of losses, grouped by reason and source.

The page is a function of the run's files. What it shows a part of, it says so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.engine.partition_tables import list_raw_tables
from vlmill.pipeline.images.decode import MAX_PIXELS, Undecodable, decode_image
from vlmill.pipeline.page import make_data_url, render_page
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.funnel import format_share, format_steps, loss_to_json, make_lines_by_source
from vlmill.pipeline.reports.losses import Loss, choose_losses, list_losses, list_refused_losses
from vlmill.pipeline.reports.sections import format_funnel_notes, read_report
from vlmill.pipeline.steps.image_bytes import Pictures

MOST = 300
"""Examples on a page, over all sources and reasons."""
SIDE = 160
"""Pixels of a thumbnail's longer side."""

Group = tuple[str, str]
"""Reason and source."""


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
    cards, numbers = _choose_losses(root, recipe, counts)
    thumbnails = dict(_read_thumbnails(root, recipe, [loss for found in cards.values() for loss in found]))
    return render_page(
        "vlmill.pipeline.page",
        "report.html.jinja",
        name=recipe.name,
        policies=list(dict.fromkeys(policy for source in counts for policy in recipe.list_policies(source)[:1])),
        report=report,
        funnel=dict(make_lines_by_source(root, counts)),
        notes=list(format_funnel_notes(report.funnel)),
        share=format_share,
        sources=sorted({source for _, source in cards}),
        reasons=sorted({reason for reason, _ in cards}),
        shown=sum(len(found) for found in cards.values()),
        groups=[
            {
                "reason": reason,
                "source": source,
                "number": numbers[reason, source],
                "steps": format_steps(reason, steps[source]),
                "cards": [_make_card(loss, thumbnails.get(_key_loss(loss), "")) for loss in found],
            }
            for (reason, source), found in sorted(cards.items())
        ],
    )


def _choose_losses(
    root: Path, recipe: Recipe, sources: Iterable[str]
) -> tuple[dict[Group, list[Loss]], Counter[Group]]:
    """The losses that are shown, and how many there are, in memory that does not grow with the run."""
    groups, numbers = defaultdict[Group, list[Loss]](list), Counter[Group]()
    for source in sources:
        for loss in chain(list_refused_losses(root, recipe, source), list_losses(root, recipe, source)):
            group = groups[str(loss.reason), source]
            numbers[str(loss.reason), source] += 1
            group.append(loss)
            if len(group) > 4 * MOST:
                group[:] = choose_losses(group, MOST)
    quota = max(1, MOST // max(1, len(groups)))
    return {key: choose_losses(found, quota) for key, found in groups.items()}, numbers


def _make_card(loss: Loss, thumbnail: str) -> dict[str, Any]:
    """A loss as the template shows it."""
    where = f"{loss.where}: {loss.detail}" if loss.detail else loss.where
    return {**loss_to_json(loss), "where": where, "thumbnail": thumbnail}


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
