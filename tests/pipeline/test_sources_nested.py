"""Rows whose columns lie within objects, and turns whose keys and speakers have other names."""

from __future__ import annotations

import base64
import itertools
import json

import pytest

from tests.helpers.upstream import arrow, json_lines, parquet, picture, separated
from tests.pipeline.test_sources_table import details, read, texts
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import BadFileError, RecipeError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.sources import SOURCES
from vlmill.pipeline.sources.base import UnreadableRow
from vlmill.pipeline.sources.nested import check_lists

TURNS = [{"by": "Client", "said": "What is it?"}, {"by": "agent", "said": "A gate."}]
ROW = {
    "task": {"id": 7, "score": 4},
    "media": [{"rel": "a.jpg", "note": "front"}, {"rel": "b.jpg", "note": "back"}],
    "talk": {"system": "Be brief.", "turns": TURNS},
}
SPOKEN = {"speaker": "by", "said": "said", "speakers": {"client": "user", "agent": "assistant"}}
OPTIONS = {"image": "media.rel", "turns": "talk.turns", "signals": ["task.score"], **SPOKEN}


def written_as_json(row):
    return {name: json.dumps(value) for name, value in row.items()}


WRITERS = {
    "jsonl": lambda folder: json_lines(folder / "a.jsonl", [ROW]),
    "parquet": lambda folder: parquet(folder / "a.parquet", [ROW]),
    "arrow": lambda folder: arrow(folder / "a.arrow", [ROW]),
    "csv": lambda folder: separated(folder / "a.csv", [written_as_json(ROW)]),
}


@pytest.mark.parametrize("form", WRITERS)
def test_dotted_keys_lead_into_objects_lists_of_them_and_objects_written_as_json(tmp_path, form):
    (row,) = read(WRITERS[form](tmp_path), **OPTIONS)
    assert texts(row) == [
        ("system", 0, "Be brief."),
        *[("user", 0, None)] * 2,
        ("user", 0, "What is it?"),
        ("assistant", 0, "A gate."),
    ]
    (page,) = row.pages
    assert [picture.path for picture in page.pictures] == ["a.jpg", "b.jpg"]
    assert page.signals == {"score": 4.0}
    assert page.unread == ("media.note",)


def test_questions_choices_captions_and_addresses_may_lie_within_objects(tmp_path):
    asked = [{"ask": {"q": "Which?", "of": [{"t": "cat"}, {"t": "dog"}]}, "gold": {"a": "dog"}}]
    (row,) = read(json_lines(tmp_path / "q.jsonl", asked), question="ask.q", answer="gold.a", choices="ask.of.t")
    assert texts(row)[1] == ("assistant", 0, "B")
    assert "A. cat\nB. dog" in texts(row)[0][2]
    several = [{"qa": [{"q": "One?", "a": "1"}, {"q": "Two?", "a": "2"}]}]
    (row,) = read(json_lines(tmp_path / "s.jsonl", several), question="qa.q", answer="qa.a")
    assert [text for _, _, text in texts(row)] == ["One?", "1", "Two?", "2"]
    linked = [{"meta": {"image": {"url": "https://img.test/1.png"}, "text": "A gate", "rights": "CC0-1.0"}}]
    names = {"image": "meta.image.url", "caption": "meta.text", "licence": "meta.rights"}
    (row,) = read(json_lines(tmp_path / "c.jsonl", linked), kind="web_table", **names)
    assert (row.pages[0].pictures[0].url, row.pages[0].licence) == ("https://img.test/1.png", "CC0-1.0")


def test_what_lacks_its_place_in_a_list_is_not_taken_for_its_neighbour(tmp_path):
    rows = [{"qa": [{"q": "One?"}, {"a": "2"}]}]
    (row,) = read(json_lines(tmp_path / "s.jsonl", rows), question="qa.q", answer="qa.a")
    assert row.failed[0][0] is Reason.EMPTY_ROW


