"""The plot of an ablation: scores by seed, and differences from the baseline with their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt

BLUE, GREY = "#4269d0", "#9498a0"
WIDTH, ROW = 260, 34


def write_plot(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `ablation.svg`, and `ablation.html` with numbers under the mouse, which needs no network; returns both."""
    chart, paths = _make_chart(found), [folder / "ablation.svg", folder / "ablation.html"]
    chart.save(paths[0])
    chart.save(paths[1], inline=True)
    return paths


def _make_chart(found: Mapping[str, Any]) -> Any:
    names, measure = list(found["variants"]), found["metric"]
    scores = [
        {"variant": name, "seed": seed, "score": score}
        for name, variant in found["variants"].items()
        for seed, score in zip(found["seeds"], variant["scores"][measure], strict=True)
    ]
    place = alt.Y("variant:N", sort=names, scale=alt.Scale(domain=names), title=None)
    base = alt.Chart(alt.Data(values=scores)).encode(place)  # type: ignore[no-untyped-call]
    points = base.mark_point(color=GREY).encode(
        alt.X("score:Q", title=f"{measure}, by seed", scale=alt.Scale(zero=False)),
        tooltip=["variant:N", "seed:N", alt.Tooltip("score:Q", format=".4f")],
    )
    means = base.mark_tick(color=BLUE, thickness=3).encode(alt.X("mean(score):Q"))
    left = (points + means).properties(width=WIDTH, height=ROW * len(names))
    return (left | _plot_differences(found, place).properties(width=WIDTH, height=ROW * len(names))).configure_view(
        stroke=None
    )


def _plot_differences(found: Mapping[str, Any], place: alt.Y) -> Any:
    rows = [{"variant": name, **difference} for name, difference in found["differences"].items()]
    base = alt.Chart(alt.Data(values=rows)).encode(place)  # type: ignore[no-untyped-call]
    told = [alt.Tooltip(f"{name}:Q", format=".4f") for name in ("difference", "low", "high", "p", "corrected")]
    title = f"{found['metric']} above {found['baseline']}, {found['level']:.0%} interval"
    lines = base.mark_rule(color=BLUE).encode(alt.X("low:Q", title=title), alt.X2("high:Q"), tooltip=told)
    middles = base.mark_point(color=BLUE, filled=True, size=60).encode(alt.X("difference:Q"), tooltip=told)
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=GREY, strokeDash=[4, 3]).encode(alt.X("zero:Q"))  # type: ignore[no-untyped-call]
    return zero + lines + middles
