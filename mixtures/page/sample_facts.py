"""What samples are like as they came in: turns, licences, hosts of their images, and ratings of upstream; with plots.

They are counted over the samples that the page's index holds (`search.py`), which were chosen by hash.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from vlmill.mixtures.page.counts import Rows
from vlmill.mixtures.page.plots import HEIGHT, WIDTH, Plot, colour_by_source, describe_plot, make_chart
from vlmill.pipeline.core.sample import Sample
from vlmill.pipeline.takedown.rules import get_host

MOST_TURNS = 20
"""Turns of a sample from which the last bar counts."""
MOST_NAMES = 15
"""Hosts and licences that are shown, the most frequent ones."""
BINS = 20
"""Of ratings with many values."""
NO_LICENCE = "none named"

Counted = Counter[tuple[str, Any]]
"""(source, value) -> how many."""


@dataclass
class SampleFacts:
    """Counts over samples, by source."""

    turns: Counted = field(default_factory=Counter)
    licences: Counted = field(default_factory=Counter)
    hosts: Counted = field(default_factory=Counter)  # of the images of a sample, or of its document
    ratings: dict[str, Counted] = field(default_factory=lambda: defaultdict(Counter))

    def add_sample(self, sample: Sample) -> None:
        """Count a sample."""
        source = sample.id.source
        self.turns[source, min(MOST_TURNS, 1 + max((node.turn for node in sample.nodes), default=0))] += 1
        self.licences[source, sample.licence or NO_LICENCE] += 1
        urls = [node.url for node in sample.nodes if node.kind == "image" and node.url] or [sample.url or ""]
        for url in urls:
            if host := get_host(url):
                self.hosts[source, host] += 1
        for name, value in sample.signals.items():
            self.ratings[name][source, value] += 1


def plot_facts(found: SampleFacts, by_source: Mapping[str, str]) -> list[Plot]:
    """The plots that say something: no turns where every sample has one, no hosts where there are no addresses."""
    plots = []
    if {turns for _, turns in found.turns} - {1}:
        note = f"of a sample that came in; the last bar is {MOST_TURNS} and more"
        plots.append(describe_plot("Turns", note, _plot_turns(found.turns, by_source)))
    for title, note, counted in (
        ("Licences", "of samples that came in", found.licences),
        ("Hosts", "of images, or of documents without any", found.hosts),
    ):
        if counted:
            plots.append(describe_plot(title, note, _plot_names(counted, by_source)))
    plots += [
        describe_plot(f"Rating {name}", "as upstream gives it", _plot_rating(counted, by_source))
        for name, counted in sorted(found.ratings.items())
    ]
    return plots


def _plot_turns(counted: Counted, by_source: Mapping[str, str]) -> Any:
    rows = [
        {"source": source, "turns": turns, "samples": number} for (source, turns), number in sorted(counted.items())
    ]
    bars = make_chart(rows).mark_bar()
    return bars.encode(
        alt.X("turns:O", title="turns", axis=alt.Axis(labelAngle=0)),
        alt.Y("samples:Q", title="samples"),
        colour_by_source(by_source),
        tooltip=["source:N", "turns:O", "samples:Q"],
    ).properties(width=WIDTH, height=HEIGHT)


def _plot_names(counted: Counted, by_source: Mapping[str, str]) -> Any:
    whole = Counter[str]()
    for (_, name), number in counted.items():
        whole[name] += number
    order = [name for name, _ in sorted(whole.items(), key=lambda item: (-item[1], item[0]))[:MOST_NAMES]]
    rows = [
        {"source": source, "name": name, "number": number}
        for (source, name), number in sorted(counted.items())
        if name in order
    ]
    bars = make_chart(rows).mark_bar()
    return bars.encode(
        alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=180)),
        alt.X("number:Q", title=None, axis=alt.Axis(tickCount=5)),
        colour_by_source(by_source),
        tooltip=["source:N", "name:N", "number:Q"],
    ).properties(width=WIDTH)


def _plot_rating(counted: Counted, by_source: Mapping[str, str]) -> Any:
    bars = make_chart(bin_ratings(counted)).mark_bar(binSpacing=1)
    return bars.encode(
        alt.X("from:Q", bin="binned", title=None),
        alt.X2("to:Q"),
        alt.Y("samples:Q", title="samples", stack=True),
        colour_by_source(by_source),
        tooltip=["source:N", "from:Q", "to:Q", "samples:Q"],
    ).properties(width=WIDTH, height=HEIGHT)


def bin_ratings(counted: Counted) -> Rows:
    """Values of a rating in bins: of one unit where all are whole and few, else in equal ones; pure."""
    values = sorted({value for _, value in counted})
    low, high = values[0], values[-1]
    whole = all(float(value).is_integer() for value in values) and high - low < BINS
    width = 1.0 if whole else (high - low) / BINS or 1.0
    binned = Counter[tuple[str, int]]()
    for (source, value), number in counted.items():
        place = int((value - low) / width)
        binned[source, place if whole else min(place, BINS - 1)] += number
    first = low - 0.5 if whole else low
    return [
        {"source": source, "from": first + place * width, "to": first + (place + 1) * width, "samples": number}
        for (source, place), number in sorted(binned.items())
    ]
