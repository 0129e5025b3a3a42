"""Sources in JSON: where rows lie in the file, what conversations become, and files that rows name."""

import contextlib
import json
import zipfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.read import Read
from pipeline.reasons import Reason
from pipeline.sample import Node, read_rows, read_samples
from pipeline.sources import conversation
from pipeline.sources.chat import Chat
from pipeline.sources.llava import Llava
from pipeline.sources.source import Unfit
from tests import upstream
from tests.upstream import json_array, json_lines, talk

GOOD = {"conversations": talk("Q", "A")}


def rows(source, path, start=0, stop=None):
    return list(source.rows(path, start, len(source.survey(path)) if stop is None else stop))


def fates(source, path):
    return [[reason for reason, _ in row.failed] for row in rows(source, path)]


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
    assert conversation.plain(said) == (
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
    made = conversation.marked(talk(text, "A"), ["a"])
    assert [node.text if node.kind == "text" else node.url for node in made[:-1]] == nodes
    assert {(node.role, node.turn) for node in made[:-1]} == {("user", 0)}


def test_images_of_later_turns_belong_to_them():
    made = conversation.marked(talk("<image>Q", "A", "<image><image>Q", "A"), ["a", "b", "c"])
    assert [(node.turn, node.image, node.url) for node in made if node.kind == "image"] == [
        (0, 0, "a"),
        (1, 1, "b"),
        (1, 2, "c"),
    ]


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        (talk("<image><image>Q", "A"), "2 times <image> for 1 images"),
        (talk("Q", "A"), "0 times <image> for 1 images"),
        (talk("<image>", "A", "Q"), "the last question has no answer"),
        (talk("<image>", "A")[::-1], "message 0 is out of order: assistant after nothing"),
        (talk("<image>", "A") * 2 + talk("Q", "A")[1:], "message 4 is out of order: assistant after assistant"),
        (
            [*talk("<image>", "A"), {"from": "system", "value": "S"}],
            "message 2 is out of order: system after assistant",
        ),
        (talk("<image>", " "), "message 1 of assistant is empty"),
        (talk("<image>", "A", "\n", "A"), "message 2 of user is empty"),
        (talk("<image>", None), "message 1 of gpt has no text"),
        ([{"from": "tool", "value": "<image>"}], "message 0 is spoken by 'tool'; known are human"),
        ([{"value": "<image>"}], "message 0 is spoken by None"),
        ([{"from": ["human"], "value": "<image>"}], "message 0 is spoken by"),
        ([{"from": "system", "value": "S"}], "nobody asks anything"),
        (["<image>"], "message 0 is str, expected from and value"),
        ("<image>", "its turns are str, expected a list"),
        ([], "no turns"),
        (None, "no turns"),
    ],
)
def test_turns_that_make_no_conversation_are_refused_in_words(said, detail):
    with pytest.raises(Unfit, match=detail):
        conversation.marked(said, ["a"])


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
    with contextlib.suppress(Unfit):
        made = conversation.marked(messages, [str(place) for place in range(marks)])
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


# -- files that rows name --------------------------------------------------------------------------------------------


@pytest.fixture
def read(tmp_path):
    """Read LLaVA rows with the images in a folder; gives the samples, the images and the books."""

    def run(there, images=None):
        folder = tmp_path / "out"
        folder.mkdir()
        path = json_array(tmp_path / "rows.json", there)
        step = Read(Llava(), "tune", "rows.json", 0, len(there), images=images or str(tmp_path))
        counts = step.run({"origin": path}, folder)
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
    (tmp_path / "folder").mkdir()
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
    samples, images, _ = read([about(path) for path in paths])
    assert len(samples) == 7
    assert [image["reason"] for image in images] == ["missing_file"] * 2 + ["forbidden_address"] + ["missing_file"] + [
        "forbidden_address"
    ] * 3
    assert not any(image["bytes"] for image in images)
    assert str(tmp_path) not in images[0]["detail"]


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
    assert fates(Llava(), json_array(tmp_path / "a", there)) == [[Reason.BAD_ROW]] * 4


def test_reading_files_that_rows_name_is_not_pure_and_their_place_is_in_no_key():
    from pipeline.keys import canonical

    here, there = (Read(Llava(), "tune", "a", 0, 1, images=place) for place in ("/here", "/there"))
    assert not here.pure
    assert canonical(here) == canonical(there)
