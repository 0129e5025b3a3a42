"""The page's plots, as Vega-Lite: a title and a specification each.

The page draws them, and shows numbers under the mouse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import altair as alt

from vlmill.mixtures.config import UNITS
from vlmill.mixtures.page.counts import Counted, Rows
from vlmill.pipeline.page.colours import KEPT_COLOUR, choose_colours, choose_reason_colours

GREY, INK = KEPT_COLOUR, "#3b4252"
KEPT = "kept"
OTHERS = "other reasons"
MOST_REASONS = 9
"""That have a colour in a plot, the most frequent ones; the others are together."""
LANGUAGES = 20
"""The most frequent, in a plot."""

DARK = 0.4
"""Of the largest number of a matrix: cells from there on are too dark for dark letters."""

WHOLE = 12
"""Sources up to which a matrix has all of them; of more, those that have something in common."""

WIDTH, HEIGHT = 290, 190
CELL = 64
"""Width of a matrix's cell."""
LETTERS = 10
"""Of a name that fits above a cell; longer ones are written at an angle."""

Plot = dict[str, Any]
"""title, note, spec."""


def plot_stage(stats: Mapping[str, Any], counted: Counted, by_source: Mapping[str, str]) -> list[Plot]:
    """The plots of a stage, whose entries may mean groups of sources."""
    entries = (source["name"].partition("@")[0] for source in stats["sources"])
    by_source = choose_colours(list(dict.fromkeys([*by_source, *entries])))
    labels = {source["name"]: by_source[source["name"].partition("@")[0]] for source in stats["sources"]}
    here = {name.partition("@")[0]: colour for name, colour in labels.items()}
    moving = "lines: as declared; points: as planned"
    along = (
        [describe_plot("Shares along the plan", moving, _plot_schedule(stats, labels))] if "schedule" in stats else []
    )
    return [
        describe_plot("Declared and realised share", f"of {stats['unit']}", _plot_shares(stats)),
        *along,
        describe_plot("What the sequences are made of", "realised share in every unit", _plot_units(stats, labels)),
        describe_plot("Length of a sample", "tokens, of what lies in the shards", _plot_lengths(counted.lengths, here)),
        describe_plot("Size of an image", "pixels of the original", _plot_sizes(counted.sizes)),
        describe_plot("Ratio of an image", "width over height, as it came", _plot_ratios(counted.ratios, here)),
        describe_plot("Tiles of an image", "encoder inputs, the overview included", _plot_tiles(counted.tiles, here)),
        describe_plot("How full sequences are", "share of the sequence's tokens and tiles", _plot_fill(counted.fill)),
    ]


def plot_run(
    funnel: Mapping[str, Any], languages: Rows, overlap: Mapping[str, Rows], by_source: Mapping[str, str]
) -> list[Plot]:
    """The plots of a whole run, which are of sources: groups have a colour and no place here."""
    by_source = {source: colour for source, colour in by_source.items() if source in funnel}
    plots = [
        describe_plot(f"Outcomes of {level}", "by the first reason", _plot_funnel(rows))
        for level in ("rows", "samples", "nodes", "images")
        if (rows := _count_outcomes(funnel, level))
    ]
    if languages:
        plots.append(describe_plot("Languages", "of a sample that came in", _plot_languages(languages, by_source)))
    if overlap.get("dropped"):
        plots.append(
            describe_plot(
                "Dropped copies",
                "from the left source; the top one keeps it",
                _plot_matrix(overlap["dropped"], "keeper", "copies", by_source),
            )
        )
    for kind in ("texts", "images"):
        if overlap.get(kind):
            chart = _plot_matrix(overlap[kind], "other", "number", by_source)
            plots.append(
                describe_plot(f"{kind.capitalize()} in common", "of the left source, alike in the top one", chart)
            )
    if overlap.get("stayed"):
        plots.append(
            describe_plot(
                "Alike, and kept",
                "pairs of samples with texts half alike",
                _plot_matrix(overlap["stayed"], "other", "pairs", by_source),
            )
        )
    return plots


def describe_plot(title: str, note: str, chart: Any) -> Plot:
    """A chart as the page draws it."""
    return {"title": title, "note": note, "spec": chart.configure_view(stroke=None).to_dict()}


def make_chart(rows: Rows) -> alt.Chart:
    """A chart over rows, which are part of the page."""
    return alt.Chart(alt.Data(values=rows))  # type: ignore[no-untyped-call]


def colour_by_source(by_source: Mapping[str, str]) -> alt.Color:
    """Colours that a source has in every plot."""
    scale = alt.Scale(domain=list(by_source), range=list(by_source.values()))
    return alt.Color("source:N", scale=scale, title=None, legend=alt.Legend(orient="bottom", columns=4, symbolLimit=0))


