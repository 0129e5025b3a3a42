"""Signal `brought`: numbers of rows have bounds in thresholds and conditions of mixtures, as values of models have."""

from __future__ import annotations

import json

import numpy as np
import pytest

import vlmill
from tests.helpers.small import RECIPE, write_recipe
from tests.helpers.small import vlmill as command
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.sample import Node, Sample, SampleId
from vlmill.pipeline.signals.brought import Brought
from vlmill.pipeline.signals.chunks import SamplePiece, SignalChunk, list_asked, make_batch

SCORES = [1, 2.5, 3, 4.25, None, "many"]


def test_a_value_is_the_number_of_its_row_and_rows_without_it_are_not_asked():
    given = [{"a": 2.0, "b": 7.5}, {"b": -1.0}, {}, {"b": 0.1}]
    nodes = (Node("text", text="x"),)
    samples = [Sample(SampleId("web", "a", row), nodes, signals=one) for row, one in enumerate(given)]
    chunk = SignalChunk(tuple(SamplePiece(row, sample, 0, 1) for row, sample in enumerate(samples)))
    signal = Brought("b")
    asked = list_asked(chunk, signal)
    assert [item.row for item in asked] == [0, 1, 3]
    values = signal.score(signal.load(), make_batch(chunk, [item.unit for item in asked], 4, signal.view()))
    assert values[:3, 0].tolist() == [7.5, -1.0, 0.1]
    assert values.shape == (4, 1)
    assert np.isnan(values[3, 0])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rated")
    rows = [{"q": f"What is {n}?", "a": f"It is number {n} of all.", "score": one} for n, one in enumerate(SCORES)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = {"question": "q", "answer": "a", "signals": ["score"]}
    mixture = {"entries": {"quiz": {"share": 1, "where": "rated_min > 3"}}, "epochs": 1, "sequence_length": 512}
    recipe = write_recipe(
        folder,
        sources={"quiz": {"kind": "table", "files": "rows.jsonl", "licence": "CC0-1.0", "options": options}},
        signals={"rated": {"kind": "brought", "number": "score"}},
        filters=[{"threshold": {"any": {"rated": {"min": 2}}, "drops": "samples"}}],
        dedupe=None,
        stages=[{**RECIPE["stages"][0], "mixture": mixture}],
    )
    return vlmill.build(recipe, folder / "run", workers=0)


def test_a_threshold_bounds_it_and_what_has_none_stays(run):
    whole = [loss for loss in run.losses() if loss.node in (None, -1)]
    assert [(str(loss.id), str(loss.reason)) for loss in whole] == [("quiz/rows.jsonl#0", "signal:rated")]


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        (["scores", "meta.score"], r"signals.rated: no source brings a number 'skore'; .*did you mean 'score'\?"),
        ([], r"no source brings a number 'skore'; .*: none of them names any"),
    ],
)
def test_a_number_that_no_source_brings_is_refused(signals, message, tmp_path):
    options = {"question": "q", "answer": "a", "signals": signals}
    given = {"signals": {"rated": {"kind": "brought", "number": "skore"}}, "stages": []}
    quiz = {"kind": "table", "files": "rows.jsonl", "options": options}
    with pytest.raises(RecipeError, match=message):
        vlmill.load_recipe(write_recipe(tmp_path, sources={"quiz": quiz}, **given))
    own = {"quiz": quiz, "web": {"kind": "mmc4", "files": "*.jsonl"}}
    assert vlmill.load_recipe(write_recipe(tmp_path, sources=own, **given))  # rows of mmc4 bring their own


def test_a_condition_of_a_mixture_sees_it(run):
    assert {str(sample.id) for sample in run.stage("align").samples()} == {"quiz/rows.jsonl#3"}


def test_what_if_moves_its_bound(run):
    newly = run.what_if({"threshold.any.rated.min": 4})
    assert "quiz/rows.jsonl#2" in str(newly)
    assert "quiz/rows.jsonl#3" not in str(newly)


def test_a_source_that_a_signal_is_not_asked_of_has_a_table_without_rows(tmp_path, capfd, monkeypatch):
    """Which has no statistics to count by: the build, and what shows it, end as they should."""
    rows = [{"q": f"What is {n}?", "a": f"It is number {n} of all.", "score": n} for n in range(6)]
    (tmp_path / "rated.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "plain.jsonl").write_text("\n".join(json.dumps({**row, "q": f"And {row['q']}"}) for row in rows))
    source = {"kind": "table", "licence": "CC0-1.0", "options": {"question": "q", "answer": "a"}}
    rated = {**source, "files": "rated.jsonl", "options": {**source["options"], "signals": ["score"]}}
    monkeypatch.delitem(RECIPE, "model")
    recipe = write_recipe(
        tmp_path,
        sources={"plain": {**source, "files": "plain.jsonl"}, "rated": rated},
        signals={"rating": {"kind": "brought", "number": "score"}},
        filters=[{"threshold": {"any": {"rating": {"min": 2}}}}],
        dedupe=None,
        policies={},
        stages=[],
    )
    run = tmp_path / "run"
    assert command("build", recipe, "--out", run, "--workers", 0) == 0
    assert command("report", run) == 0
    printed = capfd.readouterr().out
    assert "rating" in printed
    assert "has no value in source" not in printed
    assert command("verify", run) == 0