def test_a_column_whose_name_has_a_dot_comes_before_what_lies_within_another(tmp_path):
    rows = [{"meta.text": "flat", "meta": json.dumps({"text": "nested"}), "file": "a.png"}]
    for path in (separated(tmp_path / "a.csv", rows), parquet(tmp_path / "a.parquet", rows)):
        (row,) = read(path, image="file", caption="meta.text")
        assert row.pages[0].nodes[1].text == "flat"


@pytest.mark.parametrize("form", WRITERS)
def test_a_file_without_the_object_of_a_dotted_key_is_of_another_form(tmp_path, form):
    with pytest.raises(BadFileError, match=r"chat\.turns'? or '?chat"):
        read(WRITERS[form](tmp_path), **{**OPTIONS, "turns": "chat.turns"})


def test_what_a_row_may_not_be_read_without_counts_within_objects_too(tmp_path):
    row = {**ROW, "talk": {**ROW["talk"], "tools": [{"name": "search"}]}}
    (found,) = read(json_lines(tmp_path / "a.jsonl", [row]), **OPTIONS)
    assert found.failed[0][0] is Reason.UNSUPPORTED_CONTENT
    assert details(found)[0].startswith("within talk: tools is not read")
    (two,) = read(json_lines(tmp_path / "b.jsonl", [{**ROW, "system": "Be long."}]), **OPTIONS)
    assert details(two) == ["system and talk.system say different things"]


def test_turns_may_name_their_keys_and_speakers_in_their_own_way(tmp_path):
    turns = [{"who": {"role": "KUNDE"}, "text": "Was?"}, {"who": {"role": "Agent"}, "text": "Ein Tor.", "weight": 0}]
    more = [*turns, {"who": {"role": "Kunde"}, "text": "Und?"}, {"who": {"role": "agent"}, "text": "Alt."}]
    options = {"turns": "log", "speaker": "who.role", "said": "text"}
    named = {**options, "speakers": {"kunde": "user", "agent": "assistant"}}
    (row,) = read(json_lines(tmp_path / "a.jsonl", [{"log": more}]), **named)
    assert texts(row) == [
        ("user", 0, "Was?"),
        ("assistant", 0, "Ein Tor."),
        ("user", 1, "Und?"),
        ("assistant", 1, "Alt."),
    ]
    assert [node.supervised for node in row.pages[0].nodes] == [False, False, False, True]
    (row,) = read(json_lines(tmp_path / "b.jsonl", [{"log": turns}]), **options)
    assert "spoken by 'KUNDE'" in details(row)[0]
    assert (
        "in kind table what its option speakers maps: speakers: {KUNDE: ROLE}, where ROLE is user, " in details(row)[0]
    )
    (row,) = read(json_lines(tmp_path / "c.jsonl", [{"log": turns}]), **{**named, "said": "words"})
    assert details(row) == ["turn 0 has no words, which the option said names; it has text"]
    (row,) = read(json_lines(tmp_path / "d.jsonl", [{"log": turns}]), **{**named, "said": "txt"})
    assert details(row) == ["turn 0 has no txt, which the option said names; did you mean 'text'? it has text"]


def test_a_misspelt_key_of_images_in_turns_is_named_beside_the_one_that_is_there(tmp_path):
    turns = [{"by": "client", "said": "What?", "photos": [{"file": "a.png"}]}, {"by": "agent", "said": "A gate."}]
    path = json_lines(tmp_path / "a.jsonl", [{"log": turns}])
    (row,) = read(path, turns="log", **SPOKEN, turn_image="photos.flie")
    assert details(row) == ["within photos: file is not read: a.png; the options read flie there"]


