"""Sources in JSON: where rows lie in the file, what conversations become, and files that rows name."""

import base64
import bz2
import contextlib
import gzip
import json
import lzma
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.helpers import upstream
from tests.helpers.upstream import json_array, json_lines, talk
from vlmill.pipeline.core.errors import BadFileError, SourceError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node, read_rows, read_samples
from vlmill.pipeline.sources import SOURCES, conversation
from vlmill.pipeline.sources.base import UnreadableRow
from vlmill.pipeline.sources.chat import Chat
from vlmill.pipeline.sources.llava import LlavaSource
from vlmill.pipeline.sources.pairs import PairsSource
from vlmill.pipeline.steps.read import Read
from vlmill.pipeline.steps.row_sample import RowRange

GOOD = {"conversations": talk("Q", "A")}


def rows(source, path, start=0, stop=None):
    return list(source.rows(path, range(start, len(source.survey(path)) if stop is None else stop)))


def fates(source, path):
    return [[reason for reason, _ in row.failed] for row in rows(source, path)]


def beside(*paths):
    return [conversation.read_picture("image", path) for path in paths]


# -- where rows lie --------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["[", "]", "{", "}", ",", '"', "\\", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=9,
)


@settings(max_examples=150, deadline=None)
@given(
    extra=st.lists(VALUES, min_size=1, max_size=6),
    form=st.sampled_from(["array", "indented", "lines", "lines with a mark and carriage returns"]),
)
@example(extra=[{"": []}], form="array")
@example(extra=['\\"', "\\", '["\\'], form="array")
def test_rows_are_found_whatever_stands_in_them_and_however_it_is_written(tmp_path_factory, extra, form):
    path = tmp_path_factory.mktemp("json") / "rows"
    there = [{"extra": value, "conversations": talk(f"{row}?", "A")} for row, value in enumerate(extra)]
    if form.startswith("lines"):
        end, begin = ("\r\n\n", b"\xef\xbb\xbf") if "mark" in form else ("\n", b"")
        path.write_bytes(begin + "".join(json.dumps(row) + end for row in there).encode())
    else:
        path.write_text(json.dumps(there, indent=1 if form == "indented" else None))
    found = rows(Chat(), path)
    assert [row.pages[0].nodes[0].text for row in found] == [f"{row}?" for row in range(len(extra))]
    assert rows(Chat(), path, 1) == found[1:]


@settings(max_examples=150, deadline=None)
@given(form=st.sampled_from([json_array, json_lines]), data=st.data())
def test_damage_ends_in_rows_or_in_an_error_of_the_source_and_in_nothing_else(tmp_path_factory, form, data):
    path = form(tmp_path_factory.mktemp("json") / "rows", [GOOD, {"conversations": talk("<image>", "[{")}, GOOD])
    damaged = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=4)):
        damaged[place] = data.draw(st.sampled_from(b'"{}[],\\\n\xff') | st.integers(0, 255))
    path.write_bytes(damaged)
    with contextlib.suppress(SourceError):
        found = rows(Chat(), path)
        assert [row.row for row in found] == list(range(len(found)))


@pytest.mark.parametrize(("pack", "kind"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_a_packed_file_is_to_be_unpacked(pack, kind, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(pack(b'{"image": "a", "caption": "b"}\n' * 9))
    with pytest.raises(BadFileError, match=rf"it is packed \({kind}\): unpack it"):
        SOURCES["web_table"](image="image", caption="caption").survey(tmp_path / "rows.jsonl")


def test_one_broken_line_is_one_bad_row_and_one_broken_element_as_well(tmp_path):
    broken = b'{"conversations": [{"from": "human"'
    assert fates(Chat(), json_lines(tmp_path / "l", [broken, GOOD, b"\xff", b"7", GOOD])) == [
        [Reason.BAD_ROW],
        [],
        [Reason.BAD_ROW],
        [Reason.BAD_ROW],
        [],
    ]
    whole = json.dumps(GOOD)
    (tmp_path / "a").write_text(f'[{whole}, {{"conversations": nonsense}}, {whole}, 7]')
    assert fates(Chat(), tmp_path / "a") == [[], [Reason.BAD_ROW], [], [Reason.BAD_ROW]]


def test_the_survey_gives_the_bytes_of_each_row(tmp_path):
    size = len(json.dumps(GOOD))
    assert Chat().survey(json_lines(tmp_path / "l", [GOOD, GOOD])) == [size, size]
    assert Chat().survey(json_array(tmp_path / "a", [GOOD, GOOD], separators=(", ", ": "))) == [size, size + 1]


@pytest.mark.parametrize("content", ["[]", " [ ] \n", "", "\n\n"])
def test_nothing_is_no_row(tmp_path, content):
    (tmp_path / "a").write_text(content)
    assert Chat().survey(tmp_path / "a") == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps([GOOD, GOOD])[:-20], "the array has no end; the file stops within row 1"),
        (json.dumps([GOOD]) + json.dumps([GOOD]), "something follows the end of the array"),
        ("not even quoted", "expected a JSON array of objects, or an object per line"),
        ("[" * 100_000, "the array has no end"),
        ('["a", 1]', "expected a JSON array"),
        (json.dumps({"data": [GOOD]}, indent=1), "expected a JSON array"),
    ],
)
def test_what_is_no_json_of_rows_is_an_error_that_says_what_was_expected(tmp_path, content, said):
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(SourceError, match=rf"rows\.json: {said}"):
        Chat().survey(tmp_path / "rows.json")


