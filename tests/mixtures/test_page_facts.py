"""Turns, licences, hosts, ratings and ratios of the page: counted as they are, and shown where they say something."""

from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmill.mixtures.page.counts import _bin_ratio
from vlmill.mixtures.page.sample_facts import SampleFacts, bin_ratings, plot_facts
from vlmill.pipeline.core.sample import Node, Sample, SampleId

COLOURS = {"web": "#111111", "quiz": "#222222"}


def make_sample(row, source="quiz", turns=1, urls=(), **given):
    nodes = [Node("text", "user", turn, text="a") for turn in range(turns)]
    nodes += [Node("image", "user", 0, image=number, url=url) for number, url in enumerate(urls)]
    return Sample(SampleId(source, "a.parquet", row), tuple(nodes), **given)


def test_samples_are_counted_by_turns_licence_host_and_rating():
    facts = SampleFacts()
    facts.add_sample(make_sample(0, turns=3, licence="CC0-1.0", signals={"relevance": 4}))
    facts.add_sample(make_sample(1, turns=40, signals={"relevance": 5}))
    facts.add_sample(make_sample(2, "web", urls=("http://A.org/1.png", "https://a.org/2.png"), url="http://b.org"))
    facts.add_sample(make_sample(3, "web", url="https://b.org/page"))
    facts.add_sample(make_sample(4, "web", urls=("pictures/1.png",)))
    assert facts.turns == {("quiz", 3): 1, ("quiz", 20): 1, ("web", 1): 3}
    assert facts.licences == {("quiz", "CC0-1.0"): 1, ("quiz", "none named"): 1, ("web", "none named"): 3}
    assert facts.hosts == {("web", "a.org"): 2, ("web", "b.org"): 1}
    assert facts.ratings == {"relevance": {("quiz", 4): 1, ("quiz", 5): 1}}
    assert [plot["title"] for plot in plot_facts(facts, COLOURS)] == ["Turns", "Licences", "Hosts", "Rating relevance"]


def test_what_says_nothing_is_not_plotted():
    facts = SampleFacts()
    facts.add_sample(make_sample(0, licence="CC0-1.0"))
    assert [plot["title"] for plot in plot_facts(facts, COLOURS)] == ["Licences"]
    assert plot_facts(SampleFacts(), COLOURS) == []


@given(st.lists(st.one_of(st.integers(-5, 5), st.floats(-1e3, 1e3)), min_size=1, max_size=60))
def test_every_rating_is_in_one_bin_that_holds_it(values):
    counted = Counter(("quiz", value) for value in values)
    bins = bin_ratings(counted)
    assert sum(one["samples"] for one in bins) == len(values)
    for one in bins:
        slack = 1e-6 * (1 + abs(one["from"]))
        assert any(one["from"] - slack <= value <= one["to"] + slack for value in values)


@pytest.mark.parametrize(("width", "height"), [(100, 100), (640, 480), (3, 1000), (1000, 3), (333, 331)])
def test_a_ratio_lies_in_its_bin_and_squares_in_the_middle_of_one(width, height):
    low, high = pl.DataFrame({"ratio": [width / height]}).select(*_bin_ratio()).row(0)
    assert low - 1e-3 <= width / height <= high + 1e-3
    assert high / low == pytest.approx(2**0.25, rel=0.02) or low < 0.01
    if width == height:
        assert low * high == pytest.approx(1, rel=1e-2)
