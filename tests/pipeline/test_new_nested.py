"""`vlmill new` on rows that hold objects, and on turns that name keys and speakers in their own way."""

from __future__ import annotations

import pytest
import yaml

from tests.helpers.upstream import json_lines, picture
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.proposal.proposal import examine_place
from vlmill.pipeline.proposal.table import explain_nothing


def talk(*said, speaker="by", text="said", names=("client", "agent"), **more):
    return [{speaker: names[place % 2], text: words, **more} for place, words in enumerate(said)]


def test_a_delivery_of_nested_objects_is_recognised(tmp_path):
    rows = [
        {
            "task": {"id": row},
            "media": [{"rel": f"{row}/a.jpg", "note": "front"}, {"rel": f"{row}/b.jpg", "note": "back"}],
            "talk": {"system": "Be brief.", "turns": talk("What is it?", f"Gate {row}.")},
        }
        for row in range(6)
    ]
    found = examine_place(str(json_lines(tmp_path / "delivery.jsonl", rows)))
    assert found.chosen.kind == "table"
    assert found.chosen.options == {
        "image": "media.rel",
        "turns": "talk.turns",
        "speaker": "by",
        "said": "said",
        "speakers": {"client": "user", "agent": "assistant"},
    }
    assert len(found.chosen.pages) == 6
    assert [node.role for node in found.chosen.pages[0].nodes] == ["system", *["user"] * 3, "assistant"]


@pytest.mark.parametrize(
    ("names", "speakers"),
    [
        (("Customer", "Support Bot"), {"customer": "user", "support bot": "assistant"}),
        (("P-17", "P-3"), {"p-17": "user", "p-3": "assistant"}),
        (("human", "oracle"), {"oracle": "assistant"}),
        (("USER", "ASSISTANT"), {}),
    ],
)
def test_speakers_are_known_by_what_people_call_them_or_by_who_begins(tmp_path, names, speakers):
    rows = [{"dialog": talk("What?", f"This {row}.", "And?", "That.", names=names)} for row in range(5)]
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)))
    assert found.chosen.options.get("speakers", {}) == speakers
    assert [node.role for node in found.chosen.pages[0].nodes] == ["user", "assistant"] * 2


def test_images_of_turns_are_found(tmp_path):
    rows = [
        {
            "chat": [
                {"who": "asker", "msg": "What?", "files": [f"{row}.png"]},
                {"who": "bot", "msg": "A cat.", "files": []},
            ]
        }
        for row in range(5)
    ]
    (tmp_path / "img").mkdir()
    for row in range(5):
        (tmp_path / "img" / f"{row}.png").write_bytes(picture(row))
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)))
    assert found.chosen.options["turn_image"] == "files"
    assert found.images == str(tmp_path / "img")


@pytest.mark.parametrize("named", [False, True])
def test_several_keys_of_a_turn_may_hold_images(tmp_path, named):
    for row in range(10):
        (tmp_path / f"{row}.png").write_bytes(picture(row))
    rows = [
        {
            "chat": [
                {"role": "user", "text": f"What differs {row}?", "before": f"{row}.png", "after": f"{9 - row}.png"},
                {"role": "assistant", "text": "The colour."},
            ]
        }
        for row in range(5)
    ]
    columns = {"turns": ["chat"], "turn_image": ["before", "after"]} if named else None
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)), columns)
    assert found.chosen.options == {"turns": "chat", "said": "text", "turn_image": ["before", "after"]}
    assert [one.path for one in found.chosen.pages[0].pictures] == ["0.png", "9.png"]


@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize("column", ["messages", "thread"])
def test_a_name_beside_a_conversation_is_no_caption_of_its_images(tmp_path, column, numbered):
    for row in range(5):
        (tmp_path / f"s{row:02}.png").write_bytes(picture(row))
    names = {"sender": "client", "text": "What?"}, {"sender": "support", "text": "A gate."}
    shown = [{"files": ["s00.png"]}, {}] if numbered else [{}, {}]
    said = [{**turn, **more} for turn, more in zip(names, shown, strict=True)]
    beside = [{"id": row} if numbered else {"image": f"s{row:02}.png"} for row in range(5)]
    rows = [{**one, "agent_name": f"Jo {row}", column: said} for row, one in enumerate(beside)]
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)))
    assert "caption" not in found.chosen.options
    assert found.chosen.options["turns"] == column
    shows = {"turn_image": "files"} if numbered else {"image": "image"}
    assert shows.items() <= found.chosen.options.items()
    assert "file" not in found.chosen.options