# -- conversations ---------------------------------------------------------------------------------------------------


def test_a_system_prompt_a_question_and_its_answer_and_the_next():
    said = [{"from": "system", "value": "Be brief."}, *talk("What?", "This.", "Where?", "There.")]
    assert conversation.read_text_page(said).nodes == (
        Node("text", "system", 0, text="Be brief."),
        Node("text", "user", 0, text="What?"),
        Node("text", "assistant", 0, supervised=True, text="This."),
        Node("text", "user", 1, text="Where?"),
        Node("text", "assistant", 1, supervised=True, text="There."),
    )


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("<image>\nWhat?", ["a", "What?"]),
        ("What?\n<image>", ["What?", "a"]),
        ("In <image> what?", ["In ", "a", " what?"]),
        ("<image>", ["a"]),
    ],
)
def test_an_image_stands_where_its_mark_does(text, nodes):
    made = conversation.read_marked_page(talk(text, "A"), beside("a")).nodes
    assert [node.text if node.kind == "text" else node.url for node in made[:-1]] == nodes
    assert {(node.role, node.turn) for node in made[:-1]} == {("user", 0)}


def test_images_of_later_turns_belong_to_them():
    made = conversation.read_marked_page(talk("<image>Q", "A", "<image><image>Q", "A"), beside("a", "b", "c")).nodes
    assert [(node.turn, node.image, node.url) for node in made if node.kind == "image"] == [
        (0, 0, "a"),
        (1, 1, "b"),
        (1, 2, "c"),
    ]


