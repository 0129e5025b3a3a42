"""Images are fetched after filters of texts: nothing is asked for what these drop, and nothing else changes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.servers import Web, whole
from tests.helpers.small import RECIPE, prose, vlmill, write_recipe
from tests.helpers.upstream import obelics, picture
from vlmill.pipeline.checks.extrapolate import extrapolate_run
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    IMAGES,
    LEAST_IMAGES,
    WHOLE_SAMPLE,
    ImageStats,
    Node,
    Sample,
    SampleId,
    Verdict,
    read_rows,
    write_rows,
    write_samples,
    write_verdicts,
)
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.reports.what_if import answer_what_if
from vlmill.pipeline.steps.skip_images import SkipImages
from vlmill.pipeline.verdicts.apply import apply_verdicts

CHINESE = "这个句子是中文写的，网页上有很多这样的句子，英文模型不应该学习它们。" * 3


# -- verdicts ----------------------------------------------------------------------------------------------------------


@st.composite
def samples(draw):
    """A document or a conversation with images, some required."""
    nodes = []
    for _ in range(draw(st.integers(1, 6))):
        role, turn = draw(st.sampled_from([("none", 0), ("user", 0), ("assistant", 0), ("user", 1), ("assistant", 1)]))
        if draw(st.booleans()):
            nodes.append(Node("image", role, turn, image=draw(st.integers(0, 3)), required=draw(st.booleans())))
        else:
            nodes.append(Node("text", role, turn, text="words"))
    return Sample(SampleId("quiz", "a.parquet", 0), tuple(nodes))


def verdicts_on(sample, filter_, reason):
    """Any verdicts of one filter."""
    places = st.sets(st.sampled_from([WHOLE_SAMPLE, LEAST_IMAGES, *range(len(sample.nodes))]), max_size=3)
    return places.map(lambda found: [Verdict(0, place, filter_, reason, 1) for place in sorted(found)])


@given(st.data())
def test_what_is_not_fetched_is_lost_anyway_and_everything_else_has_the_same_outcome(data):
    sample = data.draw(samples())
    texts = data.draw(verdicts_on(sample, "language", Reason.LANGUAGE))
    later = data.draw(verdicts_on(sample, "shape", Reason.IMAGE_RATIO))
    failing = data.draw(st.lists(st.sampled_from([None, Reason.TIMED_OUT]), min_size=4, max_size=4))
    whole = [ImageStats(image, None) for image in range(4)]
    early = apply_verdicts(sample, texts, whole)
    shown = [(node.image, lost) for node, lost in zip(sample.nodes, early.nodes, strict=True) if node.image is not None]
    kept = {image for image, lost in shown if lost is None}
    skipped = {image for image, _ in shown} - kept
    fetched = [ImageStats(image, failing[image]) for image in range(4)]
    after = [ImageStats(image, Reason.NOT_FETCHED if image in skipped else failing[image]) for image in range(4)]
    now, before = (apply_verdicts(sample, [*texts, *later], stats) for stats in (after, fetched))
    assert {*now.kept} >= {*before.kept}  # a required image of a dropped turn takes no sample along where it would fail
    if not any(failing[image] for image in skipped):
        assert now == before


def test_an_image_that_was_not_fetched_falls_last_and_names_itself():
    page = Sample(SampleId("web", "a", 0), (Node("text", text="words"), Node("image", image=0, required=True)))
    assert apply_verdicts(page, [], [ImageStats(0, Reason.NOT_FETCHED)]).sample is Reason.NOT_FETCHED
    dropped = Verdict(0, WHOLE_SAMPLE, "language", Reason.LANGUAGE)
    outcome = apply_verdicts(page, [dropped], [ImageStats(0, Reason.NOT_FETCHED)])
    assert outcome.nodes == (Reason.LANGUAGE, Reason.LANGUAGE)


def test_an_image_is_skipped_where_no_node_that_is_kept_shows_it(tmp_path):
    shows = [(0, 1), (1, 2), (3,)]
    write_samples(
        tmp_path / "samples.parquet",
        [
            Sample(SampleId("web", "a", row), tuple(Node("image", image=image) for image in images))
            for row, images in enumerate(shows)
        ],
    )
    empty = dict.fromkeys(IMAGES.names)
    urls = ["http://a.test/0", "http://a.test/1", "http://a.test/2", None]
    rows = ({**empty, "image": n, "url": url, "bytes": None if url else b"there"} for n, url in enumerate(urls))
    write_rows(tmp_path / "images.parquet", IMAGES, rows)
    said = [Verdict(0, WHOLE_SAMPLE, "language", Reason.LANGUAGE), Verdict(2, 0, "language", Reason.LANGUAGE)]
    write_verdicts(tmp_path / "language.verdicts.parquet", said)
    names = ("samples.parquet", "images.parquet", "language.verdicts.parquet")
    (out := tmp_path / "out").mkdir()
    counts = SkipImages(("language",)).run({name: tmp_path / name for name in names}, out)
    assert list(read_rows(out / "skipped_images.parquet")) == [{"image": 0, "reason": "language"}]
    assert counts["to_fetch"].to_json() == {"in": 3, "kept": 2, "dropped": {"not_fetched": 1}, "failed": {}}


# -- a run -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def web():
    with Web() as server:
        yield server


@pytest.fixture
def recipe(web, tmp_path):
    """Documents of which every second is Chinese; picture 0 stands in all of them."""
    web.answers.update({f"/{n}.png": whole(picture(n, (160, 120))) for n in range(7)})
    documents = [
        [CHINESE if n % 2 else prose(n), f"http://in.test/{n}.png", CHINESE if n % 2 else prose(50 + n), LOGO]
        for n in range(1, 7)
    ]
    recipe = _write_recipe(web, tmp_path, filters=[{"language": {"keep": ["en"]}}, {"shape": {"max_ratio": 10}}])
    obelics(tmp_path / "web.parquet", documents)
    return recipe


LOGO = "http://in.test/0.png"


def _write_recipe(web, folder, after="language", **blocks):
    fetch = {"mirrors": {"http://in.test/": web.url("/")}} | ({"after": after} if after else {})
    source = {**RECIPE["sources"]["web"], "serve": {}, "fetch": fetch}
    return write_recipe(folder, sources={"web": source}, dedupe=None, partition={"rows": 100}, stages=[], **blocks)


def list_shards(root):
    return [path.read_bytes() for path in sorted((root / "shards").rglob("*.tar"))]


def test_nothing_is_asked_for_what_filters_of_texts_drop_and_the_shards_are_the_same(web, recipe, tmp_path, capsys):
    assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0) == 0
    assert sorted(visit.path for visit in web.asked()) == ["/0.png", "/2.png", "/4.png", "/6.png"]
    images = read_funnel(tmp_path / "run")["web"]
    assert vlmill("verify", tmp_path / "run") == 0
    assert "not fetched" not in "".join(capsys.readouterr())
    filters = [{"language": {"keep": ["en"]}}, {"shape": {"max_ratio": 10}}]
    everything = _write_recipe(web, tmp_path, after="", filters=filters)
    assert vlmill("build", everything, "--out", tmp_path / "all", "--workers", 0) == 0
    assert list_shards(tmp_path / "all") == list_shards(tmp_path / "run") != []
    assert read_funnel(tmp_path / "all")["web"]["samples"] == images["samples"]
    assert read_funnel(tmp_path / "all")["web"]["images"] == images["images"]


def test_check_counts_the_requests_that_are_left(recipe, tmp_path, capsys):
    assert vlmill("check", recipe, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["sources"]
    assert found["requests"] == 4
    assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0) == 0
    (forecast,) = extrapolate_run(tmp_path / "run").sources
    assert forecast.requests == 4


def test_what_a_filter_keeps_later_is_named_and_comes_with_a_retry(web, recipe, tmp_path, capsys):
    root = tmp_path / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    asked = len(web.asked())
    loose = _write_recipe(web, tmp_path, after="", filters=[{"shape": {"max_ratio": 10}}])
    _, answer = answer_what_if(str(loose), root, {}, [])
    assert answer.not_fetched == 3
    assert any("3 images of what would be kept were not fetched" in note for note in answer.notes)
    capsys.readouterr()
    assert vlmill("build", loose, "--out", root, "--workers", 0, "--accept-changes") == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "3 images of samples that are kept were not fetched" in said
    assert read_funnel(root)["web"]["images"]["dropped"] == {"not_fetched": 3}
    assert len(web.asked()) == asked
    assert vlmill("build", loose, "--out", root, "--workers", 0, "--retry-failed") == 0
    assert sorted(visit.path for visit in web.asked()[asked:]) == ["/1.png", "/3.png", "/5.png"]
    assert read_funnel(root)["web"]["images"] == {"in": 12, "kept": 12, "dropped": {}, "failed": {}}
    assert vlmill("verify", root) == 0


def test_a_takedown_holds_and_nothing_is_asked_again(web, recipe, tmp_path):
    root = tmp_path / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    asked = len(web.asked())
    assert vlmill("takedown", root, "--id", "web/web.parquet#1", "--workers", 0) == 0
    assert vlmill("verify", root) == 0
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    assert vlmill("verify", root) == 0
    assert len(web.asked()) == asked
    assert read_funnel(root)["web"]["samples"]["kept"] == 2


@pytest.mark.parametrize(
    ("after", "filters", "said"),
    [
        ("langage", [{"language": {"keep": ["en"]}}], "the recipe has no filter 'langage'; did you mean 'language'?"),
        ("language", [{"shape": {"max_ratio": 9}}, {"language": {"keep": ["en"]}}], "'shape' looks at them (width, he"),
        ("threshold", [{"threshold": {"any": {"match": {"min": 0.2}}}}], "'threshold' looks at what models say"),
    ],
)
def test_only_filters_of_texts_can_be_asked_before_images_are_there(web, tmp_path, capsys, after, filters, said):
    signals = {"match": {"kind": "image_text_similarity", "model": {"path": "m"}}} if "threshold" in after else {}
    recipe = _write_recipe(web, tmp_path, after=after, filters=filters, signals=signals)
    assert vlmill("check", recipe) == 1
    assert said in " ".join(capsys.readouterr().err.split())
    assert web.asked() == []
