"""`vlmill new` on data as people have them: columns of any name, files that are not data, rows that are wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

import vlmill as api
from tests.helpers.small import vlmill
from tests.helpers.upstream import json_array, json_lines, parquet, pdf, picture, separated, talk, tar
from vlmill.mixtures.report.warnings import REPETITION
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.inputs.files import list_input_files
from vlmill.pipeline.proposal.looked_files import NO_HEADER
from vlmill.pipeline.proposal.proposal import examine_place
from vlmill.pipeline.proposal.table import explain_nothing
from vlmill.pipeline.sources.table import TableSource, WebTableSource

ROWS = range(20)


def ask(question, answer, **more):
    """Rows with a question and an answer under these names."""
    return [{"foto": f"{row}.png", question: f"What is {row}?", answer: f"It is {row}.", **more} for row in ROWS]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("frage", "antwort"),
        ("Pregunta", "Respuesta"),
        ("问题", "答案"),
        ("user_question", "gold-answer"),
        ("questionText", "modelAnswer"),
        ("QUESTION 1", "ANSWER 1"),
        ("query", "label"),
        ("questions", "answers"),
    ],
)
def test_columns_are_recognised_in_other_languages_and_by_one_word_of_their_names(question, answer, tmp_path):
    rows = ask(question, answer, question_id="q", answer_type="short")
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)))
    assert dict(found.chosen.options) == {"image": "foto", "question": question, "answer": answer}
    assert "columns that are not read: answer_type" in found.notes


def test_columns_whose_names_say_nothing_are_named_on_the_command_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    place = separated(tmp_path / "survey.csv", ask("said_a", "said_b", more="B"))
    assert vlmill("new", place) == 1
    assert "--column question=COLUMN --column answer=COLUMN" in " ".join(capfd.readouterr().err.split())
    named = ("--column", "question=said_a", "--column", "question=more", "--column", "answer=said_b")
    assert vlmill("new", place, *named) == 0
    source = api.load_recipe("survey.yaml").recipe.sources["survey"]
    assert source.options == TableSource(image="foto", question=("said_a", "more"), answer="said_b")


@pytest.mark.parametrize("broken", ["unknown.bin", "odd.jsonl"])
def test_one_path_that_cannot_be_read_does_not_hide_what_the_others_are(broken, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for name in ("a b.jsonl", "c.jsonl"):
        json_lines(tmp_path / name, ask("question", "answer"))
    (tmp_path / "unknown.bin").write_bytes(b"no rows")
    json_lines(tmp_path / "odd.jsonl", [{"x": row} for row in ROWS])
    assert vlmill("new", "a b.jsonl", broken, "c.jsonl") == 1
    shown = capfd.readouterr()
    assert f"{broken}: no kind" in shown.err
    assert "the others can be read: vlmill new 'a b.jsonl' c.jsonl" in " ".join(shown.err.split())
    assert "source a_b: a b.jsonl" in shown.out
    assert not list(tmp_path.glob("*.yaml"))
    assert vlmill("new", "a b.jsonl", "c.jsonl") == 0


@pytest.mark.parametrize(("end", "mark"), [(".tsv", "\t"), (".csv", ",")])
def test_a_table_without_a_header_loses_no_row_and_has_its_columns_by_number(end, mark, tmp_path):
    lines = [f"Shape {row}{mark}https://img.test/{row}.jpg\n" for row in ROWS]
    (tmp_path / f"a{end}").write_text("".join(lines))
    found = examine_place(str(tmp_path / f"a{end}"))
    assert (found.chosen.kind, dict(found.chosen.options)) == (
        "web_table",
        {"image": "column_2", "caption": "column_1"},
    )
    assert NO_HEADER in found.notes
    source = WebTableSource(**found.chosen.options)
    assert len(source.survey(tmp_path / f"a{end}")) == len(ROWS)
    (first,) = source.rows(tmp_path / f"a{end}", [0])
    assert [node.text for node in first.pages[0].nodes if node.text] == ["Shape 0"]
    with pytest.raises(SourceError, match=r"column 'url' is missing; .*its columns are column_1, column_2 and so on"):
        WebTableSource(image="url", caption="text").survey(tmp_path / f"a{end}")


def test_columns_that_are_called_by_number_are_a_header(tmp_path):
    place = separated(tmp_path / "a.csv", [{"column_1": "Shape", "column_2": "https://img.test/1.jpg"}])
    found = examine_place(str(place))
    assert len(WebTableSource(**found.chosen.options).survey(place)) == 1
    assert NO_HEADER not in found.notes


def test_addresses_of_pages_beside_those_of_images_are_no_images(tmp_path):
    rows = [{"page_url": f"https://w.test/{row}", "image_url": f"https://img.test/{row}.jpg"} for row in ROWS]
    rows = [{**row, "caption": f"Shape {place}", "language": "de"} for place, row in enumerate(rows)]
    found = examine_place(str(separated(tmp_path / "a.tsv", rows)))
    assert (found.chosen.kind, dict(found.chosen.options)) == (
        "web_table",
        {"image": "image_url", "caption": "caption"},
    )


def test_named_columns_read_addresses_with_the_kind_that_requests_them(tmp_path):
    rows = [{"a": f"https://img.test/{row}", "b": f"Shape {row}"} for row in ROWS]
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)), {"caption": ["b"]})
    assert (found.chosen.kind, dict(found.chosen.options)) == ("web_table", {"image": "a", "caption": "b"})


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"query": ["q"]}, "expected ROLE=COLUMN, where ROLE is image, caption, ocr"),
        ({"question": [""]}, "--column question: expected ROLE=COLUMN"),
        ({"answer": ["q", "a"]}, "2 columns, expected 1; several may be image, caption"),
        ({"question": ["asked"]}, "there is no such column in a.jsonl; the columns are foto, q, a"),
        ({"caption": ["asked"]}, "there is no such column in a.jsonl; the columns are foto, q, a"),
        ({"texts": ["asked"]}, "there is no such column in a.jsonl; the columns are foto, q, a"),
        ({"signals": ["q"]}, "signals=q: it holds text in a.jsonl, expected numbers"),
    ],
)
def test_a_wrong_name_is_an_error_that_says_what_there_is(named, said, tmp_path):
    with pytest.raises(SourceError, match=said):
        examine_place(str(json_lines(tmp_path / "a.jsonl", ask("q", "a"))), named)


def test_choices_are_read_though_one_answer_is_none_of_them(tmp_path):
    rows = [{"question": f"Which {row}?", "A": "this", "B": "that", "answer": "AB"[row % 2]} for row in ROWS]
    rows[3]["answer"], rows[4]["answer"] = "F", ""
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)))
    assert found.chosen.options["choices"] == ["A", "B"]
    (note,) = found.notes
    assert note.endswith(" no sample; row 3: the answer 'F' is none of the 2 choices; row 4: no answer")


@pytest.mark.parametrize(
    ("choices", "answers", "told"),
    [
        (["4", "3", "2", "1"], [0, 1, 2, 3], "number"),
        (["4", "3", "2", "1"], ["1", "2", "3", "4"], None),  # words, or numbers from 1: the rows cannot tell
        (["5", "3", "2", "1"], ["1", "2", "3", "5"], "words"),
        (["B", "A", "this", "that"], ["A", "B", "C", "D"], "letter"),
        (["red", "blue", "green", "grey"], ["1", "2", "3", "4"], "number_from_1"),
        (["red", "blue", "green", "grey"], [1, 2, 3, 4], "number_from_1"),
        (["red", "blue", "green", "grey"], [0, 1, 2, 3], None),  # nothing has to be told
        (["red", "blue", "green", "grey"], ["1", "2", "3", "blue"], None),
        (["red", "blue", "green", "grey"], ["A", "1", "blue", "D"], None),
        (["red", "blue", "green", "grey"], ["A", "1" * 5000, "B", "D"], None),  # more digits than `int` takes
    ],
)
def test_how_answers_name_choices_is_written_down_where_rows_need_and_tell_it(choices, answers, told, tmp_path):
    rows = [{"question": f"Which {row}?", "choices": choices, "answer": answers[row % 4]} for row in range(20)]
    place = str(json_lines(tmp_path / "a.jsonl", rows))
    for named in (None, {"question": ["question"], "answer": ["answer"], "choices": ["choices"]}):
        found = examine_place(place, named)
        tried = [one for one in (found.chosen, *found.others) if one and "choices" in one.options]
        assert {one.options.get("answer_as") for one in tried} == {told}
        assert told is None or len(found.chosen.pages) == len(rows)


def test_columns_of_letters_that_no_answer_names_are_no_choices(tmp_path):
    rows = [{"question": f"Which {row}?", "A": "1", "B": "2", "answer": f"Of {row}"} for row in ROWS]
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", rows)))
    assert "choices" not in found.chosen.options
    assert found.notes == ("columns that are not read: A, B",)


@pytest.mark.parametrize("name", ["dataset_info.json", "about.json", "zzz/dataset_info.json"])
def test_a_file_that_is_no_data_is_left_out_wherever_it_stands(name, tmp_path):
    (tmp_path / "zzz").mkdir()
    (tmp_path / name).write_text(json.dumps({"mine": {"file_name": "mine.json", "formatting": "sharegpt"}}))
    rows = [{"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "A."}]} for n in ROWS]
    json_array(tmp_path / "mine.json", rows)
    found = examine_place(str(tmp_path))
    assert found.chosen.kind == "chat"
    assert [file.name for file in list_input_files("a", found.root, found.files)] == ["mine.json"]
    assert any(note.startswith(f"{name} is left out") for note in found.notes)


def test_papers_of_which_the_first_have_no_text_are_recognised_by_others(tmp_path):
    for number in range(30):
        (tmp_path / f"{number:02}.pdf").write_bytes(pdf([["A line"] if number > 12 else []]))
    (tmp_path / "00.pdf").write_bytes(b"")
    found = examine_place(str(tmp_path))
    assert found.chosen.kind == "pdf"
    (note,) = found.notes
    assert note.startswith("3 of 5 rows in 5 of 30 files give no sample; 00.pdf: row 0: 00.pdf is no PDF: it has")


def test_a_few_pictures_named_by_path_among_bytes_are_not_searched_for(tmp_path):
    rows = ask("question", "answer")
    for number, row in enumerate(rows):
        row["foto"] = {"bytes": picture(number) if number else None, "path": f"{number}.png"}
    found = examine_place(str(parquet(tmp_path / "a.parquet", rows)))
    assert len(found.chosen.pages) == len(ROWS)
    assert found.notes == ()


@pytest.mark.parametrize(("rows", "files", "epochs"), [(5, 1, 16), (200, 1, 10), (100, 4, 5), (1000, 1, 3)])
def test_the_fewer_rows_there_are_the_more_often_they_are_shown(rows, files, epochs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for file in range(files):
        lines = [{"question": f"What is {row}?", "answer": f"It is {row}."} for row in range(rows)]
        json_lines(tmp_path / f"data/{file}.jsonl", lines)
    assert vlmill("new", "data") == 0
    (stage,) = api.load_recipe("data.yaml").recipe.stages
    assert stage.mixture["epochs"] == epochs
    assert (stage.mixture.get("max_repetition") == epochs) == (epochs > REPETITION)  # else its build would ask


def test_a_text_with_several_images_is_told_once_per_kind_what_reads_it(tmp_path, capfd):
    rows = [
        {
            "text": f"Shapes {row}.",
            "images": [f"https://img.test/{row}.{n}" for n in range(1 + row % 4)],
            "scores": [[1], [2]],
        }
        for row in ROWS
    ]
    assert vlmill("new", json_lines(tmp_path / "a.jsonl", rows)) == 1
    streams = capfd.readouterr()
    said = " ".join(streams.err.split())
    assert "a text with several images is a row of kind web_documents or file_documents" in said
    assert "docs/adding.md, A custom source" in said
    assert said.count("web_table: row 1") == 1, "two sets of options that fail alike are one line"
    assert "scores: list of lists of numbers" in " ".join(streams.out.split())


ENGLISH = [f"A red shape, number {row}." for row in range(8)]
CHINESE = [f"一个红色的图形，第{row}个。" for row in range(8)]


@pytest.mark.parametrize(
    ("rows", "caption"),
    [
        ([{"caption": [zh, en]} for zh, en in zip(CHINESE, ENGLISH, strict=True)], ["caption.1", "caption"]),
        (
            [{"caption": json.dumps([zh, en])} for zh, en in zip(CHINESE, ENGLISH, strict=True)],
            ["caption.1", "caption"],
        ),
        ([{"caption": [en, zh]} for zh, en in zip(CHINESE, ENGLISH, strict=True)], "caption"),
        (
            [{"caption_zh": zh, "caption_en": en} for zh, en in zip(CHINESE, ENGLISH, strict=True)],
            ["caption_en", "caption_zh"],
        ),
        (
            [
                {"caption_reference": en if row % 2 else "", "caption_alt": f"{row}: {en}", "caption_model": "m"}
                for row, en in enumerate(ENGLISH)
            ],
            ["caption_reference", "caption_alt"],
        ),
        (
            [
                {"caption": (zh, en)[row % 2], "caption_alt": f"{row}: {en}"}
                for row, (zh, en) in enumerate(zip(CHINESE, ENGLISH, strict=True))
            ],
            ["caption_alt", "caption"],
        ),
        ([{"caption": en, "caption_alt": f"It is: {en}"} for en in ENGLISH], "caption"),
        ([{"caption": en if row % 2 else "", "caption_model": "m"} for row, en in enumerate(ENGLISH)], "caption"),
        ([{"caption": zh} for zh in CHINESE], "caption"),
        ([{"caption": f"これは{zh}", "caption_alt": en} for zh, en in zip(CHINESE, ENGLISH, strict=True)], "caption"),
    ],
)
def test_a_caption_that_the_recipe_keeps_goes_before_one_that_it_drops(rows, caption, tmp_path):
    place = json_lines(tmp_path / "a.jsonl", [{"image": f"{row}.png", **one} for row, one in enumerate(rows)])
    found = examine_place(str(place))
    assert found.chosen.options["caption"] == caption
    assert any(note.startswith("the caption of a row is the first of") for note in found.notes) == (
        caption != "caption"
    )
    said = [node.text for page in found.chosen.pages for node in page.nodes if node.text]
    if isinstance(caption, list):
        assert all(text.isascii() for text in said)


CAPTIONED = {"caption": "A red shape, {}.", "caption_long": "A red shape on white, {}.", "re_caption": "Red, {}."}


@pytest.mark.parametrize("image", ["url", "image"])
def test_other_columns_of_captions_are_named_with_what_chooses_them(image, tmp_path):
    rows = [
        {image: f"http://img.test/{row}.png" if image == "url" else f"{row}.png", "caption_lang": "en", "similarity": 1}
        | {name: said.format(row) for name, said in CAPTIONED.items()}
        for row in range(8)
    ]
    place = str(parquet(tmp_path / "a.parquet", rows))
    (note,) = [one for one in examine_place(place).notes if one.startswith("captions are read from")]
    assert note == (
        "captions are read from caption, and caption_long, re_caption may hold others: --column caption=caption_long "
        "takes another, and --column caption=caption_long --column caption=caption the first of these that is not "
        "blank in a row; for all of them make a row of each"
    )
    named = examine_place(place, {"caption": ["caption_long", "caption"]}).chosen
    assert named.options["caption"] == ["caption_long", "caption"]
    assert named.pages[2].nodes[1].text == "A red shape on white, 2."


def test_other_captions_in_the_json_of_a_tar_are_named(tmp_path):
    about = json.dumps({"re_caption": "Red.", "caption": "A shape.", "similarity": 0.3}).encode()
    members = [(f"{row}.{end}", data) for row in range(4) for end, data in (("png", picture(row)), ("json", about))]
    members += [(f"{row}.txt", b"A shape.") for row in range(4)]
    found = examine_place(str(tar(tmp_path / "a.tar", sorted(members))))
    assert found.chosen.kind == "pairs_wds"
    assert [one for one in found.notes if one.startswith("the caption of an image is its .txt; json.re_caption may")]


def test_a_place_in_a_list_is_named_on_the_command_line_and_one_that_is_not_there_is_refused(tmp_path):
    rows = [{"image": f"{row}.png", "said": [f"One {row}.", f"Two {row}."]} for row in range(8)]
    place = str(json_lines(tmp_path / "a.jsonl", rows))
    named = examine_place(place, {"caption": ["said.1", "said.0"]}).chosen
    assert named.options["caption"] == ["said.1", "said.0"]
    assert named.pages[3].nodes[1].text == "Two 3."
    with pytest.raises(SourceError, match=r"caption=said\.2: there is no such column in a\.jsonl"):
        examine_place(place, {"caption": ["said.2"]})


def test_numbers_that_travel_along_are_named_on_the_command_line_and_read_from_texts(tmp_path):
    cells = ["4", " 2.5 ", "-1e-2", "good", "", "nan", "1e999", "7"]
    rows = [{"question": f"What is {row}?", "answer": "It.", "score": one} for row, one in enumerate(cells)]
    place = str(separated(tmp_path / "a.csv", rows))
    found = examine_place(place, {"signals": ["score"]}).chosen
    assert dict(found.options) == {"question": "question", "answer": "answer", "signals": ["score"]}
    assert [dict(page.signals) for page in found.pages] == [
        {"score": 4.0},
        {"score": 2.5},
        {"score": -0.01},
        {},
        {},
        {},
        {},
        {"score": 7.0},
    ]
    with pytest.raises(SourceError, match=r"signals=answer: it holds text in a\.csv, expected numbers"):
        examine_place(place, {"signals": ["answer"]})


@pytest.mark.parametrize(("end", "said"), [("mp4", "path of a video"), ("WAV", "path of a sound")])
def test_paths_of_videos_and_sounds_are_no_captions(end, said, tmp_path):
    """They would be, beside an image, where nothing else is a text; conversations about them are not read either."""
    beside = [{"image": f"{row}.png", "clip": f"clips/{row}.{end}"} for row in ROWS]
    found = examine_place(str(json_lines(tmp_path / "beside.jsonl", beside)))
    assert found.chosen is None
    assert found.columns["clip"] == said
    asked = [
        {"id": row, "video": f"clips/{row}.{end}", "conversations": talk("What happens?", "A walk.")} for row in ROWS
    ]
    (tmp_path / "0001.jpg").write_bytes(picture(1, (8, 8)))
    found = examine_place(str(json_lines(tmp_path / "asked.jsonl", asked)))
    assert found.chosen is None
    assert explain_nothing(found).endswith("make a file without: video")


def test_preferences_say_how_the_better_answers_become_rows(tmp_path):
    rows = [{"image": f"{row}.png", "question": "What?", "chosen": f"A {row}.", "rejected": "No."} for row in ROWS]
    said = explain_nothing(examine_place(str(json_lines(tmp_path / "a.jsonl", rows))))
    command = re.search(r"jq -c '.*' FILE.jsonl", said)[0].replace("FILE.jsonl", str(tmp_path / "a.jsonl"))
    if not shutil.which("jq"):
        pytest.skip("needs jq")
    made = tmp_path / "chosen.jsonl"
    made.write_bytes(subprocess.run(command, shell=True, check=True, capture_output=True).stdout)
    found = examine_place(str(made))
    assert dict(found.chosen.options) == {"image": "image", "question": "question", "answer": "answer"}
    assert found.chosen.pages[1].nodes[-1].text == "A 1."
