"""Pairs of an image and a caption: which of those with one picture is kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import vlmill as api
from tests.helpers.small import vlmill
from tests.helpers.upstream import encoded
from tests.pipeline.test_dedupe import document, page, pair, quiz, reasons, run
from tests.pipeline.test_dedupe_picture import drawing
from tests.pipeline.test_dedupe_text import prose
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE
from vlmill.pipeline.dedupe import Dedupe
from vlmill.pipeline.sources import SOURCES, show_captions
from vlmill.pipeline.sources.table import TableSource, WebTableSource

CAPTIONS = ["a dog", "a dog on a lawn", "dog dog dog dog dog dog", "A brown dog runs over the lawn of a park", "dog"]


def kept(items, **knobs):
    """The rows that are kept, by source."""
    gone = {name for name, node in run(items, **knobs) if node == WHOLE_SAMPLE}
    return sorted((item.source, item.row) for item in items if item.name not in gone)


def test_by_default_a_picture_may_have_many_captions():
    items = [pair(row, "p1", caption) for row, caption in enumerate([*CAPTIONS, CAPTIONS[0]])]
    assert kept(items) == [("captions", row) for row in range(5)]
    assert kept(items, pairs="image_and_text") == kept(items)


def test_one_pair_of_a_picture_is_kept_and_its_caption_says_the_most():
    items = [pair(row, "p1", caption) for row, caption in enumerate(CAPTIONS)] + [pair(9, "p2", "a boat")]
    found = run(items, pairs="image")
    assert {name for name, _ in found} == {items[row].name for row in (0, 1, 2, 4)}
    assert {verdict.other for verdict in found.values()} == {items[3].name}
    assert set(reasons(found).values()) == {Reason.EXACT_IMAGE}


def test_a_picture_like_it_is_the_same_picture():
    items = [pair(0, "p1", "a dog"), pair(1, "bright1", "a dog on a lawn"), pair(2, "half1", "dog"), pair(3, "p2", "x")]
    found = run(items, pairs="image")
    assert reasons(found) == {(items[row].name, WHOLE_SAMPLE): Reason.NEAR_IMAGE for row in (0, 2)}
    assert all(0.97 <= verdict.score < 1 or verdict.score == 1.0 for verdict in found.values())


def test_the_priority_of_a_source_comes_before_its_captions():
    items = [pair(0, "p1", CAPTIONS[3]), pair(0, "p1", "dog", source="more")]
    assert kept(items, pairs="image") == [("captions", 0)]
    assert kept(items, pairs="image", priority={"captions": 2, "more": 1}) == [("more", 0)]


def test_a_pair_that_lost_its_caption_or_fell_to_a_filter_is_not_kept_for_another():
    items = [pair(0, "p1", CAPTIONS[3], filtered=(1,)), pair(1, "p1", "dog")]
    assert kept(items, pairs="image") == [("captions", 1)]
    gone = [pair(0, "p1", CAPTIONS[3], filtered=(WHOLE_SAMPLE,)), pair(1, "p1", "dog")]
    assert run(gone, pairs="image") == {}
    assert run([pair(0, "dead", "a dog"), pair(1, "dead", "another")], pairs="image") == {}


def test_pages_questions_and_documents_are_not_pairs():
    items = [page(0, "p1", prose(60, 1)), page(1, "p1", prose(60, 2)), quiz(0, "p1", ("What?", "This."))]
    items += [document(row, prose(60, row + 5), "@p1") for row in range(2)]
    assert run(items, pairs="image") == {}
    assert run([pair(row, "p1", text) for row, text in enumerate(CAPTIONS)], pairs="image", captioned=()) == {}


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.sampled_from(["p1", "bright1", "p2"]), st.sampled_from(CAPTIONS)), min_size=2, max_size=9),
    st.randoms(use_true_random=False),
)
def test_which_caption_is_kept_does_not_depend_on_the_order_of_rows(drawn, draw):
    """Rows in another order have other ids; what is kept says the same."""
    shuffled = draw.sample(drawn, len(drawn))
    said = []
    for rows in (drawn, shuffled):
        items = [pair(row, name, caption) for row, (name, caption) in enumerate(rows)]
        said.append(sorted(rows[row][1] for _, row in kept(items, pairs="image", cuts=3)))
    assert said[0] == said[1]
    assert len(said[0]) == len({name.replace("bright", "p") for name, _ in drawn})


def test_a_mistake_in_the_option_names_what_is_allowed():
    with pytest.raises(ValidationError, match="'image' or 'image_and_text'"):
        Dedupe(pairs="picture")


def test_the_sources_of_pairs_are_those_that_say_so():
    assert {kind for kind, source in SOURCES.items() if source.captions} == {"pairs", "pairs_wds"}
    asked = {"question": "q", "answer": "a"}
    for kind in (TableSource, WebTableSource):
        assert show_captions(kind(image="image", caption="text"))
        assert not show_captions(kind(image="image", **asked))
    assert not show_captions(TableSource(**asked))


@pytest.mark.parametrize("captioned", [True, False])
def test_a_table_of_captions_keeps_one_of_each_picture_and_without_captions_it_is_said(captioned, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(encoded(drawing(1)))
    rows = [{"image": "a.png", "question": f"What is {row}?", "text": text} for row, text in enumerate(CAPTIONS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"caption": "text"} if captioned else {"question": "question", "answer": "text"}
    source = {"kind": "table", "files": "rows.jsonl", "options": {"image": "image", **options}}
    recipe = {"name": "shots", "sources": {"shots": source}, "dedupe": {"pairs": "image"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    said = "dedupe.pairs: image is about pairs of an image and a caption, and no source has any"
    assert vlmill("check", tmp_path / "recipe.yaml") == 0
    assert (said in " ".join(capsys.readouterr().out.split())) != captioned
    assert vlmill("build", tmp_path / "recipe.yaml", "--out", tmp_path / "run", "--workers", 0) == 0
    assert (said in " ".join(capsys.readouterr().out.split())) != captioned
    funnel = api.open_run(tmp_path / "run").status().funnel
    assert funnel["shots"]["samples"]["kept"] == (1 if captioned else len(CAPTIONS))


def test_a_build_keeps_one_pair_of_each_picture_of_its_pair_sources(tmp_path, capsys):
    import io
    import tarfile

    with tarfile.open(tmp_path / "pairs.tar", "w") as tar:
        for row, caption in enumerate(CAPTIONS):
            for suffix, data in (("png", encoded(drawing(1))), ("txt", caption.encode())):
                info = tarfile.TarInfo(f"{row:03d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    recipe = {"name": "pairs", "sources": {"some": {"kind": "pairs_wds", "files": "pairs.tar"}}, "filters": []}
    recipe |= {"policies": {"small": {"kind": "letterbox", "side": 28, "patch": 14}}, "dedupe": {"pairs": "image"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert vlmill("build", tmp_path / "recipe.yaml", "--out", tmp_path / "run", "--workers", 0) == 0
    capsys.readouterr()
    assert vlmill("what-if", tmp_path / "run", "--set", "dedupe.pairs=image_and_text") == 0
    assert "exact_image" in capsys.readouterr().out
    assert vlmill("trace", tmp_path / "run", "some/pairs.tar#0") == 0
    assert "some/pairs.tar#3" in capsys.readouterr().out


def test_the_kept_pair_is_no_other_if_a_copy_of_it_stands_beside():
    items = [pair(row, "p1", CAPTIONS[3]) for row in (4, 2)]
    assert kept(items, pairs="image") == [("captions", 2)]
    assert kept([replace(items[0], row=1), items[1]], pairs="image") == [("captions", 1)]