def test_messages_of_one_speaker_in_a_row_are_one_with_a_line_break_between_their_texts():
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "What is\n<image>"},
        {"role": "user", "content": "<image>"},
        {"role": "user", "content": "Answer.\n"},
        {"role": "user", "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "all."}]},
        {"role": "assistant", "content": "Let me see.", "weight": 0},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes."},
    ]
    assert [
        (node.turn, node.role, node.text if node.kind == "text" else node.url, node.supervised)
        for node in conversation.read_marked_page(said, beside("a", "b")).nodes
    ] == [
        (0, "system", "Be brief.", False),
        (0, "system", "\nBe kind.", False),
        (0, "user", "What is", False),
        (0, "user", "a", False),
        (0, "user", "b", False),
        (0, "user", "Answer.\n", False),
        (0, "user", "Say ", False),
        (0, "user", "all.", False),
        (0, "assistant", "Let me see.", False),
        (0, "assistant", "\nA cat.", True),
        (1, "user", "Sure?", False),
        (1, "assistant", "Yes.", True),
    ]
    texts = conversation.read_text_page([*talk("Q"), *talk("R", "A"), *talk("Q", "B")[1:]]).nodes
    assert [(node.turn, node.role, node.text) for node in texts] == [
        (0, "user", "Q"),
        (0, "user", "\nR"),
        (0, "assistant", "A"),
        (0, "assistant", "\nB"),
    ]


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        (talk("<image><image>Q", "A"), "2 times <image> for 1 images"),
        (talk("Q", "A"), "0 times <image> for 1 images"),
        (talk("<image>", "A", "Q"), "the last question has no answer"),
        (talk("<image>", "A")[::-1], "message 0 is out of order: assistant after nothing"),
        (
            [*talk("<image>", "A"), {"from": "system", "value": "S"}],
            "message 2 is out of order: system after assistant",
        ),
        (talk("<image>", " "), "message 1 of assistant is empty"),
        (talk("<image>", "A", "\n", "A"), "message 2 of user is empty"),
        ([*talk("<image>", "A"), {"from": "gpt", "value": " "}], "message 2 of assistant is empty"),
        (
            [{"from": "system", "value": "S"}, {"from": "gpt", "value": "A"}],
            "message 1 is out of order: assistant after system",
        ),
        (talk("<image>", None), "message 1 of gpt has no text"),
        ([{"from": "tool", "value": "<image>"}], "message 0 is spoken by 'tool'; known are human"),
        ([{"value": "<image>"}], "message 0 is spoken by None"),
        ([{"from": ["human"], "value": "<image>"}], "message 0 is spoken by"),
        ([{"from": "system", "value": "S"}], "nobody asks anything"),
        (["<image>"], "message 0 is str, expected from and value"),
        ("<image>", "its turns are a text that is no list in JSON: '<image>', expected a list"),
        ([], "no turns"),
        (None, "no turns"),
    ],
)
def test_turns_that_make_no_conversation_are_refused_in_words(said, detail):
    with pytest.raises(UnreadableRow, match=detail) as refused:
        conversation.read_marked_page(said, beside("a"))
    if detail == "no turns":
        assert refused.value.reason == Reason.EMPTY_ROW


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["human", "gpt", "system", "tool"]),
            st.sampled_from(["", " ", "a", "<image>", "a<image>\nb"]),
        )
    )
)
def test_a_conversation_that_is_accepted_asks_and_answers_by_turns(said):
    messages = [{"from": speaker, "value": text} for speaker, text in said]
    marks = sum(text.count("<image>") for _, text in said)
    with contextlib.suppress(UnreadableRow):
        made = conversation.read_marked_page(messages, beside(*map(str, range(marks)))).nodes
        assert [node.image for node in made if node.kind == "image"] == list(range(marks))
        runs = [(node.turn, node.role) for node in made if node.role != "system"]
        runs = list(dict.fromkeys(runs))
        assert runs == [(place // 2, ("user", "assistant")[place % 2]) for place in range(len(runs))]
        assert runs[-1][1] == "assistant"


def test_in_chat_the_mark_of_an_image_is_a_word(tmp_path):
    said = [
        {"role": "user", "content": "What does <image> mean in HTML?"},
        {"role": "assistant", "content": "Nothing."},
    ]
    (row,) = rows(Chat(), json_lines(tmp_path / "c", [{"messages": said}]))
    assert row.pages[0].nodes[0].text == "What does <image> mean in HTML?"
    assert not row.pages[0].pictures


# -- what rows say beyond their turns
# ------------------------------------------------------------------------------------

A = {"role": "assistant", "content": "A"}


def asked(content, **more):
    return {"messages": [{"role": "user", "content": content}, A], **more}


def texts(page):
    return [(node.role, node.text) for node in page.nodes if node.kind == "text"]


def places(page):
    """The texts of a page, and the paths of its pictures, in their order."""
    return [node.text if node.kind == "text" else page.pictures[node.image].path for node in page.nodes]


@pytest.mark.parametrize("source", [LlavaSource(), Chat()])
@pytest.mark.parametrize("key", ["system", "system_prompt"])
def test_a_system_prompt_beside_the_turns_is_said_first_once(tmp_path, source, key):
    prompt = {"from": "system", "value": "Be brief."}
    there = [
        {**GOOD, key: "Be brief."},
        {"conversations": [prompt, *GOOD["conversations"]], key: "Be brief."},
        {"conversations": [{**prompt, "value": ""}, *GOOD["conversations"]], key: "Be brief."},
        {**GOOD, "system": "Be brief.", "system_prompt": "Be brief."},
        {**GOOD, key: " "},
        {"conversations": [prompt, *GOOD["conversations"]], key: "Be long."},
        {**GOOD, "system": "Be brief.", "system_prompt": "Be long."},
    ]
    *said, none, other, two = rows(source, json_lines(tmp_path / "l", there))
    assert [texts(row.pages[0])[0] for row in said] == [("system", "Be brief.")] * 4
    assert [len(row.pages[0].nodes) for row in said] == [3] * 4
    assert texts(none.pages[0])[0] == ("user", "Q")
    assert fates(source, tmp_path / "l")[5:] == [[Reason.UNSUPPORTED_CONTENT]] * 2
    assert "another among them" in other.failed[0][1]
    assert "say different things" in two.failed[0][1]


@pytest.mark.parametrize("key", ["loss", "weight", "train", "training", "trainable", "loss_weight", "loss_mask"])
def test_an_answer_that_is_marked_as_not_to_be_supervised_is_not(tmp_path, key):
    def marked(*values):
        first, second, third, fourth = talk("Q", "Five.", "Again?", "Four.")
        return {"conversations": [first, {**second, key: values[0]}, third, {**fourth, key: values[1]}]}

    there = [marked(False, True), marked(0, 1), marked(0.0, 1.0), marked(None, None), marked(0, None)]
    path = json_lines(tmp_path / "l", [*there, marked(0.5, 1), marked("no", 1), marked(0, 0)])
    supervised = [
        [node.supervised for node in row.pages[0].nodes if node.role == "assistant"] for row in rows(Chat(), path)[:5]
    ]
    assert supervised == [[False, True], [False, True], [False, True], [True, True], [False, True]]
    assert fates(Chat(), path)[5:] == [[Reason.UNSUPPORTED_CONTENT]] * 2 + [[Reason.EMPTY_ROW]]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"tool_calls": [{"name": "weather"}]}, Reason.UNSUPPORTED_CONTENT),
        ({"tool_calls": [{"name": "weather"}], "content": None}, Reason.UNSUPPORTED_CONTENT),
        ({"function_call": {"name": "weather"}}, Reason.UNSUPPORTED_CONTENT),
        ({"reasoning_content": "Hm."}, Reason.UNSUPPORTED_CONTENT),
        ({"thinking": "Hm."}, Reason.UNSUPPORTED_CONTENT),
        ({"refusal": "No."}, Reason.UNSUPPORTED_CONTENT),
        ({"train_detail": [{"begin_offset": 0, "train": False}]}, Reason.UNSUPPORTED_CONTENT),
        ({"mask": True}, Reason.UNSUPPORTED_CONTENT),
        ({"images": ["a.png"]}, Reason.UNSUPPORTED_MEDIA),
        ({"audio": {"id": "a"}}, Reason.UNSUPPORTED_MEDIA),
        ({"value": "B"}, Reason.UNSUPPORTED_CONTENT),
        ({"from": "human"}, Reason.BAD_ROW),
        ({"role": "tool"}, Reason.UNSUPPORTED_CONTENT),
        ({"role": "function_call"}, Reason.UNSUPPORTED_CONTENT),
        ({"role": "observation"}, Reason.UNSUPPORTED_CONTENT),
        ({"tool_calls": [], "function_call": None, "refusal": "", "images": [], "value": None, "from": None}, None),
    ],
)
@pytest.mark.parametrize("source", [LlavaSource(), Chat()])
def test_a_message_that_says_more_than_its_text_fails_unless_that_is_nothing(tmp_path, source, more, reason):
    row = {"messages": [{"role": "user", "content": "Q"}, {**A, **more}]}
    assert fates(source, json_lines(tmp_path / "l", [row])) == [[reason] if reason else []]