def _plot_shares(stats: Mapping[str, Any]) -> Any:
    rows = [
        {"source": source["name"], "which": which, "share": share}
        for source in stats["sources"]
        for which, share in (("declared", source["declared"]), ("realised", source["realised"][stats["unit"]]))
    ]
    names = [source["name"] for source in stats["sources"]]
    return (
        make_chart(rows)
        .mark_bar()
        .encode(
            alt.Y("source:N", sort=names, title=None),
            alt.X("share:Q", axis=alt.Axis(format="%"), title=None),
            alt.YOffset("which:N"),
            alt.Color("which:N", title=None, scale=alt.Scale(range=[GREY, INK]), legend=alt.Legend(orient="bottom")),
            tooltip=["source:N", "which:N", alt.Tooltip("share:Q", format=".2%")],
        )
        .properties(width=WIDTH, height=max(HEIGHT, 26 * len(names)))
    )


def _plot_schedule(stats: Mapping[str, Any], labels: Mapping[str, str]) -> Any:
    schedule = stats["schedule"]
    begins = [0.0, *schedule["ends"][:-1]]
    rows = [
        {"source": source["name"], "at": (begin + end) / 2, "declared": due, "planned": has}
        for source, dues, found in zip(stats["sources"], schedule["due"], schedule["has"], strict=True)
        for begin, end, due, has in zip(begins, schedule["ends"], dues, found, strict=True)
    ]
    percent = alt.Axis(format="%")
    base = make_chart(rows).encode(
        alt.X("at:Q", title="of the budget", axis=percent, scale=alt.Scale(domain=[0, 1])),
        colour_by_source(labels),
        tooltip=["source:N", *(alt.Tooltip(f"{name}:Q", format=".2%") for name in ("at", "declared", "planned"))],
    )
    lines = base.mark_line().encode(alt.Y("declared:Q", title=None, axis=percent))
    return (lines + base.mark_point(filled=True).encode(alt.Y("planned:Q"))).properties(width=WIDTH, height=HEIGHT)


def _plot_units(stats: Mapping[str, Any], labels: Mapping[str, str]) -> Any:
    rows = [
        {"source": source["name"], "unit": unit, "share": source["realised"][unit]}
        for source in stats["sources"]
        for unit in UNITS
    ]
    return (
        make_chart(rows)
        .mark_bar()
        .encode(
            alt.Y("unit:N", sort=list(UNITS), title=None),
            alt.X("share:Q", axis=alt.Axis(format="%"), title=None, scale=alt.Scale(domain=[0, 1])),
            colour_by_source(labels),
            tooltip=["source:N", "unit:N", alt.Tooltip("share:Q", format=".2%")],
        )
        .properties(width=WIDTH, height=HEIGHT)
    )


def _make_log_scale(title: str) -> dict[str, Any]:
    return {
        "scale": alt.Scale(type="log", base=2, nice=False),
        "title": title,
        "axis": alt.Axis(format=",d", tickCount=6),
    }


def _plot_lengths(rows: Rows, by_source: Mapping[str, str]) -> Any:
    return (
        make_chart(rows)
        .mark_bar(orient="vertical", binSpacing=0)
        .encode(
            alt.X("from:Q", **_make_log_scale("tokens")),
            alt.X2("to:Q"),
            alt.Y("samples:Q", title="samples", stack=True),
            colour_by_source(by_source),
            tooltip=["source:N", "from:Q", "to:Q", "samples:Q"],
        )
        .properties(width=WIDTH, height=HEIGHT)
    )


def _plot_sizes(rows: Rows) -> Any:
    return (
        make_chart(rows)
        .mark_rect()
        .encode(
            alt.X("width:Q", **_make_log_scale("width")),
            alt.X2("width_to:Q"),
            alt.Y("height:Q", **_make_log_scale("height")),
            alt.Y2("height_to:Q"),
            alt.Color("images:Q", scale=alt.Scale(scheme="blues", type="sqrt"), title="images"),
            tooltip=["width:Q", "width_to:Q", "height:Q", "height_to:Q", "images:Q"],
        )
        .properties(width=WIDTH - 40, height=HEIGHT + 30)
    )


def _plot_ratios(rows: Rows, by_source: Mapping[str, str]) -> Any:
    scale = alt.Scale(type="log", base=2, nice=False)
    return (
        make_chart(rows)
        .mark_bar(orient="vertical", binSpacing=0)
        .encode(
            alt.X("from:Q", scale=scale, title="width / height", axis=alt.Axis(tickCount=6, format="~g")),
            alt.X2("to:Q"),
            alt.Y("images:Q", title="images", stack=True),
            colour_by_source(by_source),
            tooltip=["source:N", "from:Q", "to:Q", "images:Q"],
        )
        .properties(width=WIDTH, height=HEIGHT)
    )


def _plot_tiles(rows: Rows, by_source: Mapping[str, str]) -> Any:
    return (
        make_chart(rows)
        .mark_bar()
        .encode(
            alt.X("tiles:O", title="tiles", axis=alt.Axis(labelAngle=0)),
            alt.Y("images:Q", title="images"),
            colour_by_source(by_source),
            tooltip=["source:N", "tiles:O", "images:Q"],
        )
        .properties(width=WIDTH, height=HEIGHT)
    )


