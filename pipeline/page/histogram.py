"""Histograms as SVG of a few lines, for pages that draw nothing by scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from markupsafe import Markup

WIDTH, HEIGHT = 240, 48
"""Of the bars, in units of the drawing: it is scaled to its place."""
BINS = 24


def draw_histogram(edges: Sequence[float], counts: Sequence[int], bounds: Sequence[float] = ()) -> Markup:
    """Bars over edges, and a dashed line at each bound; empty where there is nothing to draw. Pure.

    Args:
        edges: of the bins, one more than `counts`, rising.
        counts: of what lies in each bin.
        bounds: at which something passes or not; one beyond the outer edges is not drawn.
    """
    most = max(counts, default=0)
    if not most or edges[-1] <= edges[0]:
        return Markup("")
    span = edges[-1] - edges[0]

    def place(value: float) -> float:
        return round((value - edges[0]) / span * WIDTH, 1)

    parts = [
        Markup('<rect x="{}" y="{}" width="{}" height="{}"><title>{:.4g} to {:.4g}: {:,}</title></rect>').format(
            place(first),
            round(HEIGHT * (1 - count / most), 1),
            max(0.5, round(place(last) - place(first) - 0.5, 1)),
            round(HEIGHT * count / most, 1),
            first,
            last,
            count,
        )
        for (first, last), count in zip(pairwise(edges), counts, strict=True)
        if count
    ]
    parts += [
        Markup('<line x1="{0}" x2="{0}" y1="0" y2="{1}"><title>bound: {2:.4g}</title></line>').format(
            place(bound), HEIGHT, bound
        )
        for bound in sorted({*bounds})
        if edges[0] <= bound <= edges[-1]
    ]
    ends = Markup('<text x="0" y="{0}">{1:.4g}</text><text x="{2}" y="{0}" text-anchor="end">{3:.4g}</text>').format(
        HEIGHT + 12, edges[0], WIDTH, edges[-1]
    )
    view = Markup('<svg class="histogram" viewBox="0 0 {} {}" role="img">').format(WIDTH, HEIGHT + 15)
    return view + Markup("").join(parts) + ends + Markup("</svg>")


def draw_scores(scores: Mapping[float, int]) -> Markup:
    """A histogram of scores that were counted by value; empty where fewer than three differ. Pure."""
    if len(scores) < 3:
        return Markup("")
    low, high = min(scores), max(scores)
    counts = [0] * BINS
    for score, number in scores.items():
        counts[min(BINS - 1, int((score - low) / (high - low) * BINS))] += number
    return draw_histogram([low + (high - low) * place / BINS for place in range(BINS + 1)], counts)