def test_a_question_that_is_to_be_supervised_is_refused(tmp_path):
    said = [{"role": "user", "content": "Q", "train": True}, A]
    assert fates(Chat(), json_lines(tmp_path / "l", [{"messages": said}])) == [[Reason.UNSUPPORTED_CONTENT]]


def test_keys_of_messages_that_mean_nothing_known_are_noted(tmp_path):
    said = [{"role": "user", "content": "Q", "name": "Ann", "id": 1}, {**A, "score": 3, "comment": ""}]
    (row,) = rows(Chat(), json_lines(tmp_path / "l", [{"messages": said, "topic": "cups", "id": 7, "none": None}]))
    assert row.pages[0].unread == ("message.name", "message.score", "topic")


@pytest.mark.parametrize(
    "image",
    [
        {"type": "image", "image": "a.png"},
        {"type": "image", "path": "a.png"},
        {"type": "image", "image": {"path": "a.png", "bytes": None}},
        {"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}},
        {"type": "image_url", "image_url": "a.png"},
        {"type": "input_image", "image_url": "a.png"},
        {"image": "a.png"},
        {"type": "image", "image": "a.png", "text": None, "video": None},
    ],
)
def test_a_part_shows_the_picture_that_it_names(tmp_path, image):
    parts = [{"type": "text", "text": "Is "}, image, {"type": "text", "text": "red?"}]
    (row,) = rows(LlavaSource(), json_lines(tmp_path / "l", [asked(parts)]))
    assert places(row.pages[0]) == ["Is ", "a.png", "red?", "A"]


def test_parts_that_name_no_picture_and_marks_show_those_beside_in_their_order(tmp_path):
    shown = {"type": "image"}
    there = [
        asked([shown, shown, {"type": "text", "text": "Q"}], images=["a.png", "b.png"]),
        asked([{**shown, "index": 0}, {"type": "text", "text": "Q", "index": None}], images=["a.png"]),
        asked([{"type": "text", "text": "<image>Q"}, {**shown, "image": "c.png"}, shown], images=["a.png", "b.png"]),
        asked("<image>Q<image>", images=["a.png", "b.png"]),
        asked([shown, shown], images=["a.png"]),
        asked([shown], images=["a.png", "b.png"]),
        asked([{**shown, "index": 1}, {**shown, "index": 0}], images=["a.png", "b.png"]),
    ]
    *good, _, _, _ = rows(LlavaSource(), json_lines(tmp_path / "l", there))
    assert [places(row.pages[0]) for row in good] == [
        ["a.png", "b.png", "Q", "A"],
        ["a.png", "Q", "A"],
        ["a.png", "Q", "c.png", "b.png", "A"],
        ["a.png", "Q", "b.png", "A"],
    ]
    assert fates(LlavaSource(), tmp_path / "l")[4:] == [[Reason.BAD_ROW]] * 3


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"type": "video", "video": "a"}, Reason.UNSUPPORTED_MEDIA),
        ({"video": "a"}, Reason.UNSUPPORTED_MEDIA),
        ({"type": "video_url", "video_url": {"url": "a"}}, Reason.UNSUPPORTED_MEDIA),
        ({"type": "audio", "audio": "a"}, Reason.UNSUPPORTED_MEDIA),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, Reason.UNSUPPORTED_MEDIA),
        ({"type": "image", "image": "a.mp4"}, Reason.UNSUPPORTED_MEDIA),
        ({"type": "image_url", "image_url": {"url": "https://img.test/a.png"}}, Reason.UNSUPPORTED_MEDIA),
        ({"type": "file", "file": {"file_id": "a"}}, Reason.UNSUPPORTED_CONTENT),
        ({"type": "tool_use", "name": "weather"}, Reason.UNSUPPORTED_CONTENT),
        ({"type": "thinking", "thinking": "Hm."}, Reason.UNSUPPORTED_CONTENT),
        ({"type": "text"}, Reason.BAD_ROW),
        (7, Reason.BAD_ROW),
    ],
)
def test_a_part_that_cannot_be_read_fails_its_row(tmp_path, part, reason):
    there = [asked([{"type": "text", "text": "Q"}, part])]
    assert fates(LlavaSource(), json_lines(tmp_path / "l", there)) == [[reason]]


