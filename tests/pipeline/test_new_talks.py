"""`vlmill new` on conversations that lie in files beside pictures, and on rows whose speakers no kind reads."""

from __future__ import annotations

import json

import pytest

from tests.helpers.upstream import json_lines, picture
from vlmill.pipeline.proposal.proposal import examine_place
from vlmill.pipeline.proposal.table import explain_nothing

TALK = [{"speaker": "human", "utterance": "What is it?"}, {"speaker": "bot", "utterance": "A shape."}]


def test_a_conversation_beside_a_picture_is_read_and_no_word_about_it_is_its_caption(tmp_path):
    for row in range(6):
        (tmp_path / f"{row}.png").write_bytes(picture(row))
        (tmp_path / f"{row}.json").write_text(json.dumps({"annotator": f"b{row % 2}", "conversation": TALK}))
    found = examine_place(str(tmp_path))
    turns = {"turns": "conversation", "speaker": "speaker", "said": "utterance"}
    assert dict(found.chosen.options) == {"image": "image", **turns}
    assert [[node.role for node in page.nodes] for page in found.chosen.pages] == [["user", "user", "assistant"]] * 6


def test_a_mark_of_the_encoding_before_a_text_is_none_of_its_letters_and_what_is_no_json_is_said(tmp_path):
    for row in range(5):
        (tmp_path / f"{row}.png").write_bytes(picture(row))
        (tmp_path / f"{row}.json").write_text(json.dumps({"caption": f"Shape {row}."}), encoding="utf-8-sig")
    (tmp_path / "3.json").unlink()
    (tmp_path / "3.txt").write_text("Shape 3.", encoding="utf-8-sig")
    (tmp_path / "4.json").write_text('{"caption": ')
    found = examine_place(str(tmp_path))
    assert [row.get("caption") for row in found.listed] == [*(f"Shape {row}." for row in range(4)), None]
    assert "1 .json files are no JSON and say nothing: 4.json" in found.notes


def gemini(row, **more):
    data = {"mimeType": "image/png", "data": "iVBORw0KGgoAAAANSUhEUg=="}
    asked = {"role": "user", "parts": [{"inlineData": data}, {"text": f"What is shape {row}?"}]}
    return {**more, "contents": [asked, {"role": "model", "parts": [{"text": f"Shape {row} is a gate."}]}]}


@pytest.mark.parametrize("more", [{}, {"systemInstruction": {"parts": [{"text": "Be brief."}]}}])
def test_messages_in_parts_that_no_kind_reads_are_no_documents(tmp_path, more):
    found = examine_place(str(json_lines(tmp_path / "tune.jsonl", [gemini(row, **more) for row in range(6)])))
    assert found.chosen is None
    said = explain_nothing(found)
    assert "contents.role says who speaks (model, user), each message in parts of its own" in said
    assert "make a file without" not in said


def test_a_row_for_each_message_is_no_caption_of_its_picture_unless_somebody_says_so(tmp_path):
    rows = [
        {"talk": row // 2, "role": ("user", "assistant")[row % 2], "text": f"Words {row}.", "image": f"{row}.png"}
        for row in range(8)
    ]
    place = str(json_lines(tmp_path / "messages.jsonl", rows))
    found = examine_place(place)
    assert found.chosen is None
    assert "role says who speaks (assistant, user), each message in a row of its own" in explain_nothing(found)
    named = examine_place(place, {"image": ["image"], "caption": ["text"]})
    assert len(named.chosen.pages) == 8


@pytest.mark.parametrize("key", ["author", "role"])
def test_who_wrote_a_caption_is_no_speaker_and_neither_is_what_is_in_a_picture(tmp_path, key):
    who = {"author": ("human", "model"), "role": ("user", "assistant", "queen")}[key]
    rows = [{"image": f"{row}.png", "caption": f"A gate {row}.", key: who[row % len(who)]} for row in range(6)]
    found = examine_place(str(json_lines(tmp_path / "captions.jsonl", rows)))
    assert found.chosen.options == {"image": "image", "caption": "caption"}


def test_a_conversation_about_several_numbered_pictures_shows_them_by_their_numbers(tmp_path):
    for row in range(4):
        for number in (1, 2, 10):
            (tmp_path / f"s{row}_{number}.png").write_bytes(picture(row + number))
        said = [{"who": "client", "text": f"What differs, {row}?"}, {"who": "agent", "text": "The colour."}]
        (tmp_path / f"s{row}.json").write_text(json.dumps({"id": row, "turns": said}))
    (tmp_path / "lone.png").write_bytes(picture(9))
    found = examine_place(str(tmp_path))
    assert [row["image"] for row in found.listed if "turns" in row] == [
        [f"s{row}_{number}.png" for number in (1, 2, 10)] for row in range(4)
    ]
    assert len(found.chosen.pages[0].pictures) == 3
    assert any("1 of 5 pictures" in note and "lone.png" in note for note in found.notes)


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (["a.left", "a.right"], "2 of these have the name of such a file and more, and no text shows them: a.left.png"),
        (["a", "a.mask"], "1 of these have the name of such a file and more, and no text shows them: a.mask.png"),
        (["a", "a_2"], "1 of these have the name of such a file and more, and no text shows them: a_2.png"),
        (["a", "b.mask", "b_2", "2"], ""),
    ],
)
def test_a_further_picture_of_a_conversation_that_is_not_shown_is_said(tmp_path, names, left):
    for row in range(4):
        (tmp_path / f"s{row}.png").write_bytes(picture(row))
        (tmp_path / f"s{row}.json").write_text(json.dumps({"conversation": TALK}))
    for name in names:
        (tmp_path / f"{name}.png").write_bytes(picture(9))
    (tmp_path / "a.json").write_text(json.dumps({"conversation": TALK}))
    notes = [note for note in examine_place(str(tmp_path)).notes if "and no text shows them" in note]
    assert [note.startswith(left) for note in notes] == ([True] if left else [])


def test_pictures_that_no_row_shows_are_said(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(0))
    rows = [{"question": f"What is {row}?", "answer": "A number."} for row in range(5)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said = "no row that was looked at shows a picture, and picture files are there (1)"
    assert any(note.startswith(said) for note in examine_place(str(tmp_path)).notes)
    named = [{**row, "image": "a.png"} for row in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, named)))
    assert not any(said in note for note in examine_place(str(tmp_path)).notes)