@pytest.mark.parametrize(
    ("kind", "row", "options", "message"),
    [
        (
            "table",
            {"talk": [{**TURNS[0], "pics": [{"n": 1, "file": "a.jpg"}]}, TURNS[1]]},
            {"turns": "talk", **SPOKEN, "turn_image": "pics"},
            "pics 0 is an object of n, file, expected an image; dotted keys lead to what is in it, such as pics.file",
        ),
        (
            "table",
            {"shot": {"id": 7}, "text": "A gate."},
            {"image": "shot", "caption": "text"},
            "shot is an object of id, expected an image; dotted keys lead to what is in it, such as shot.id",
        ),
        (
            "web_table",
            {"shot": {"url": "https://img.test/a.jpg"}, "text": "A gate."},
            {"image": "shot", "caption": "text"},
            "shot is an object of url, expected an address; dotted keys lead to what is in it, such as shot.url",
        ),
    ],
)
def test_an_object_in_place_of_an_image_is_refused_with_the_name_of_what_is_in_it(
    tmp_path, kind, row, options, message
):
    (found,) = read(json_lines(tmp_path / "a.jsonl", [row]), kind, **options)
    assert details(found) == [message]
    where = message.rpartition(" ")[2]
    inner = {name: where if where.startswith(f"{value}.") else value for name, value in options.items()}
    if kind == "web_table" or "turn_image" in options:  # which says the same with the name that the message gives
        (found,) = read(tmp_path / "a.jsonl", kind, **inner)
        assert len(found.pages) == 1


@pytest.mark.parametrize("item", ["c.jpg", 7, ["c.jpg"]])
def test_what_is_no_object_among_objects_that_are_read_loses_the_row(item, tmp_path):
    path = json_lines(tmp_path / "a.jsonl", [ROW, {**ROW, "media": [*ROW["media"], item]}])
    fine, lost = read(path, **OPTIONS)
    assert len(fine.pages) == 1
    kind = type(item).__name__
    assert details(lost) == [f"item 2 of media is {kind}, expected an object with rel: {item}"]


def test_images_of_a_turn_stand_in_that_turn(tmp_path):
    log = [
        {"role": "user", "content": "First?", "files": ["a.png", "b.png"]},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "And <image> here?", "files": "c.png"},
        {"role": "assistant", "content": "One.", "files": None},
    ]
    (row,) = read(json_lines(tmp_path / "a.jsonl", [{"log": log}]), turns="log", turn_image="files")
    assert [(role, turn, text and text.strip()) for role, turn, text in texts(row)] == [
        *[("user", 0, None)] * 2,
        ("user", 0, "First?"),
        ("assistant", 0, "Two."),
        ("user", 1, "And"),
        ("user", 1, None),
        ("user", 1, "here?"),
        ("assistant", 1, "One."),
    ]
    assert [picture.path for picture in row.pages[0].pictures] == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("other", [{"id": "F2", "mode": "tombstone"}, {"id": "F2", "local": None}, {"local": ""}])
def test_an_attachment_without_its_file_loses_the_row_and_not_the_image_alone(tmp_path, other):
    sent = [{"id": "F1", "local": "a.png"}, {**other, "id": "F2"}]
    thread = [{"role": "user", "content": "Both?", "files": sent}, {"role": "assistant", "content": "Gates."}]
    (row,) = read(json_lines(tmp_path / "a.jsonl", [{"log": thread}]), turns="log", turn_image="files.local")
    assert [found for found, _ in row.failed] == [Reason.BAD_ROW]
    assert details(row)[0].startswith("1 of 2 in files have no local")
    path = json_lines(tmp_path / "b.jsonl", [{"media": sent, "q": "Both?", "a": "Gates."}])
    (row,) = read(path, image="media.local", question="q", answer="a")
    assert details(row)[0].startswith("1 of 2 in media have no local")


def test_parts_of_a_list_that_hold_a_text_need_no_image():
    row = {"parts": [{"file": "a.png"}, {"text": "What?"}]}
    check_lists(row, ["parts.file"], ["parts.file", "parts.text"])
    with pytest.raises(UnreadableRow, match="1 of 2 in parts have no file"):
        check_lists(row, ["parts.file"], ["parts.file"])


