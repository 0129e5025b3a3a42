"""The page of the report: twins beside each other, what is repeated once, nothing of the data obeyed."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from random import Random

import numpy as np
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers import upstream
from tests.helpers.small import picture, vlmill
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.page import render_page
from vlmill.pipeline.page import report as module
from vlmill.pipeline.page.histogram import draw_histogram, draw_scores
from vlmill.pipeline.page.report import SIDE, LossGroup, make_thumbnail
from vlmill.pipeline.reports.funnel import format_share
from vlmill.pipeline.reports.losses import Loss
from vlmill.pipeline.reports.overview import OddLine
from vlmill.pipeline.reports.sections import CurationReport


def shrink(data):
    """A picture again, a tenth smaller, as JPEG."""
    image, buffer = Image.open(io.BytesIO(data)), io.BytesIO()
    image.resize((image.width * 9 // 10, image.height * 9 // 10)).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def list_pictures(html):
    """The pictures of each card, as arrays of one size."""
    cards = re.findall("<article>(.*?)</article>", html, re.DOTALL)
    data = [re.findall("base64,([A-Za-z0-9+/=]+)", card) for card in cards]
    shown = [[Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB") for one in card] for card in data]
    return [[np.asarray(image.resize((32, 32)), np.float32) for image in card] for card in shown]


def test_a_duplicate_stands_beside_what_is_kept(tmp_path):
    pictures = [upstream.picture(seed, (200, 150)) for seed in range(5)]
    turns = [[(f"What is in picture {place}?", f"The answer {place} of five.")] for place in range(5)]
    rows = [([data], turn) for data, turn in zip(pictures, turns, strict=True)]
    rows += [([shrink(pictures[place])], turns[place]) for place in (1, 3)]
    upstream.cauldron(tmp_path / "quiz.parquet", rows)
    recipe = {
        "name": "twins",
        "sources": {"quiz": {"kind": "cauldron", "files": "quiz.parquet", "licence": "CC-BY-4.0"}},
        "dedupe": {"near_images": True},
        "policies": {"small": {"kind": "letterbox", "side": 56, "patch": 14}},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert vlmill("build", tmp_path / "recipe.yaml", "--out", tmp_path / "run", "--workers", 0) == 0
    html = module.render_report_page(tmp_path / "run")
    assert "<b>71.4%</b> of 7 samples kept" in html
    assert "Licences: quiz CC-BY-4.0" in html
    pairs = [card for card in list_pictures(html) if card]
    assert [len(pair) for pair in pairs] == [2, 2]
    for lost, kept in pairs:
        assert np.abs(lost - kept).mean() < 8
    assert np.abs(pairs[0][0] - pairs[1][0]).mean() > 8, "the pictures differ, so a wrong twin would be seen"
    for place in (1, 3):
        assert len(re.findall(f"What is in picture {place}[?]", html)) == 2


def lost(number, reason, sha256="", score=None):
    return Loss("web", "p", f"web/a#{number}", 0, reason, "dedupe", score, "", "image", "", "", 0, "", sha256)


@given(st.lists(st.integers(0, 40), max_size=300), st.integers(1, 30))
def test_what_is_repeated_is_shown_once_with_how_often_in_bounded_memory(contents, wanted):
    before = module.MOST
    module.MOST = 30
    try:
        group, other = LossGroup(), LossGroup()
        losses = [lost(row, Reason.BOILERPLATE_IMAGE, f"{content:064}") for row, content in enumerate(contents)]
        for one in losses:
            group.add_loss(one)
        Random(0).shuffle(losses)
        for one in losses:
            other.add_loss(one)
        assert len(group.examples) <= 4 * module.MOST
    finally:
        module.MOST = before
    found = {loss.sha256: same for loss, same in group.choose_examples(wanted)}
    times = Counter(f"{content:064}" for content in contents)
    assert len(found) == min(wanted, len(times))
    assert all(times[sha256] == same for sha256, same in found.items())
    assert found == {loss.sha256: same for loss, same in other.choose_examples(wanted)}
    assert group.number == len(contents)


def test_other_losses_are_shown_each():
    group = LossGroup()
    for row in range(5):
        group.add_loss(lost(row, Reason.NEAR_IMAGE, "0" * 64, score=0.9 + row / 100))
    assert [same for _, same in group.choose_examples(9)] == [1] * 5
    assert group.scores == {0.9: 1, 0.91: 1, 0.92: 1, 0.93: 1, 0.94: 1}


def test_a_histogram_has_a_bar_for_each_bin_with_something_in_it_and_a_line_for_each_bound_within():
    drawn = draw_histogram([0.0, 0.5, 1.0, 1.5], [4, 0, 1], [0.75, 9.0])
    assert drawn.count("<rect") == 2
    assert "<title>0 to 0.5: 4</title>" in drawn
    assert re.findall("<title>bound: ([0-9.]+)</title>", drawn) == ["0.75"]
    assert 'x1="120.0"' in drawn
    assert draw_histogram([0.0, 1.0], [0]) == draw_histogram([], []) == draw_scores({1.0: 9}) == ""
    assert sum(map(int, re.findall(r": (\d+)</title>", draw_scores({0.1: 2, 0.2: 3, 0.4: 5})))) == 10


def test_what_strangers_wrote_is_shown_and_not_obeyed():
    card = {
        "thumbnail": "",
        "kind": "text",
        "text": "<script>alert(1)</script>",
        "id": "a/b#0",
        "where": '"><img src=x>',
        "score": None,
        "other": "",
        "url": "javascript:alert(2)",
        "same": 2,
        "keeper": {"text": "<script>alert(3)</script>", "thumbnail": ""},
    }
    group = {
        "source": '"x',
        "reason": "language",
        "number": 1,
        "scores": "",
        "steps": "language",
        "cards": [card],
    }
    made = render_page(
        "vlmill.pipeline.page",
        "report.html.jinja",
        name="<q>",
        policies=["<em>"],
        totals={"<i>": {"in": 2, "kept": 1, "dropped": {"<i>": 1}, "failed": {}}},
        sizes={"<i>": 3},
        licences={"<i>": "<i>"},
        odd=[OddLine("<i>", "", "")],
        funnel={},
        notes=["<i>"],
        signals=[{"title": "<i>", "plot": draw_histogram([0, 1], [3])}],
        report=CurationReport(overlap=(), missing={"<u>": "<s>"}),
        share=format_share,
        sources=['"x'],
        reasons=["language"],
        shown=1,
        groups=[group],
    )
    assert "<script>alert" not in made
    assert not [tag for tag in ("<q>", "<i>", "<u>", "<s>", "<em>") if tag in made]
    assert "<img src=x" not in made
    assert "&lt;script&gt;alert(1)" in made
    assert 'href="javascript' not in made


def test_a_thumbnail_is_small_and_an_image_too_large_for_one_is_left_out(monkeypatch):
    data = base64.b64decode(make_thumbnail(picture(3, (640, 320))).partition("base64,")[2])
    assert Image.open(io.BytesIO(data)).size == (SIDE, SIDE // 2)
    monkeypatch.setattr("vlmill.pipeline.page.report.MAX_PIXELS", 100)
    assert make_thumbnail(picture(3, (640, 320))) == ""