def _plot_fill(rows: Rows) -> Any:
    return (
        make_chart(rows)
        .mark_bar(binSpacing=1)
        .encode(
            alt.X("from:Q", bin="binned", axis=alt.Axis(format="%"), title=None),
            alt.X2("to:Q"),
            alt.Y("sequences:Q", title="sequences"),
            alt.Row("of:N", title=None, header=alt.Header(labelAngle=0, labelAlign="left")),
            tooltip=["of:N", alt.Tooltip("from:Q", format="%"), alt.Tooltip("to:Q", format="%"), "sequences:Q"],
        )
        .properties(width=WIDTH - 40, height=HEIGHT // 2 - 10)
    )


def _count_outcomes(funnel: Mapping[str, Any], level: str) -> Rows:
    """Outcomes of a level's things, by source; of reasons the most frequent, and the others in one."""
    counted = {source: lines[level] for source, lines in funnel.items() if level in lines}
    whole: Counter[str] = Counter()
    for line in counted.values():
        whole.update(line["dropped"])
        whole.update(line["failed"])
    named = [reason for reason, _ in sorted(whole.items(), key=lambda item: (-item[1], item[0]))[:MOST_REASONS]]
    rows = []
    for source, line in counted.items():
        lost = {**line["dropped"], **line["failed"]}
        outcomes = {KEPT: line["kept"], **{reason: lost.get(reason, 0) for reason in named}}
        outcomes[OTHERS] = sum(lost.values()) + line["kept"] - sum(outcomes.values())
        rows += [
            {"source": source, "outcome": outcome, "number": number, "place": place}
            for place, (outcome, number) in enumerate(outcomes.items())
            if number
        ]
    return rows


def _plot_funnel(rows: Rows) -> Any:
    outcomes = [outcome for _, outcome in sorted({(row["place"], row["outcome"]) for row in rows})]
    named = {KEPT: GREY, OTHERS: INK}
    shades = [named.get(outcome) or choose_reason_colours([outcome])[outcome] for outcome in outcomes]
    return (
        make_chart(rows)
        .mark_bar()
        .encode(
            alt.Y("source:N", title=None),
            alt.X("number:Q", title=None, axis=_make_count_axis(row["number"] for row in rows)),
            alt.Color(
                "outcome:N",
                sort=outcomes,
                title=None,
                scale=alt.Scale(domain=outcomes, range=shades),
                legend=alt.Legend(orient="bottom", columns=3, symbolLimit=0),
            ),
            alt.Order("place:Q"),
            tooltip=["source:N", "outcome:N", "number:Q"],
        )
        .properties(width=WIDTH, height=max(100, 26 * len({row["source"] for row in rows})))
    )


def _make_count_axis(numbers: Iterable[int]) -> alt.Axis:
    """An axis of whole numbers, few enough not to run into each other."""
    return alt.Axis(format=",d" if max(numbers, default=0) < 10_000 else "~s", tickCount=5)


def _plot_languages(rows: Rows, by_source: Mapping[str, str]) -> Any:
    whole: Counter[str] = Counter()
    for row in rows:
        whole[row["language"]] += row["samples"]
    order = [language for language, _ in sorted(whole.items(), key=lambda item: (-item[1], item[0]))[:LANGUAGES]]
    shown = [row for row in rows if row["language"] in order]
    place = alt.Y("language:N", sort=order, title=None)
    bars = (
        make_chart(shown)
        .mark_bar()
        .encode(
            place,
            alt.X("samples:Q", title=None, axis=_make_count_axis(whole.values())),
            colour_by_source(by_source),
            tooltip=["source:N", "language:N", "samples:Q"],
        )
    )
    sums = [{"language": language, "samples": whole[language]} for language in order]
    numbers = (
        make_chart(sums)
        .mark_text(align="left", dx=4)
        .encode(place, alt.X("samples:Q"), alt.Text("samples:Q", format=","))
    )
    return (bars + numbers).properties(width=WIDTH)


def _plot_matrix(rows: Rows, other: str, number: str, sources: Mapping[str, str]) -> Any:
    most = max(row[number] for row in rows)
    found = {row[name] for row in rows for name in ("source", other)}
    scale = alt.Scale(domain=[source for source in sources if source in found or len(sources) <= WHOLE])
    angle = -35 if max(map(len, scale.domain)) > LETTERS else 0
    top = alt.Axis(orient="top", labelAngle=angle, labelAlign="left" if angle else "center")
    base = make_chart(rows).encode(
        alt.Y("source:N", title=None, scale=scale),
        alt.X(f"{other}:N", title=None, scale=scale, axis=top),
    )
    cells = base.mark_rect().encode(
        alt.Color(f"{number}:Q", scale=alt.Scale(scheme="oranges", type="sqrt", domain=[0, most]), legend=None),
        tooltip=["source:N", f"{other}:N", f"{number}:Q"],
    )
    legible = alt.condition(alt.datum[number] > DARK * most, alt.value("white"), alt.value(INK))
    return (cells + base.mark_text().encode(alt.Text(f"{number}:Q", format=","), color=legible)).properties(
        width=alt.Step(CELL), height=alt.Step(34)
    )