def test_an_image_whose_id_is_0_is_there(tmp_path):
    path = json_lines(tmp_path / "a.jsonl", [{"media": [{"id": 0, "of": "x"}, {"id": 1}], "q": "Both?", "a": "Gates."}])
    (row,) = read(path, image="media.id", file="{image}.jpg", question="q", answer="a")
    assert [picture.path for picture in row.pages[0].pictures] == ["0.jpg", "1.jpg"]


def test_images_under_several_keys_of_a_turn_stand_in_the_order_of_the_keys(tmp_path):
    thread = [
        {"by": "client", "said": "What differs?", "after": {"file": "b.png"}, "before": {"file": "a.png"}},
        {"by": "agent", "said": "The gate."},
        {"by": "client", "after": {"file": "c.png"}},
        {"by": "agent", "said": "Nothing here."},
    ]
    named = {"turns": "thread", "speaker": "by", "said": "said", "speakers": WITHIN["speakers"]}
    shown = ["before.file", "after.file"]
    (row,) = read(json_lines(tmp_path / "a.jsonl", [{"thread": thread}]), **named, turn_image=shown)
    assert [picture.path for picture in row.pages[0].pictures] == ["a.png", "b.png", "c.png"]
    assert texts(row) == [
        *[("user", 0, None)] * 2,
        ("user", 0, "What differs?"),
        ("assistant", 0, "The gate."),
        ("user", 1, None),
        ("assistant", 1, "Nothing here."),
    ]


THREAD = [
    {"author": {"role": "client", "name": "Jo"}, "body": {"text": "What?", "shots": [{"file": "a.png", "w": 9}]}},
    {"author": {"role": "agent", "name": "Al"}, "body": {"text": "A gate.", "shots": []}},
]
WITHIN = {
    "turns": "thread",
    "speaker": "author.role",
    "said": "body.text",
    "speakers": {"client": "user", "agent": "assistant"},
}


def test_images_that_lie_in_one_object_with_what_is_said_are_read(tmp_path):
    path = json_lines(tmp_path / "a.jsonl", [{"thread": THREAD}])
    (row,) = read(path, **WITHIN, turn_image="body.shots.file")
    assert texts(row) == [("user", 0, None), ("user", 0, "What?"), ("assistant", 0, "A gate.")]
    assert [picture.path for picture in row.pages[0].pictures] == ["a.png"]
    assert row.pages[0].unread == ("message.author.name", "message.body.shots.w")


@pytest.mark.parametrize("text", [{}, {"text": None}, {"text": ""}])
def test_a_turn_of_images_alone_needs_no_text(tmp_path, text):
    thread = [{"author": {"role": "client"}, "body": {**text, "shots": [{"file": "a.png"}]}}, THREAD[1]]
    (row,) = read(json_lines(tmp_path / "a.jsonl", [{"thread": thread}]), **WITHIN, turn_image="body.shots.file")
    assert texts(row) == [("user", 0, None), ("assistant", 0, "A gate.")]
    bare = [{"author": {"role": "client"}, "body": text}, THREAD[1]]
    (row,) = read(json_lines(tmp_path / "b.jsonl", [{"thread": bare}]), **WITHIN, turn_image="body.shots.file")
    assert [found for found, _ in row.failed] == [Reason.BAD_ROW]