def test_a_picture_may_be_written_into_its_row(tmp_path):
    data = upstream.picture()
    written = base64.b64encode(data).decode()
    there = [
        about(f"data:image/png;base64,{written}"),
        asked([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{written}"}}]),
        asked([{"type": "image", "base64": written}]),
        asked([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": written}}]),
        about("data:image/png;base64,!"),
    ]
    *good, bad = rows(LlavaSource(), json_lines(tmp_path / "l", there))
    assert [row.pages[0].pictures[0].data for row in good] == [data] * 4
    assert bad.pages[0].pictures[0].reason is Reason.UNDECODABLE


def test_chat_refuses_what_shows_pictures_and_reads_texts_in_parts(tmp_path):
    there = [
        asked([{"type": "text", "text": "Q"}, "R"]),
        asked([{"type": "image", "image": "a.png"}, {"type": "text", "text": "Q"}]),
        asked("<image>Q", images=["a.png"]),
        asked("<image>Q", image_path="a"),
        asked("Q", file="a.png"),
        asked("Q", clip="a.mp4"),
    ]
    assert texts(rows(Chat(), json_lines(tmp_path / "l", there))[0].pages[0]) == [
        ("user", "Q"),
        ("user", "R"),
        ("assistant", "A"),
    ]
    assert fates(Chat(), tmp_path / "l")[1:] == [[Reason.UNSUPPORTED_MEDIA]] * 5


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("<video>\nWhat does she do?", Reason.UNSUPPORTED_MEDIA),
        ("What is said?\n<audio>", Reason.UNSUPPORTED_MEDIA),
        ("<audio>What is said?", Reason.UNSUPPORTED_MEDIA),
        ("What does <video> mean in HTML?", None),
        ("<video>\n<source src='a'>\n</video>\nWhat is wrong?", None),
    ],
)
def test_a_question_that_marks_a_video_or_a_sound_is_refused_where_marks_stand_for_things(tmp_path, question, reason):
    assert fates(LlavaSource(), json_lines(tmp_path / "l", [asked(question)])) == [[reason] if reason else []]


def test_a_null_or_nothing_beside_the_used_key_is_no_value(tmp_path):
    there = [
        {"conversations": None, "messages": asked("Q")["messages"]},
        {"conversations": [], "messages": asked("Q")["messages"]},
        {"conversations": talk("Q", "A"), "messages": None},
        {"conversations": [{**said, "role": None, "content": None} for said in talk("Q", "A")]},
        {"conversations": [{**said, "from": None, "value": None} for said in asked("Q")["messages"]]},
        {"conversations": talk("Q", "A"), "messages": asked("Q")["messages"]},
    ]
    path = json_lines(tmp_path / "l", [*there, {"conversations": talk("Q", "B"), "messages": asked("Q")["messages"]}])
    for source in (Chat(), LlavaSource()):
        *good, two = rows(source, path)
        assert [texts(row.pages[0]) for row in good] == [[("user", "Q"), ("assistant", "A")]] * 6
        assert two.failed[0][0] is Reason.UNSUPPORTED_CONTENT
    pictures = [
        {**about(None), "images": ["a.png"]},
        {**about("a.png"), "images": None},
        {**about("a.png"), "images": []},
        {**about("a.png"), "images": ["a.png"], "image_url": "http://img.test/a.png"},
        {**about("a.png"), "images": ["b.png"]},
    ]
    *good, two = rows(LlavaSource(), json_lines(tmp_path / "p", pictures))
    assert [places(row.pages[0]) for row in good] == [["a.png", "Q", "A"]] * 4
    assert two.failed[0][0] is Reason.UNSUPPORTED_MEDIA


@pytest.mark.parametrize("speaker", ["GPT", "bot", "model", "bing", "Assistant"])
def test_speakers_are_known_by_the_names_that_sets_give_them(tmp_path, speaker):
    said = [{"from": "Human", "value": "Q"}, {"from": speaker, "value": "A"}]
    (row,) = rows(Chat(), json_lines(tmp_path / "l", [{"conversations": said}]))
    assert texts(row.pages[0]) == [("user", "Q"), ("assistant", "A")]


# -- files that rows name --------------------------------------------------------------------------------------------


@pytest.fixture
def read(tmp_path):
    """Read LLaVA rows with the images in a folder; gives the samples, the images and the books."""

    def run(there, images=None):
        folder = tmp_path / "out"
        folder.mkdir()
        path = json_array(tmp_path / "rows.json", there)
        step = Read(LlavaSource(), "tune", (RowRange("rows.json", 0, len(there)),), images=images or str(tmp_path))
        counts = step.run({"input-0": path}, folder)
        return (
            list(read_samples(folder / "samples.parquet")),
            list(read_rows(folder / "images.parquet")),
            counts["rows"].to_json(),
        )

    return run


def about(image, marks=1):
    return {"id": "same", "image": image, "conversations": talk("<image>" * marks + "Q", "A")}


def test_one_image_a_list_of_them_or_none(read, tmp_path):
    (tmp_path / "coco").mkdir()
    pictures = [upstream.picture(seed) for seed in range(2)]
    for seed, data in enumerate(pictures):
        (tmp_path / f"coco/{seed}.png").write_bytes(data)
    there = [
        about("coco/0.png"),
        about(["coco/1.png", "coco/0.png"], 2),
        GOOD,
        {"images": [], **GOOD},
        {"image": "", **GOOD},
    ]
    samples, images, books = read(there)
    assert [image["bytes"] for image in images] == pictures
    assert [[node.image for node in sample.nodes if node.kind == "image"] for sample in samples] == [
        [0],
        [1, 0],
        [],
        [],
        [],
    ]
    assert samples[0].nodes[0].url == "coco/0.png"
    assert books["kept"] == 5


def test_a_file_that_is_not_there_is_a_failed_image_and_so_is_a_path_out_of_the_folder(read, tmp_path):
    (tmp_path / "images/folder").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(upstream.picture())
    paths = [
        "gone.png",
        "folder",
        "a\0b",
        "x" * 5_000,
        "../secret.png",
        str(tmp_path / "secret.png"),
        "file:///etc/passwd",
    ]
    samples, images, _ = read([about(path) for path in paths], str(tmp_path / "images"))
    assert len(samples) == 7
    assert [image["reason"] for image in images] == ["missing_file"] * 2 + ["forbidden_address"] + ["missing_file"] + [
        "forbidden_address"
    ] * 3
    assert not any(image["bytes"] for image in images)
    assert str(tmp_path) not in images[0]["detail"]


def test_paths_lead_to_an_image_by_whatever_name_the_folder_has(read, tmp_path):
    folder = tmp_path / "folder"
    (folder / "coco").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    (folder / "coco/0.png").write_bytes(upstream.picture())
    paths = [
        "coco/../coco/0.png",
        str(folder / "coco/0.png"),
        f"file://{folder}/coco/0.png",
        str(tmp_path / "link/coco/0.png"),
        "../folder/coco/0.png",
        str(folder / "gone.png"),
        f"{folder}/../other.png",
        f"{folder}s/0.png",
    ]
    _, images, books = read([about(path) for path in paths], str(folder))
    assert books["kept"] == len(paths)
    assert [(image["bytes"] is not None, image["reason"]) for image in images] == [
        (True, None),
        (False, "missing_file"),
        (False, "forbidden_address"),
        (False, "forbidden_address"),
    ]


def test_an_address_that_holds_its_image_is_read_and_not_kept_as_an_address(read, tmp_path):
    data = upstream.picture()
    text = base64.b64encode(data).decode()
    folded = "\n".join(text[at : at + 60] for at in range(0, len(text), 60))
    there = [f"data:image/png;base64,{text}", f"DATA:image/png;BASE64,{folded}", "data:image/png;base64,?", "data:,"]
    samples, images, _ = read([about(uri) for uri in there])
    assert [(image["bytes"], image["url"], image["reason"]) for image in images] == [
        (data, None, None),
        (None, None, "undecodable"),
        (None, None, "undecodable"),
    ]
    assert [node.image for sample in samples for node in sample.nodes if node.kind == "image"] == [0, 0, 1, 2]


def test_an_address_that_holds_its_image_is_read_where_other_sources_name_images(tmp_path):
    data, out = upstream.picture(), tmp_path / "out"
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"url": [uri], "caption": ["Reeds by the river."]}), path)
    out.mkdir()
    Read(PairsSource(), "web", (RowRange("pairs.parquet", 0, 1),)).run({"input-0": path}, out)
    (image,) = read_rows(out / "images.parquet")
    assert (image["bytes"], image["url"]) == (data, None)
    (sample,) = read_samples(out / "samples.parquet")
    assert [node.url for node in sample.nodes if node.kind == "image"] == [None]


def test_images_may_lie_in_an_archive(read, tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("coco/0.png", upstream.picture())
    _, images, _ = read([about("coco/0.png"), about("coco/1.png")], f"zip://::{tmp_path}/images.zip")
    assert [(image["bytes"] is None, image["reason"]) for image in images] == [(False, None), (True, "missing_file")]


def test_a_folder_that_is_not_there_is_an_error_that_says_how_to_name_it(read, tmp_path):
    with pytest.raises(SourceError, match=r"nowhere is not there; say where it is with --set"):
        read([about("0.png")], str(tmp_path / "nowhere"))


def test_an_image_that_is_no_path_is_a_bad_row(tmp_path):
    there = [about(path) for path in (7, [None], [" "], {"bytes": "x"})]
    assert fates(LlavaSource(), json_array(tmp_path / "a", there)) == [[Reason.BAD_ROW]] * 4


def test_reading_files_that_rows_name_is_not_pure_and_their_place_is_in_no_key():
    from vlmill.pipeline.core.keys import canonicalise_value

    here, there = (Read(LlavaSource(), "tune", (RowRange("a", 0, 1),), images=place) for place in ("/here", "/there"))
    assert not here.pure
    assert canonicalise_value(here) == canonicalise_value(there)
