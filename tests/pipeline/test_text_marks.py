"""What stands in texts and was hardly meant: entities are counted and resolved on request, marks are counted."""

import json

import pytest
import yaml

from tests.helpers.small import vlmill
from tests.helpers.upstream import json_lines, picture, talk
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node, read_rows, read_samples
from vlmill.pipeline.proposal.proposal import examine_place
from vlmill.pipeline.sources import Page
from vlmill.pipeline.sources.entities import find_entities, resolve_entities
from vlmill.pipeline.sources.table import TableSource
from vlmill.pipeline.steps.read import Read
from vlmill.pipeline.steps.row_sample import RowRange

SAID = ["Tom &amp; Jerry&#39;s", "A shape.", "&nbsp;", "for &quot;two&quot;"]


def write_captions(folder, said=SAID):
    for row in range(len(said)):
        (folder / f"{row}.png").write_bytes(picture(row))
    return json_lines(
        folder / "cards.jsonl", [{"image": f"{row}.png", "caption": text} for row, text in enumerate(said)]
    )


def read_texts(tmp_path, path, rows, **options):
    (folder := tmp_path / "read").mkdir()
    step = Read(TableSource(**options), "a", (RowRange(path.name, 0, rows),), images=str(tmp_path), unescape=True)
    counts = step.run({"input-0": path}, folder)
    said = [node.text for sample in read_samples(folder / "samples.parquet") for node in sample.nodes if node.text]
    return said, counts, list(read_rows(folder / "refused.parquet"))


def test_entities_are_counted_and_resolved_by_the_recipe_that_new_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    place = write_captions(tmp_path)
    assert vlmill("new", str(place), "--out", "cards.yaml") == 0
    note = "3 of 4 samples that were looked at hold HTML entities, such as &amp;"
    assert f"{note}: the recipe says unescape: true" in capsys.readouterr().out
    (settings,) = yaml.safe_load((tmp_path / "cards.yaml").read_text())["sources"].values()
    assert settings["unescape"] is True

    def check(*options):
        assert vlmill("check", "cards.yaml", "--json", *options) == 0
        return [one for one in json.loads(capsys.readouterr().out)["warnings"] if "entities" in one]

    assert check() == []
    (warning,) = check("--set", "sources.cards.unescape=false")
    assert warning == (
        f"source cards: {note}, which are trained on as they are: --set sources.cards.unescape=true makes characters "
        "of them"
    )
    assert vlmill("build", "cards.yaml", "--out", "run", "--until", "curate", "--set", "filters=[]") == 0
    (samples,) = (tmp_path / "run/steps/cards/read").rglob("*samples.parquet")
    assert {node.text for sample in read_samples(samples) for node in sample.nodes if node.text} == {
        "Tom & Jerry's",
        "A shape.",
        'for "two"',
    }


def test_a_caption_of_entities_that_stand_for_blanks_is_empty(tmp_path):
    said, counts, refused = read_texts(tmp_path, write_captions(tmp_path), 4, image="image", caption="caption")
    assert len(said) == 3
    assert counts["rows"].lost == {Reason.EMPTY_ROW: 1}
    assert [(row["row"], row["detail"]) for row in refused] == [(2, "no text but entities that stand for blanks")]


@pytest.mark.parametrize(
    "text",
    [
        "a && b; c &= d;",
        r"x & y \\ 1 &alpha \& 2",
        "http://a.test/?a=1&copy=2&lt=3",
        "AT&T; R&D",
        "&notanentity; &#99999999;",
    ],
)
def test_code_latex_and_addresses_stay_as_they_are(text):
    page = Page((Node("text", supervised=True, text=text),))
    assert resolve_entities(page) is page
    assert find_entities([text]) == ""


def test_each_entity_is_resolved_once_and_blank_paragraphs_go_but_no_turn():
    said = ["&amp;amp; &eacute; &#x41;&#66;", " &nbsp; ", "as it was"]
    page = Page(tuple(Node("text", supervised=True, text=text) for text in said))
    assert [node.text for node in resolve_entities(page).nodes] == ["&amp; \u00e9 AB", "as it was"]
    turns = Page(tuple(Node("text", role="user", text=text) for text in said))
    assert [node.text for node in resolve_entities(turns).nodes][1] == "   "


def test_entities_of_blanks_become_spaces_and_other_characters_stay():
    said = "10&nbsp;kg&#160;or&#xA0;22&ensp;lb&thinsp;&Tab;a&NewLine;b, \u00a0 as it came"
    (node,) = resolve_entities(Page((Node("text", supervised=True, text=said),))).nodes
    assert node.text == "10 kg or 22 lb \ta\nb, \u00a0 as it came"


def test_a_text_of_html_may_hold_entities_and_is_not_reported(tmp_path):
    assert find_entities(["<p>a &amp; b</p>"]) == ""
    assert find_entities(["plain", "caf&eacute;"]) == "&eacute;"
    rows = [{"messages": talk("How?", f"<b>{row} &lt; 9</b>", keys=("role", "content"))} for row in range(8)]
    assert examine_place(str(json_lines(tmp_path / "a.jsonl", rows))).notes == ()


def test_check_says_how_many_samples_hold_marks_of_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_captions(tmp_path, ["As <image 1> shows.", "A shape.", "Beside [IMG2].", "It."])
    vlmill("new", "cards.jsonl", "--out", "cards.yaml")
    capsys.readouterr()
    vlmill("check", "cards.yaml", "--json")
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert any(
        one.startswith("source cards: 2 of 4 samples that were looked at hold marks of images that stay text, such as")
        for one in warnings
    )
