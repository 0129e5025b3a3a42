"""What sources are said to have in common, against counting one by one."""

from __future__ import annotations

import io
import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.pipeline.test_dedupe import (
    STORY,
    document,
    edited,
    prose,
    quiz,
    run,
    web,
)
from vlmill.pipeline.dedupe.overlap import compute_overlap
from vlmill.pipeline.dedupe.text import make_text_key
from vlmill.pipeline.engine.chain import write_manifest
from vlmill.pipeline.engine.store import File, Receipt
from vlmill.pipeline.reports.overlap import make_overlap_table, read_overlap

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
        document(0, edited(STORY, 40), "@bright1", "@p1", source="blog"),
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
    found = {
        (pair.content, pair.source, pair.other): (pair.size, pair.exact, pair.near) for pair in read_overlap(folder)
    }
    assert {key[1]: sizes[0] for key, sizes in found.items() if key[0] == "images"} == {"blog": 3, "quiz": 1, "web": 3}
    assert found["images", "web", "blog"] == (3, 2, 2)
    assert found["images", "blog", "web"] == (3, 2, 3)
    assert found["images", "blog", "quiz"] == (3, 1, 2)
    assert found["images", "web", "quiz"] == (3, 1, 1)
    assert found["images", "web", "web"] == (3, 0, 0)
    assert found["images", "quiz", "blog"] == (1, 1, 1)
    assert found["images", "quiz", "web"] == (1, 1, 1)
    assert found["texts", "blog", "web"] == (2, 1, 2)


def test_the_table_shows_what_sources_share_and_leaves_out_what_they_do_not(folder):
    console = Console(width=80, file=io.StringIO())
    console.print(make_overlap_table(read_overlap(folder)))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert "images web blog 3 2 66.7% 2 66.7%" in lines
    assert "texts blog web 2 1 50.0% 2 100.0%" in lines
    assert not [line for line in lines if line.startswith("images web itself")], "nothing repeats there"