@pytest.mark.parametrize(
    ("beside", "reason"),
    [
        ({"photo": "b.png"}, Reason.UNSUPPORTED_MEDIA),
        ({"shots": [{"file": "b.png", "w": 9}]}, Reason.UNSUPPORTED_MEDIA),
        ({"video": "b.mp4"}, Reason.UNSUPPORTED_MEDIA),
        ({"tool_calls": [{"name": "search"}]}, Reason.UNSUPPORTED_CONTENT),
    ],
)
def test_what_carries_meaning_beside_dotted_keys_of_a_turn_loses_the_row(tmp_path, beside, reason):
    thread = [{**turn, "body": {"text": turn["body"]["text"], **beside}} for turn in THREAD]
    (row,) = read(json_lines(tmp_path / "a.jsonl", [{"thread": thread}]), **WITHIN)
    assert [found for found, _ in row.failed] == [reason]
    assert "within body" in details(row)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"question": "q", "answer": "a", "speaker": "by"}, "are about turns: name their column"),
        ({"turns": "t", "image": "i", "turn_image": "files"}, "name one"),
        ({"turns": "t", "speakers": {"client": "usr"}}, "usr"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        parse_block(SOURCES["table"], options, "options")


def test_names_of_speakers_do_not_depend_on_their_order(tmp_path):
    path = json_lines(tmp_path / "a.jsonl", [ROW])
    found = [
        read(path, **{**OPTIONS, "speakers": dict(order)})
        for order in itertools.permutations(SPOKEN["speakers"].items())
    ]
    assert found[0] == found[1]


PARTS = [
    {"type": "text", "text": "Before", "alt": None, "url": None},
    {"type": "image", "text": None, "alt": "a gate", "url": "https://img.test/1.png"},
    {"type": "text", "text": "After", "alt": None, "url": None},
]
DOCUMENTS = {
    "jsonl": lambda folder, row: json_lines(folder / "a.jsonl", [row]),
    "parquet": lambda folder, row: parquet(folder / "a.parquet", [row]),
    "arrow": lambda folder, row: arrow(folder / "a.arrow", [row]),
}


@pytest.mark.parametrize("form", DOCUMENTS)
def test_a_document_may_be_one_list_of_objects(tmp_path, form):
    path = DOCUMENTS[form](tmp_path, {"page": {"parts": PARTS}, "url": "https://web.test/"})
    (row,) = read(path, kind="web_documents", images="page.parts.url", texts="page.parts.text")
    (page,) = row.pages
    assert [node.text or node.url for node in page.nodes] == ["Before", "https://img.test/1.png", "After"]
    assert (page.url, page.unread) == ("https://web.test/", ("page.parts.alt", "page.parts.type"))
    with pytest.raises(BadFileError, match="bits"):
        read(path, kind="web_documents", images="bits.url", texts="bits.text")


BASE64 = base64.b64encode(picture(0)).decode()
BLOCKS = [
    {"type": "text", "text": "Some words here."},
    {"type": "image", "path": "a.png", "alt": "a gate"},
    {"type": "line", "style": "dotted"},
]


def read_blocks(folder, blocks, images="blocks.path", texts="blocks.text"):
    options = {"kind": "file_documents", "images": images, "texts": texts}
    (row,) = read(json_lines(folder / "a.jsonl", [{"blocks": blocks}]), **options)
    return row


@pytest.mark.parametrize(
    ("blocks", "images", "texts", "reason", "detail"),
    [
        (
            BLOCKS,
            "blocks.pth",
            "blocks.text",
            Reason.UNSUPPORTED_MEDIA,
            "part 1 of blocks has no pth: did you mean",
        ),
        (
            BLOCKS,
            "blocks.path",
            "blocks.txt",
            Reason.BAD_ROW,
            "part 0 of blocks has no txt: did you mean 'text'?",
        ),
        (
            [*BLOCKS, {"type": "image", "data": BASE64}],
            "blocks.path",
            "blocks.text",
            Reason.UNSUPPORTED_MEDIA,
            "part 3 of blocks has no path: it has type, data; the option images may name several keys",
        ),
        (
            [*BLOCKS, {"type": "photo", "where": "https://img.test/7"}],
            "blocks.path",
            "blocks.text",
            Reason.UNSUPPORTED_MEDIA,
            "part 3 of blocks has no path: it has type, where",
        ),
        (
            ["Words without an object.", *BLOCKS],
            "blocks.path",
            "blocks.text",
            Reason.BAD_ROW,
            "item 0 of blocks is str, expected an object with path or text: Words without an object.",
        ),
        (
            ["Words alone.", "And more."],
            "blocks.path",
            "blocks.text",
            Reason.BAD_ROW,
            "item 0 of blocks is str, expected an object with path or text: Words alone.",
        ),
        (
            [*BLOCKS, {"type": "text", "body": "Words under another key."}],
            "blocks.path",
            "blocks.text",
            Reason.BAD_ROW,
            "part 3 of blocks has no text: it has type, body",
        ),
        (
            [*BLOCKS, {"txt": "Words under a misspelt key."}],
            "blocks.path",
            "blocks.text",
            Reason.BAD_ROW,
            "part 3 of blocks has no text: did you mean 'txt'? it has txt",
        ),
        (
            [*BLOCKS, {"figure": "b.png"}],
            ["blocks.path", "blocks.data"],
            "blocks.text",
            Reason.UNSUPPORTED_MEDIA,
            "part 3 of blocks has no path or data: it has figure",
        ),
        (
            [{"text": "Words."}, {"image": {"src": "a.png"}}],
            "blocks.image.scr",
            "blocks.text",
            Reason.UNSUPPORTED_MEDIA,
            "part 0 of blocks.image has no scr: did you mean 'src'?",
        ),
    ],
)
def test_a_part_whose_image_or_words_would_be_lost_in_silence_fails_its_row(
    tmp_path, blocks, images, texts, reason, detail
):
    ((found, said),) = read_blocks(tmp_path, blocks, images, texts).failed
    assert (found, said[: len(detail)]) == (reason, detail)


def test_a_part_of_another_form_is_noted_and_several_keys_may_hold_images(tmp_path):
    (page,) = read_blocks(tmp_path, BLOCKS).pages
    assert page.unread == ("blocks.alt", "blocks.style", "blocks.type")
    dropped = [*BLOCKS, {"type": "image", "path": None, "alt": "gone"}, {"type": "text", "text": " "}]
    assert len(read_blocks(tmp_path, dropped).pages[0].pictures) == 1
    names = ["blocks.data", "blocks.path"]
    (page,) = read_blocks(tmp_path, [*BLOCKS, {"type": "image", "data": BASE64}], names).pages
    assert [one.path or len(one.data) for one in page.pictures] == ["a.png", len(picture(0))]
    (page,) = read_blocks(tmp_path, BLOCKS, names).pages
    assert [one.path for one in page.pictures] == ["a.png"]


def test_several_lists_of_images_are_as_long_as_each_other_and_one_at_least_is_named(tmp_path):
    options = {"kind": "file_documents", "images": ["one", "two"]}
    rows = [
        {"texts": [None, "Words.", None], "one": ["a.png", None, None], "two": [None, None, "b.png"]},
        {"texts": [None, "Words."], "two": ["b.png", None]},
        {"texts": [None, "Words."], "one": ["a.png", None], "two": ["b.png"]},
    ]
    both, second, uneven = read(json_lines(tmp_path / "a.jsonl", rows), **options)
    assert [one.path for row in (both, second) for one in row.pages[0].pictures] == ["a.png", "b.png", "b.png"]
    assert uneven.failed == ((Reason.BAD_ROW, "2 one beside 1 two"),)
    with pytest.raises(RecipeError, match="images names no column"):
        parse_block(SOURCES["file_documents"], {"images": []}, "options")


def test_base64_of_something_else_is_no_path(tmp_path):
    html = base64.b64encode(b"<html><body>" + bytes(range(256)) + b"</body></html>").decode()
    (row,) = read_blocks(tmp_path, [BLOCKS[0], {"type": "image", "data": html}], "blocks.data").pages
    assert row.pictures[0].path is None
    assert row.pictures[0].data[:6] == b"<html>"
