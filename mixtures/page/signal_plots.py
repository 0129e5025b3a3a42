"""The page's plots of signals, as Vega-Lite: histograms with bounds, and maps of vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import altair as alt

from vlmill.mixtures.page.counts import Rows
from vlmill.mixtures.page.embedding_map import EmbeddingMap
from vlmill.mixtures.page.plots import HEIGHT, INK, WIDTH, Plot, colour_by_source, describe_plot, make_chart
from vlmill.pipeline.reports.signals import SignalCounts


def plot_signals(found: Sequence[SignalCounts], by_source: Mapping[str, str]) -> list[Plot]:
    """A histogram of every signal by source, with the bounds of the threshold."""
    by_value = dict[str, list[SignalCounts]]()
    for one in found:
        by_value.setdefault(one.value, []).append(one)
    note = "values by source; lines are the bounds of the threshold"
    return [describe_plot(f"Signal {value}", note, _plot_signal(ones, by_source)) for value, ones in by_value.items()]


def plot_maps(found: Sequence[EmbeddingMap], by_source: Mapping[str, str]) -> list[Plot]:
    """The vectors of each signal of clusters in two dimensions."""
    note = "two principal components of vectors, chosen by hash"
    return [describe_plot(f"Map of {one.name}", note, _plot_map(one.points, by_source)) for one in found]


def _plot_signal(found: Sequence[SignalCounts], by_source: Mapping[str, str]) -> Any:
    rows = [
        {"source": one.source, "from": first, "to": last, "values": count}
        for one in found
        for (first, last), count in zip(pairwise(one.edges), one.counts, strict=True)
        if count
    ]
    axis = alt.X("from:Q", bin="binned", title=None, scale=alt.Scale(domain=[found[0].edges[0], found[0].edges[-1]]))
    bars = (
        make_chart(rows)
        .mark_bar(binSpacing=0)
        .encode(
            axis,
            alt.X2("to:Q"),
            alt.Y("values:Q", title="values", stack=True),
            colour_by_source(by_source),
            tooltip=["source:N", "from:Q", "to:Q", "values:Q"],
        )
    )
    lines = [
        {"source": one.source, "bound": bound, "side": side}
        for one in found
        for bounds in one.bounds
        for side, bound in zip(("least", "largest"), bounds, strict=True)
        if bound is not None
    ]
    same = len({(line["bound"], line["side"]) for line in lines}) <= 2
    colour = alt.value(INK) if same else colour_by_source(by_source)
    rules = (
        make_chart(lines)
        .mark_rule(strokeDash=[4, 3], strokeWidth=2, clip=True)
        .encode(alt.X("bound:Q"), color=colour, tooltip=["source:N", "side:N", "bound:Q"])
    )
    return (bars + rules if lines else bars).properties(width=WIDTH, height=HEIGHT)


def _plot_map(points: Rows, by_source: Mapping[str, str]) -> Any:
    sources = {point["source"] for point in points}
    here = {source: colour for source, colour in by_source.items() if source in sources}
    shown = ["source:N", "cluster:Q", "size:Q", alt.Tooltip("similarity:Q", format=".3f"), "id:N"]
    return (
        make_chart(points)
        .mark_circle(size=14, opacity=0.6)
        .encode(
            alt.X("x:Q", axis=None, scale=alt.Scale(zero=False)),
            alt.Y("y:Q", axis=None, scale=alt.Scale(zero=False)),
            colour_by_source(here),
            tooltip=shown,
        )
        .properties(width=2 * WIDTH, height=2 * HEIGHT)
    )
