"""Columns, bins and ratings of the viewer's index, without a run."""

from __future__ import annotations

import numpy as np
import pytest

from vlmill.explore.bounds import diff_recipes
from vlmill.explore.columns import ColumnWriter, has_column, open_column
from vlmill.explore.facts import Reasons, read_partition_facts
from vlmill.explore.find import split_query
from vlmill.explore.index import BINS, Index, choose_edges, make_index
from vlmill.pipeline.core.names import SAMPLES_FILE
from vlmill.pipeline.core.sample import Node, Sample, SampleId, write_samples


def test_a_column_that_was_written_in_pieces_is_mapped_as_one(tmp_path):
    writer = ColumnWriter(tmp_path)
    for piece in ([1.5, 2.5], [], [3.5]):
        writer.append("a.b", np.array(piece))
    writer.append("empty", np.empty(0, np.uint16))
    writer.close()
    column = open_column(tmp_path, "a.b")
    assert column.tolist() == [1.5, 2.5, 3.5]
    assert not column.flags.owndata  # mapped, not copied
    assert not column.flags.writeable
    assert open_column(tmp_path, "empty").dtype == np.uint16
    assert has_column(tmp_path, "a.b")
    assert not has_column(tmp_path, "b")
    assert [path.suffix for path in tmp_path.iterdir()] == [".arrow", ".arrow"]


@pytest.mark.parametrize(
    ("values", "bins", "log"),
    [
        (np.arange(1000) / 10, BINS, False),
        (np.array([0.0, 1, 2, 2, 7]), 8, False),  # whole numbers in a narrow range: one each
        (np.geomspace(1, 1e6, 1000), BINS, True),
        (np.array([3.25]), BINS, False),
        (np.append(np.linspace(0, 1, 1000), [1e9]), BINS, False),
    ],
)
def test_edges_rise_and_hold_most_values(values, bins, log):
    edges, grows = choose_edges(values)
    assert (len(edges) - 1, grows) == (bins, log)
    assert edges == sorted(set(edges))
    inside = (values >= edges[0]) & (values <= edges[-1])
    assert inside.mean() > 0.97


def test_ratings_of_rows_are_values_of_their_samples(tmp_path):
    signals = [{}, {"clip": 0.25}, {"clip": 0.5, "safe": 1.0}]
    nodes = (Node("text", text="x"),)
    samples = (Sample(SampleId("a", "f", row), nodes, signals=one) for row, one in enumerate(signals))
    write_samples(tmp_path / SAMPLES_FILE, samples)
    facts = read_partition_facts({SAMPLES_FILE: tmp_path / SAMPLES_FILE}, None, Reasons())
    assert {name: (one.rows.tolist(), one.values.tolist()) for name, one in facts.ratings.items()} == {
        "clip": ([1, 2], [0.25, 0.5]),
        "safe": ([2], [1.0]),
    }
    assert facts.columns["characters"].tolist() == [1, 1, 1]


def test_a_run_that_has_read_nothing_has_an_empty_index(tmp_path):
    make_index([], tmp_path / "index", lambda *_: None)
    index = Index(tmp_path / "index")
    assert (index.size, index.sources, index.dimensions) == (0, [], {})
    assert index.column("outcome").size == 0


@pytest.mark.parametrize(
    ("query", "words"), [("a b", ["a", "b"]), ('x "one two" y', ["one two", "x", "y"]), ('"open', ["open"]), ("  ", [])]
)
def test_what_stands_in_quotes_is_one_word(query, words):
    assert split_query(query) == words


def test_a_change_is_told_as_a_diff_of_its_block_alone():
    before = {"name": "a", "filters": [{"shape": {"min_side": 32}}], "dedupe": None}
    after = {**before, "filters": [{"shape": {"min_side": 64}}]}
    diff = diff_recipes(before, after, "filters")
    assert [line for line in diff.splitlines() if line[0] in "+-" and line[:3] not in {"+++", "---"}] == [
        "-    min_side: 32",
        "+    min_side: 64",
    ]
    assert diff_recipes(before, before, "filters", "dedupe") == ""
