"""`vlmill new` on rows of benchmarks, annotation tools and other trainers that are near to what it knows."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import subprocess
import tarfile

import pyarrow as pa
import pytest

from tests.helpers.upstream import json_array, json_lines, parquet, picture, separated, talk
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.proposal.image_marks import find_mark
from vlmill.pipeline.proposal.proposal import IMAGELESS, examine_place
from vlmill.pipeline.proposal.table import explain_nothing
from vlmill.pipeline.proposal.text_marks import see_images
from vlmill.pipeline.proposal.text_notes import EMPTY
from vlmill.pipeline.sources.table import TableSource

ROWS = range(8)
COLOURS = ["red", "blue", "green"]
ASKED = {"question": "Which colour?", "answer": "B"}


def hold(number, path=None):
    return {"bytes": picture(number), "path": path}


def texts(page):
    return [node.text for node in page.nodes if node.kind == "text"]


def label(row):
    """A task of Label Studio: a caption and a choice for one picture."""
    told = [("caption", "textarea", {"text": [f"A shape {row}."]}), ("colour", "choices", {"choices": ["red"]})]
    results = [
        {"id": f"r{row}{name}", "from_name": name, "to_name": "image", "type": form, "origin": "manual", "value": value}
        for name, form, value in told
    ]
    return {"id": row, "annotations": [{"id": row, "result": results}], "data": {"image": f"/data/upload/3/{row}.png"}}


def test_results_of_an_annotation_tool_are_no_conversation(tmp_path):
    found = examine_place(str(json_array(tmp_path / "tasks.json", [label(row) for row in ROWS])))
    assert found.chosen is None
    assert "tasks of Label Studio" in explain_nothing(found)
    assert "docs/conversations.md, Conversations in other forms, has a script" in explain_nothing(found)


@pytest.mark.parametrize("address", ["/data/upload/3/a%201.png", "/data/local-files/?d=batch/a.png"])
def test_addresses_of_an_annotation_tool_are_led_to_the_script_that_makes_paths_of_them(tmp_path, address):
    rows = [{"image": address, "question": "What?", "answer": f"A shape {row}."} for row in ROWS]
    found = examine_place(str(json_array(tmp_path / "tasks.json", rows)))
    assert any("an address of Label Studio, docs/conversations.md" in note for note in found.notes)
    plain = [{**row, "image": "/data/other/a.png"} for row in rows]
    found = examine_place(str(json_array(tmp_path / "plain.json", plain)))
    assert not any("Label Studio" in note for note in found.notes)


@pytest.mark.parametrize("key", ["user", "role"])
def test_speakers_that_are_ids_are_led_to_names_and_to_a_script(tmp_path, key):
    said = [[{key: f"U{row}", "text": f"What is {row}?"}, {key: "A1", "text": f"Gate {row}."}] for row in ROWS]
    found = examine_place(str(json_array(tmp_path / "log.json", [{"messages": one} for one in said])))
    assert found.chosen is None
    assert "where speakers are ids of many people, docs/conversations.md" in explain_nothing(found)


@pytest.mark.parametrize("place", [0, 5])
def test_a_row_whose_turns_are_no_list_speaks_against_no_other(tmp_path, place):
    rows = [
        {
            "who": "c",
            "log": [{"party": "user", "body": f"What is {row}?"}, {"party": "assistant", "body": f"It is {row}."}],
        }
        for row in ROWS
    ]
    rows.insert(place, {"who": "c", "log": "user: hi / assistant: hello"})
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)))
    assert dict(found.chosen.options)["turns"] == "log"
    assert len(found.chosen.pages) == len(rows) - 1
    (note,) = (note for note in found.notes if "no sample" in note)
    assert f"gives no sample; row {place}: its turns are a text that is no list in JSON: 'user: hi / assistant" in note


def test_parts_of_which_one_key_holds_texts_and_images_are_no_captions(tmp_path):
    def make_row(row, image):
        parts = [{"kind": "text", "value": f"The rain before number {row}."}, {"kind": "image", "value": image}]
        return {"content": parts, "address": f"https://example.org/p{row}", "title": f"Title {row}"}

    rows = [make_row(row, f"https://example.org/{row}.png") for row in ROWS]
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)))
    assert found.chosen is None
    assert "content.value holds texts and images of documents under one key" in explain_nothing(found)
    found = examine_place(
        str(json_lines(tmp_path / "b.jsonl", [make_row(row, "Only words are here.") for row in ROWS]))
    )
    assert found.chosen is not None


@pytest.mark.parametrize(
    ("written", "mark"),
    [
        *(("[[photo_1]]", "[[photo_{number}]]"), ("[Image 1]", "[Image {number}]"), ("<photo>", "<photo>")),
        *(
            ("<picture_0>", "<picture_{index}>"),
            ("{{image_1}}", "{{image_{number}}}"),
            ("<picture>", None),
            ("[imagine]", None),
        ),
    ],
)
def test_marks_of_own_making_are_found(written, mark):
    nodes = [Node("text", role="user", text=f"What is {written}?")]
    assert see_images([nodes]).samples == (mark is not None)
    assert find_mark([{"said": nodes[0].text}]) == (mark or "")


def test_tars_are_each_unpacked_into_a_folder_of_its_own(tmp_path):
    (tmp_path / "tars").mkdir()
    for number in range(2):  # with files of the same names
        said = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": f"Number {number}."}]
        members = {"0.png": picture(number), "0.json": json.dumps({"messages": said}).encode()}
        with tarfile.open(tmp_path / "tars" / f"part {number}.tar", "w") as tar:
            for name, data in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    told = explain_nothing(examine_place(str(tmp_path / "tars")))
    command = told[told.index("(for tar") + 1 : told.index("done)") + 4]
    subprocess.run(["bash", "-c", command], cwd=tmp_path / "tars", check=True)
    found = examine_place(str(tmp_path / "tars" / "unpacked"))
    answers = [node.text for page in found.chosen.pages for node in page.nodes if node.supervised]
    assert sorted(answers) == ["Number 0.", "Number 1."]


def test_rows_within_an_object_of_several_lines_are_found(tmp_path):
    rows = [{"picture": f"{row}.png", "said": f"A shape {row}."} for row in ROWS]
    path = tmp_path / "export.json"
    path.write_text(json.dumps({"info": {"version": 1}, "items": rows}, indent=2))
    found = examine_place(str(path))
    assert found.chosen is None
    assert f"8 in its list items; to read these, make a file of them: jq -c '.items[]' {path}" in explain_nothing(found)


def test_a_list_of_pictures_of_two_splits_is_no_conversation_of_two_speakers(tmp_path):
    listed = [
        {
            "filename": f"{row}.png",
            "split": "val" if row % 3 else "train",
            "sentences": [{"raw": f"A shape {row}."}] * 2,
        }
        for row in ROWS
    ]
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"images": listed, "dataset": "mine"}))
    found = examine_place(str(path))
    assert found.chosen is None
    assert f"8 in its list images; to read these, make a file of them: jq -c '.images[]' {path}" in explain_nothing(
        found
    )
    rows = examine_place(str(json_lines(tmp_path / "rows.jsonl", listed)))
    assert dict(rows.chosen.options) == {"image": "filename", "caption": "sentences.raw"}


def test_the_name_of_a_project_and_a_language_are_no_captions(tmp_path):
    rows = [{"data": {"name": f"{row}.png"}, "projects": {"p1": {"name": "Shapes"}}} for row in ROWS]
    assert examine_place(str(json_lines(tmp_path / "a.jsonl", rows))).chosen is None
    told = [{"picture": f"{row}.png", "language": "de"} for row in ROWS]
    assert examine_place(str(json_lines(tmp_path / "b.jsonl", told))).chosen is None


@pytest.mark.parametrize(
    ("mark", "told"),
    [
        ("<|image_1|>", "the option `mark: <|image_{number}|>` reads it"),
        ("<image 1>", "the option `mark: <image {number}>` reads it"),
        ("<image_0>", "the option `mark: <image_{index}>` reads it"),
        ("<ImageHere>", "the option `mark: <ImageHere>` reads it"),
        ("[IMG]", "the option `mark: '[IMG]'` reads it"),
        ("<img>a.png</img>", "name that"),
        ("<|vision_start|>", "name that"),
    ],
)
def test_marks_of_images_that_stay_text_are_noted_with_the_option_that_reads_them(tmp_path, mark, told):
    rows = [{"messages": talk(f"{mark} What is it?", "A shape.", keys=("role", "content"))} for _ in ROWS]
    notes = examine_place(str(json_lines(tmp_path / "a.jsonl", rows))).notes
    begins = f"marks of images stand in texts and stay text, such as {mark}: where the images have a column or key"
    assert any(note.startswith(f"{begins} of their own, {told}; ") for note in notes)


def test_samples_that_the_filter_of_the_recipe_would_drop_for_chinese_are_noted(tmp_path):
    said = ["What is it?", "A mill.", "图里有什么？", "有一座桥和两只船。", "これは何ですか。", "赤い橋です。"]
    rows = [{"messages": talk(*said[2 * (row % 3) :][:2], keys=("role", "content"))} for row in range(9)]
    notes = examine_place(str(json_lines(tmp_path / "a.jsonl", rows))).notes
    chinese = "samples that were looked at hold Chinese, which the filter language of the recipe drops: "
    assert [note for note in notes if "Chinese" in note] == [f"3 of 9 {chinese}take its line out to keep it"]
    plain = examine_place(str(json_lines(tmp_path / "b.jsonl", rows[::3]))).notes
    assert not any("Chinese" in note for note in plain)


def test_words_of_html_are_no_marks_of_images(tmp_path):
    rows = [{"messages": talk("What does the <img> tag do?", "It shows [an image].")} for _ in ROWS]
    assert examine_place(str(json_lines(tmp_path / "a.jsonl", rows))).notes == ()


def test_turns_that_are_an_object_of_lists_are_a_conversation(tmp_path):
    rows = [
        {
            "image": hold(row),
            "language": "de",
            "conversations": {"from": ["human", "gpt"], "value": ["<image>\nWhat?", f"It is {row}."]},
        }
        for row in ROWS
    ]
    found = examine_place(str(parquet(tmp_path / "a.parquet", rows)))
    assert found.columns["conversations"] == "list of objects"
    assert dict(found.chosen.options) == {"image": "image", "turns": "conversations"}
    assert texts(found.chosen.pages[3]) == ["What?", "It is 3."]


def test_the_name_of_a_picture_beside_it_is_no_second_picture(tmp_path):
    rows = [{"image": hold(row), "file_name": f"{row}.jpg", **ASKED} for row in ROWS]
    place = str(parquet(tmp_path / "a.parquet", rows))
    assert examine_place(place).chosen.options["image"] == "image"
    assert examine_place(place, {"question": ["question"]}).chosen.options["image"] == "image"


def test_a_column_of_pictures_in_which_some_cells_name_a_row_is_one_of_pictures(tmp_path):
    coded = [hold(row)["bytes"] if row % 4 else str(row) for row in ROWS]
    rows = [{"image": one, "question": "What?", "answer": f"It is {row}."} for row, one in enumerate(coded)]
    options = examine_place(str(json_lines(tmp_path / "a.jsonl", [encode(row) for row in rows]))).chosen.options
    assert dict(options) == {"image": "image", "question": "question", "answer": "answer"}


def encode(row):
    """A row whose bytes are written in base64."""
    return {name: base64.b64encode(one).decode() if isinstance(one, bytes) else one for name, one in row.items()}


@pytest.mark.parametrize(
    "choices",
    [
        {f"choice_{letter}": colour for letter, colour in zip("abc", COLOURS, strict=True)},
        {f"option {letter}": colour for letter, colour in zip("ABC", COLOURS, strict=True)},
        {"options": str(COLOURS)},
    ],
)
def test_choices_in_columns_by_letter_or_as_python_prints_a_list_are_read(tmp_path, choices):
    rows = [{"image": hold(row), **ASKED, **choices} for row in ROWS]
    page = examine_place(str(parquet(tmp_path / "a.parquet", rows))).chosen.pages[0]
    asked, said = texts(page)
    assert asked.startswith("Which colour?\nA. red\nB. blue\nC. green\n")
    assert said == "B"


def test_a_list_without_commas_is_a_text_as_it_is(tmp_path):
    rows = [{"image": hold(row), "caption": "['a red shape'\n 'on white']"} for row in ROWS]
    assert texts(examine_place(str(parquet(tmp_path / "a.parquet", rows))).chosen.pages[0]) == [rows[0]["caption"]]


def test_the_number_of_the_right_choice_goes_before_what_people_answered(tmp_path):
    rows = [
        {
            "image": hold(row),
            "question": "Which?",
            "choices": COLOURS,
            "correct_choice_idx": 2,
            "direct_answers": "['x']",
        }
        for row in ROWS
    ]
    options = examine_place(str(parquet(tmp_path / "a.parquet", rows))).chosen.options
    assert (options["answer"], options["choices"]) == ("correct_choice_idx", "choices")


def test_answers_that_are_letters_without_choices_are_noted(tmp_path):
    rows = [{"image": hold(row), "question": "Which?", "answer": "ABC"[row % 3], "extra": {"x": 1}} for row in ROWS]
    notes = examine_place(str(parquet(tmp_path / "a.parquet", rows))).notes
    assert any(note.startswith("every answer is a letter, and no choices are read") for note in notes)


def test_what_a_question_is_about_is_noted_and_may_stand_before_it_with_choices_as_they_were(tmp_path):
    rows = [
        {"hint": f"It is {row}.", "question": "Which?", "A": "x", "B": "y", "answer": "AB"[row % 2]} for row in ROWS
    ]
    place = str(separated(tmp_path / "a.tsv", rows))
    (note,) = [one for one in examine_place(place).notes if one.startswith("column hint may")]
    named = note.removesuffix(" puts it before").partition(": ")[2].split(" --column question=")
    found = examine_place(place, {"question": [one.removeprefix("--column question=") for one in named]})
    assert dict(found.chosen.options) == {"question": ["hint", "question"], "answer": "answer", "choices": ["A", "B"]}
    assert texts(found.chosen.pages[2])[0].startswith("It is 2.\nWhich?\nA. x\nB. y\n")
    assert not any("hint" in one for one in found.notes)


def test_choices_are_not_added_to_named_columns_whose_answers_are_none_of_them(tmp_path):
    rows = [{"question": "Which?", "A": "x", "B": "y", "answer": f"It is {row}."} for row in ROWS]
    found = examine_place(str(separated(tmp_path / "a.tsv", rows)), {"question": ["question"]})
    assert dict(found.chosen.options) == {"question": "question", "answer": "answer"}


def test_cells_of_the_letters_nan_are_noted(tmp_path):
    rows = [{"question": "Which?", "A": "x", "B": "y", "C": "nan" if row else "z", "answer": "A"} for row in range(4)]
    said = "cells hold the letters nan, which are read as a text: C (3 of 4 rows); make them empty if they say nothing"
    assert said in examine_place(str(separated(tmp_path / "a.tsv", rows))).notes
    real = [{**row, "C": float("nan")} for row in rows]
    assert not any("nan" in one for one in examine_place(str(json_lines(tmp_path / "b.jsonl", real[:1]))).notes)


def test_of_several_captions_the_first_that_is_not_blank_is_read_and_a_note_says_so(tmp_path):
    rows = [{"image": hold(row), "caption": ["  ", f"A shape {row}.", "Another."]} for row in ROWS]
    found = examine_place(str(parquet(tmp_path / "a.parquet", rows)))
    assert texts(found.chosen.pages[2]) == ["A shape 2."]
    assert any(note.startswith("caption holds several texts for an image") for note in found.notes)
    told = json_lines(tmp_path / "b.jsonl", [{"image": "a.png", "caption": '["One.", "Two."]'} for _ in ROWS])
    assert texts(examine_place(str(told)).chosen.pages[0]) == ["One."]


def test_rows_that_an_annotator_refused_are_noted(tmp_path):
    rows = [{"image": "a.png", "caption": "A shape.", "verdict": "reject" if row % 4 else "accept"} for row in ROWS]
    told = "column verdict says of rows that they are of reject; all are trained on: make a file without these"
    assert told in examine_place(str(json_lines(tmp_path / "a.jsonl", rows))).notes
    taken = [{**row, "verdict": "accept"} for row in rows]
    assert told not in examine_place(str(json_lines(tmp_path / "b.jsonl", taken))).notes


@pytest.mark.parametrize(("name", "command"), [("a b.parquet.gz", "gunzip -k"), ("c.csv.xz", "unxz -k")])
def test_packed_files_are_named_with_what_unpacks_them(tmp_path, name, command):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError) as refused:
        examine_place(str(tmp_path))
    path = shlex.quote(str(tmp_path / name))
    assert str(refused.value).endswith(f"unpack {name} first, such as with: {command} {path}")


def test_samples_without_an_image_beside_others_are_noted(tmp_path):
    rows = [{"image": f"{row}.png" if row % 2 else None, "conversations": talk("What?", "It.")} for row in ROWS]
    notes = examine_place(str(json_lines(tmp_path / "a.jsonl", rows))).notes
    assert "4 of the first 8 samples show no image, and are trained on as text alone" in notes


def test_questions_of_which_most_have_no_image_are_read_with_those_that_have_one(tmp_path):
    """As ScienceQA has them; a second source without the images reads the others, and no row is read twice."""
    rows = [{"image": None if row % 4 else f"{row}.png", **ASKED, "n": row} for row in ROWS]
    place = json_lines(tmp_path / "a.jsonl", rows)
    found = examine_place(str(place))
    whole = {"image": "image", "question": "question", "answer": "answer"}
    assert dict(found.chosen.options) == whole
    assert IMAGELESS in found.notes
    assert "6 of the first 8 rows give no sample; row 1: no image, and 5 more rows" in found.notes
    pictured, bare = (TableSource(**options) for options in (whole, {**whole, "image": ()}))
    read = [bool(row.pages) for row in pictured.rows(place, ROWS)]
    assert read == [not row.pages for row in bare.rows(place, ROWS)]
    assert sum(read) == 2
    full = [{**row, "image": f"{row['n']}.png"} for row in rows]
    assert IMAGELESS not in examine_place(str(json_lines(tmp_path / "b.jsonl", full))).notes
    none = [{**row, "image": None} for row in rows]
    assert "image" not in examine_place(str(json_lines(tmp_path / "c.jsonl", none))).chosen.options


@pytest.mark.parametrize(
    ("row", "more"),
    [({"conversations": talk("What?", "It.")}, ""), (ASKED, ", and write those without to a file of their own")],
)
def test_a_column_of_images_that_is_empty_so_far_is_noted(tmp_path, row, more):
    """As in a file that begins with rows of text alone; the rows below would be lost."""
    rows = [{"image": None if number < 25 else f"{number}.png", **row} for number in range(30)]
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)))
    assert EMPTY.format(column="image") + more in found.notes
    bare = [{name: value for name, value in one.items() if name != "image"} for one in rows]
    notes = examine_place(str(json_lines(tmp_path / "b.jsonl", bare))).notes
    assert not any("is empty" in note for note in notes)


def test_columns_of_scores_are_noted_with_the_options_that_read_them(tmp_path):
    """As COYO has them; numbers of other names, such as a width, are none."""
    rows = [{"image": f"{row}.png", "text": f"Shape {row}.", "clip_similarity": 0.3, "pwatermark": 0.1} for row in ROWS]
    rows = [{**row, "width": 64, "score_model": "b", "aesthetic": None} for row in rows]
    place = str(json_lines(tmp_path / "a.jsonl", rows))
    (note,) = (one for one in examine_place(place).notes if one.startswith("columns of scores"))
    options = re.findall(r"--column signals=(\w+)", note)
    assert options == ["clip_similarity", "pwatermark"]
    found = examine_place(place, {"signals": options})
    assert found.chosen.options["signals"] == options
    assert found.chosen.pages[0].signals == {"clip_similarity": 0.3, "pwatermark": 0.1}
    assert not any(one.startswith("columns of scores") for one in found.notes)


def test_captions_of_a_column_text_are_no_code(tmp_path):
    """A screenshot of WebSight has HTML there; before, captions were said to be code."""
    rows = [{"image": {"bytes": picture(row), "path": f"{row}.png"}, "text": f"A shape, {row}."} for row in ROWS]
    assert examine_place(str(parquet(tmp_path / "a.parquet", rows))).chosen.kind == "table"
    shots = [{**row, "text": f"<html>{number}</html>"} for number, row in enumerate(rows)]
    assert examine_place(str(parquet(tmp_path / "b.parquet", shots))).chosen.kind == "websight"


def test_texts_that_are_json_are_noted_with_their_keys(tmp_path):
    """As RLHF-V has them."""
    told = "texts that are trained on are JSON, with keys question, chosen;"
    rows = [{"image": f"{row}.png", "text": json.dumps({"question": "What?", "chosen": "It."})} for row in ROWS]
    assert any(note.startswith(told) for note in examine_place(str(json_lines(tmp_path / "a.jsonl", rows))).notes)
    plain = [{**row, "text": "{A} shape}"} for row in rows]
    assert not any("JSON" in note for note in examine_place(str(json_lines(tmp_path / "b.jsonl", plain))).notes)


def test_what_the_command_line_leaves_out_is_found_by_names(tmp_path):
    rows = [{"pic": f"{row}.png", "thumb": f"t{row}.png", "asked": "What?", "answer": f"It is {row}."} for row in ROWS]
    place = str(separated(tmp_path / "a.csv", rows))
    whole = {"image": "pic", "question": "asked", "answer": "answer"}
    assert dict(examine_place(place, {"image": ["pic"]}).chosen.options) == whole
    assert dict(examine_place(place, {"image": ["pic"], "answer": ["answer"]}).chosen.options) == whole
    with pytest.raises(
        SourceError, match=r"no column in a\.csv looks like the answer: name it, too, with --column answer="
    ):
        examine_place(place, {"question": ["answer"]})


def test_pictures_of_another_split_are_left_out_of_classes_and_of_captions(tmp_path):
    for row in ROWS:
        for split in ("train", "val"):
            for kind in ("cat", "dog"):
                folder = tmp_path / "classes" / split / kind
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{row}.png").write_bytes(picture(row))
            told = tmp_path / "captions" / split
            told.mkdir(parents=True, exist_ok=True)
            (told / f"{row}.png").write_bytes(picture(row))
            (told / f"{row}.txt").write_text(f"A shape {row}.")
    for place, files in (("classes", 16), ("captions", 16)):
        found = examine_place(str(tmp_path / place))
        assert {row["image"].partition("/")[0] for row in found.listed} == {"train"}
        assert f"left out, so that it stays unseen: {files} files of val" in found.notes


def test_paths_of_another_machine_say_what_to_cut_off_them(tmp_path):
    (tmp_path / "data" / "img").mkdir(parents=True)
    for row in ROWS:
        (tmp_path / "data" / "img" / f"{row}.png").write_bytes(picture(row))
    rows = [{"image": f"/home/ann/x/img/{row}.png", "conversations": talk("<image>What?", "It.")} for row in ROWS]
    notes = " ".join(examine_place(str(json_lines(tmp_path / "a.jsonl", rows))).notes)
    assert f"its end is there below {tmp_path / 'data'}: cut /home/ann/x/ off the paths" in notes
    assert "sed 's#/home/ann/x/##g' FILE > CUT" in notes


@pytest.mark.parametrize("write", ["img\\{}.png", "file://{root}/img/{}.png", "file://{root}/big%20img/{}.png"])
def test_paths_of_windows_and_addresses_of_files_are_found(tmp_path, write):
    for row in ROWS:
        for folder in ("img", "big img"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{row}.png").write_bytes(picture(row))
    rows = [{"image": write.format(row, root=tmp_path), "conversations": talk("<image>What?", "It.")} for row in ROWS]
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)))
    assert (found.images, found.notes) == (str(tmp_path), ())


def test_rows_at_the_keys_of_an_object_beside_settings_are_found(tmp_path):
    told = {f"{row}.png99": {"filename": f"{row}.png", "file_attributes": {"caption": "A shape."}} for row in ROWS}
    path = tmp_path / "via.json"
    path.write_text(json.dumps({"_via_settings": {"ui": {"a": 1}, "core": {"b": 2}}, "_via_img_metadata": told}))
    said = explain_nothing(examine_place(str(tmp_path)))
    assert (
        f"8 at keys of _via_img_metadata; to read these, make a file of them: jq -c '._via_img_metadata | to_entries[] "
        f"| {{key}} + .value' {path}" in said
    )


def test_json_in_utf_16_says_what_converts_it(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes("\n".join(json.dumps({"conversations": talk("What?", "It.")}) for _ in ROWS).encode("utf-16"))
    assert "iconv -f UTF-16 -t UTF-8" in explain_nothing(examine_place(str(path)))


def test_an_object_of_lists_of_unequal_length_is_no_conversation(tmp_path):
    turns = pa.struct({"from": pa.list_(pa.string()), "value": pa.list_(pa.string())})
    rows = [
        {"image": hold(row), "conversations": {"from": ["human", "gpt", "human"], "value": ["What?", "It."]}}
        for row in ROWS
    ]
    schema = pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "conversations": turns})
    assert examine_place(str(parquet(tmp_path / "a.parquet", rows, schema))).chosen is None


@pytest.mark.parametrize(("files", "held_out"), [(2, 0), (5, 0), (5, 1)])
def test_rows_within_files_of_a_folder_are_taken_out_of_all_of_them_but_those_held_out(tmp_path, files, held_out):
    names = [*(f"train_{file}.json" for file in range(files)), *(f"test_{file}.json" for file in range(held_out))]
    for name in names:
        listed = [{"image": f"{row}.png", "question": "What?", "answer": "It."} for row in ROWS]
        (tmp_path / name).write_text(json.dumps({"info": {"version": 1}, "annotations": listed}))
    with pytest.raises(SourceError) as refused:
        examine_place(str(tmp_path))
    each = " ".join(str(tmp_path / name) for name in names[:files])
    command = f"jq -c '.annotations[]' {each}"
    if files > 3 and not held_out:
        command = f"find {tmp_path} -name '*.json' -exec jq -c '.annotations[]' {{}} +"
    rows = tmp_path / "rows.jsonl"
    assert str(refused.value).endswith(f"make a file of them: {command} > {rows} && vlmill new {rows}")