def test_pictures_that_few_turns_bring_are_read_rather_than_their_rows_lost(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(0))
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What {row}?", "attachments": [] if row % 3 else [{"file": "a.png"}]},
                {"role": "assistant", "content": f"A gate {row}."},
            ]
        }
        for row in range(9)
    ]
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)))
    assert found.chosen.options == {"turns": "messages", "turn_image": "attachments.file"}
    assert len(found.chosen.pages) == 9


def test_dotted_columns_may_be_named_and_are_listed_where_there_is_none(tmp_path):
    rows = [{"x": {"one": f"What {row}?", "two": f"This {row}."}} for row in range(5)]
    place = str(json_lines(tmp_path / "a.jsonl", rows))
    found = examine_place(place, {"question": ["x.one"], "answer": ["x.two"]})
    assert len(found.chosen.pages) == 5
    with pytest.raises(SourceError, match=r"x, x\.one, x\.two"):
        examine_place(place, {"question": ["x.three"], "answer": ["x.two"]})


def test_rows_that_are_flat_are_read_as_before(tmp_path):
    rows = [
        {"question": f"What {row}?", "answer": "This.", "meta": {"question": "no", "answer": "no"}} for row in range(5)
    ]
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)))
    assert "." not in yaml.safe_dump(dict(found.chosen.options))


@pytest.mark.parametrize(
    ("kind", "image"), [("web_documents", "https://img.test/{}.png"), ("file_documents", "{}.png")]
)
def test_a_document_that_is_a_list_of_parts_is_recognised(tmp_path, kind, image):
    rows = [
        {
            "page": {
                "title": f"Page {row}",
                "parts": [
                    {"type": "text", "text": f"Before {row}"},
                    {"type": "image", "src": image.format(row)},
                    {"type": "text", "text": "After"},
                ],
            }
        }
        for row in range(5)
    ]
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)))
    assert (found.chosen.kind, found.chosen.options) == (
        kind,
        {"images": "page.parts.src", "texts": "page.parts.text"},
    )
    assert [node.kind for node in found.chosen.pages[0].nodes] == ["text", "image", "text"]


def test_turns_of_any_name_are_found_by_what_they_hold_and_one_film_among_pictures_does_not_hide_them(tmp_path):
    entries = [
        [
            {"party": "Kunde", "utterance": {"text": "Was?"}, "attachments": [{"uri": f"{row}.png", "bytes": 7}]},
            {"party": "Techniker", "utterance": {"text": f"Tor {row}."}, "attachments": []},
        ]
        for row in range(8)
    ]
    entries[3][0]["attachments"].append({"uri": "clip.mp4", "bytes": 9})
    rows = [{"thread": {"briefing": "Be brief.", "entries": one}} for one in entries]
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)))
    assert found.chosen.options == {
        "turns": "thread.entries",
        "speaker": "party",
        "said": "utterance.text",
        "speakers": {"kunde": "user", "techniker": "assistant"},
        "turn_image": "attachments.uri",
    }
    assert (found.chosen.tried, len(found.chosen.pages)) == (8, 7)
    assert found.columns["thread.entries.utterance.text"] == "list of texts"
    (page, *_) = examine_place(
        str(tmp_path / "a.jsonl"), {"turns": ["thread.entries"], "system": ["thread.briefing"]}
    ).chosen.pages
    assert (page.nodes[0].role, page.nodes[0].text) == ("system", "Be brief.")


def test_where_no_kind_fits_columns_kinds_and_ways_on_stand_on_lines_of_their_own(tmp_path):
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", [{"left": {"far": 1}}])))
    lines = explain_nothing(found).splitlines()
    assert [line.strip() for line in lines if line.endswith(":")] == ["columns:", "nearest kinds:", "ways on:"]
    assert "    left.far (number)" in lines
    assert sum(str(tmp_path) in line for line in lines) == 1
