"""What sources are said to have in common, against counting one by one."""

from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.pipeline.test_dedupe import (
    STORY,
    document,
    edited,
    prose,
    quiz,
    run,
    web,
)
from vlmill.pipeline.cli import app
from vlmill.pipeline.dedupe.overlap import compute_overlap
from vlmill.pipeline.dedupe.text import make_text_key
from vlmill.pipeline.engine.chain import write_manifest
from vlmill.pipeline.engine.store import File, Receipt
from vlmill.pipeline.reports.overlap import read_overlap

things = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4), st.integers(0, 9)), max_size=30)


def counted(shown, same):
    """Row's contents that some other sample of the column has, by looking at all pairs of images."""
    sources = sorted({source for source, _, _ in shown})
    return {
        row: {
            column: len(
                {
                    key
                    for source, order, key in shown
                    if source == row
                    and any(
                        holder == column and (holder, other) != (source, order) and same(key, held)
                        for holder, other, held in shown
                    )
                }
            )
            for column in sources
        }
        for row in sources
    }


@settings(deadline=None)
@given(things)
def test_the_matrix_says_how_many_contents_stand_in_another_sample(shown):
    """Similar are here the contents with the same half."""
    names = sorted({(source, number) for source, number, _ in shown})
    orders = [names.index((source, number)) for source, number, _ in shown]
    keys = [key for _, _, key in shown]
    samples = {
        "order": range(len(names)),
        "source": [source for source, _ in names],
        "text": make_text_key(""),
        "label": None,
    }
    images = {"order": orders, "key": keys, "label": [key // 2 for key in keys]}
    schema = {"order": pl.UInt32, "source": pl.String, "text": pl.UInt64, "label": pl.UInt64}
    frame = pl.DataFrame({**images}, {"order": pl.UInt32, "key": pl.UInt64, "label": pl.UInt64})
    found = compute_overlap(pl.DataFrame(samples, schema), frame)
    assert found["images"]["exact"] == counted(shown, lambda one, other: one == other)
    assert found["images"]["near"] == counted(shown, lambda one, other: one // 2 == other // 2)
    assert found["images"]["sources"] == {
        name: len({key for source, _, key in shown if source == name})
        for name in sorted({source for source, _, _ in shown})
    }
    assert found["texts"] == {"sources": {}, "exact": {}, "near": {}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of a web and a quiz source with dedupe done."""
    root = tmp_path_factory.mktemp("overlap")
    items = [
        web(0, STORY, "@p1", "@p2"),
        web(1, prose(60, 1), "@p3"),
        document(0, edited(STORY, 40), "@bright1", source="blog"),
        document(1, prose(60, 1), "@p2", "@p2", source="blog"),
        quiz(0, "p1", ("What?", "This.")),
    ]
    run(items, folder=root / "work")
    sources = {name: {"kind": "obelics", "files": "*"} for name in ("web", "blog", "quiz")}
    (root / "recipe.lock.yaml").write_text(json.dumps({"name": "x", "sources": sources, "dedupe": {}}))
    path = root / "work/resolved/overlap.json"
    file = File("overlap.json", str(path.relative_to(root)), "0" * 64, path.stat().st_size)
    receipt = Receipt("0" * 64, "all", (file,), {}, {})
    (root / "steps/dedupe/resolve").mkdir(parents=True)
    write_manifest(root, "steps/dedupe/resolve", [receipt])
    return root


def test_overlap_counts_what_is_the_same_and_what_is_similar_before_anything_is_dropped(folder):
    found = read_overlap(folder)
    assert found["images"]["sources"] == {"blog": 2, "quiz": 1, "web": 3}
    assert found["images"]["exact"]["web"] == {
        "blog": {"count": 1, "share": 0.333333},
        "quiz": {"count": 1, "share": 0.333333},
        "web": {"count": 0, "share": 0.0},
    }
    assert found["images"]["near"]["web"]["blog"]["count"] == 2
    assert found["images"]["near"]["quiz"] == {
        "blog": {"count": 1, "share": 1.0}, "quiz": {"count": 0, "share": 0.0}, "web": {"count": 1, "share": 1.0},
    }  # fmt: skip
    assert found["texts"]["exact"]["blog"]["web"]["count"] == 1
    assert found["texts"]["near"]["blog"]["web"] == {"count": 2, "share": 1.0}


def test_the_command_prints_shares_counts_or_json(folder):
    def shown(*options):
        return CliRunner().invoke(app, ["overlap", str(folder), *options])

    assert json.loads(shown("--json").output) == read_overlap(folder)
    assert shown().exit_code == shown("--counts").exit_code == 0
