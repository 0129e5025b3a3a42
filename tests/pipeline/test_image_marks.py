"""Marks of images in texts other than `<image>`, by number or by another name: read, proposed, lost with a reason."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from pydantic import ValidationError

import vlmill
from tests.helpers.small import RECIPE, write_recipe
from tests.helpers.upstream import json_lines, parquet, picture, talk
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.proposal.proposal import examine_place
from vlmill.pipeline.sources import SOURCES
from vlmill.pipeline.sources.base import UnreadableRow
from vlmill.pipeline.sources.conversation import ConversationImage, Picture, read_marked_page
from vlmill.pipeline.sources.llava import LlavaSource
from vlmill.pipeline.sources.marks import check_mark
from vlmill.pipeline.sources.table import TableSource

NUMBERED = "<image {number}>"


def read_talk(*said, images=("a.png", "b.png"), mark=NUMBERED):
    """What a user and an assistant say by turns, as texts and the paths of images."""
    page = LlavaSource(mark=mark).page({"images": list(images), "conversations": talk(*said)})
    return [node.text if node.image is None else page.pictures[node.image].path for node in page.nodes]


@pytest.mark.parametrize(
    ("mark", "first", "second"),
    [
        ("<image {number}>", "<image 1>", "<image 2>"),
        ("<|image_{number}|>", "<|image_1|>", "<|image_2|>"),
        ("<image_{index}>", "<image_0>", "<image_1>"),
        ("[IMG{number}]", "[IMG1]", "[IMG02]"),
    ],
)
def test_a_number_is_the_place_of_an_image_in_the_list_of_its_row(mark, first, second):
    assert read_talk(f"{second}\nor {first}?", "The first.", mark=mark) == ["b.png", "or ", "a.png", "?", "The first."]


def test_an_image_that_is_named_again_is_shown_again_and_held_once():
    row = {"images": ["a.png", "b.png"], "conversations": talk("<image 2><image 1>?", "A.", "And <image 2>?", "B.")}
    page = LlavaSource(mark=NUMBERED).page(row)
    assert [picture.path for picture in page.pictures] == ["b.png", "a.png"]
    assert [node.image for node in page.nodes if node.kind == "image"] == [0, 1, 0]


def test_line_breaks_go_beside_a_mark_alone():
    said = "\n  x = 1\n\n<image>\nor\n<image>\r\n  y = 2\n\n"
    assert read_talk(said, "A.\n") == ["\n  x = 1", "a.png", "or", "b.png", "  y = 2\n\n", "A.\n"]


@pytest.mark.parametrize("picture", [{"type": "image", "image": "c.png"}, None])
def test_a_mark_in_texts_beside_images_that_are_parts_is_said_to_be_one_too_many(picture):
    parts = [{"type": "text", "text": "What does <image> mean?"}, *([picture] if picture else [])]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "A place."}]}
    why = "where images are parts of their own (1) and none is left" if picture else "1 times <image> for 0 images"
    with pytest.raises(UnreadableRow, match=re.escape(why)):
        LlavaSource().page(row)


@pytest.mark.parametrize("mark", ["<ImageHere>", "<image>", NUMBERED])
def test_marks_without_a_number_are_the_next_image(mark):
    said = "<ImageHere> or <image>?" if mark == "<ImageHere>" else "<image> or <image>?"
    assert read_talk(said, "A.", mark=mark) == ["a.png", " or ", "b.png", "?", "A."]


@pytest.mark.parametrize(
    ("said", "reason", "detail"),
    [
        (("<image 3>?", "A."), Reason.BAD_ROW, "<image 3> names an image that is not there: the row has 2"),
        (("<image 0>?", "A."), Reason.BAD_ROW, "<image 0> names an image that is not there: the row has 2"),
        (("<image 2>?", "A."), Reason.BAD_ROW, "image 1 of 2, counted from 1, is marked in no text"),
        (
            ("<image 1> <image>?", "A."),
            Reason.BAD_ROW,
            "images are marked by number, <image 1>, and in",
        ),
        (("Which?", "A."), Reason.BAD_ROW, "0 times <image> or <image {number}> for 2 images"),
        (
            ("<image 1><image 2>?", "As <image 1>."),
            Reason.UNSUPPORTED_CONTENT,
            "an answer names an image, <image 1>,",
        ),
    ],
)
def test_marks_that_fit_no_image_lose_the_row_with_a_reason(said, reason, detail):
    with pytest.raises(UnreadableRow) as lost:
        read_talk(*said)
    assert lost.value.reason == reason
    assert str(lost.value).startswith(detail)


def test_numbers_are_those_of_columns_also_where_one_is_empty_and_choices_may_show_images():
    source = TableSource(
        image=("image_1", "image_2", "image_3"), question="q", answer="a", choices="options", mark=NUMBERED
    )
    row = {"image_1": "a.png", "image_2": None, "image_3": "c.png", "q": "Like <image 1>?", "a": "A"}
    page = source.page({**row, "options": ["<image 3>", "none"]})
    assert [picture.path for picture in page.pictures] == ["a.png", "c.png"]
    with pytest.raises(UnreadableRow, match="<image 2> names an image that is not there: the row has 2"):
        source.page({**row, "options": ["<image 2>", "none"]})
    plain = source.page({**row, "options": ["one", "two"], "q": "Which?"})
    assert [node.kind for node in plain.nodes] == ["image", "image", "text", "text"]


@pytest.mark.parametrize(("mark", "said"), [("{{image}}", "{{image}}"), ("{{image_{number}}}", "{{image_1}}")])
def test_a_mark_may_have_double_braces(mark, said):
    assert parse_block(SOURCES["llava"], {"mark": mark}, "options of llava").mark == mark
    assert read_talk(f"Like {said}?", "A.", mark=mark, images=["a.png"]) == ["Like ", "a.png", "?", "A."]


@pytest.mark.parametrize(
    "mark", ["", "{number}", "<image {n}>", "<{number} {index}>", "<image {number>", " ", "{image}", "{{number}}"]
)
def test_a_mark_that_marks_nothing_is_refused(mark):
    with pytest.raises(ValueError, match="expected a text such as <ImageHere>"):
        check_mark(mark)
    with pytest.raises((RecipeError, ValidationError)):
        parse_block(SOURCES["llava"], {"mark": mark}, "options of llava")


def test_a_mark_of_captions_is_refused():
    with pytest.raises(ValidationError, match="mark says where images stand in questions or turns"):
        TableSource(image="image", caption="text", mark=NUMBERED)


def test_new_proposes_the_mark_of_a_conversation(tmp_path):
    rows = [
        {"images": [f"{row}.png", "b.png"], "conversations": talk(f"<|image_1|><|image_2|> {row}?", "So.")}
        for row in range(8)
    ]
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)))
    assert (found.chosen.kind, dict(found.chosen.options)) == ("llava", {"mark": "<|image_{number}|>"})
    (note,) = [one for one in found.notes if "texts mark" in one]
    assert note.startswith("texts mark an image as <|image_{number}|>: its number is its place in the list of its row")
    assert not any("stay text" in one for one in found.notes)


def test_new_proposes_the_mark_of_questions_with_images_in_columns_and_counts_from_0_where_rows_do(tmp_path):
    rows = [
        {
            "question": f"<image_0> or <image_1>, {row}?",
            "answer": "The first.",
            **{f"image_{place}": {"bytes": picture(8 * row + place), "path": None} for place in range(2)},
        }
        for row in range(8)
    ]
    options = {"image": ["image_0", "image_1"], "question": "question", "answer": "answer", "mark": "<image_{index}>"}
    found = examine_place(str(parquet(tmp_path / "a.parquet", rows)))
    assert (found.chosen.kind, dict(found.chosen.options)) == ("table", options)
    named = {"image": ["image_0", "image_1"], "question": ["question"], "answer": ["answer"]}
    assert dict(examine_place(str(tmp_path / "a.parquet"), named).chosen.options) == options


def test_a_page_of_parts_reads_images_as_before():
    beside = [ConversationImage(Picture(path=name), name) for name in ("a.png", "b.png")]
    parts = [{"type": "image", "index": 0}, {"type": "text", "text": "<image> and"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "So."}]
    assert [one.path for one in read_marked_page(messages, beside).pictures] == ["a.png", "b.png"]


def test_an_image_that_is_shown_twice_is_so_in_shards_exports_and_a_takedown(tmp_path):
    pictures = [picture(number, (60 + 9 * number, 48)) for number in range(6)]
    for number, data in enumerate(pictures):
        (tmp_path / f"{number}.png").write_bytes(data)
    rows = [
        {
            "images": [f"{n}.png", f"{n + 1}.png"],
            "q": f"Is <image 1> like <image 2>, or {n} like <image 1>?",
            "a": "No.",
        }
        for n in (0, 2, 4)
    ]
    json_lines(tmp_path / "rows.jsonl", rows)
    options = {"image": "images", "question": "q", "answer": "a", "mark": NUMBERED}
    source = {"kind": "table", "files": "rows.jsonl", "licence": "CC0-1.0", "options": options}
    mixture = {"shares": {"pairs": 1}, "epochs": 1, "sequence_length": 512}
    stages = [{**RECIPE["stages"][0], "mixture": mixture}]
    recipe = write_recipe(tmp_path, sources={"pairs": source}, stages=stages, dedupe=None)
    run = vlmill.build(recipe, tmp_path / "run", workers=0)

    for sample in run.stage("align").samples():
        first, other, again = sample.images
        assert first == again != other
    run.export("messages", tmp_path / "out")
    (file,) = (tmp_path / "out" / "pairs").rglob("*.json*")
    for record in map(json.loads, file.read_text().splitlines()):
        first, other, again = record["images"]
        assert first == again != other
        assert record["messages"][0]["content"].count("<image>") == 3
    run.takedown(sha256=hashlib.sha256(pictures[2]).hexdigest(), workers=0)
    traced = run.trace("pairs/rows.jsonl#1")
    assert traced.outcome.sample == Reason.TAKEN_DOWN
    assert [str(sample.id) for sample in run.stage("align").samples()].count("pairs/rows.jsonl#1") == 0
    assert run.verify(workers=0) == []
