"""Tables of any making: what their rows become, in every format."""

from __future__ import annotations

import base64
import json

import pyarrow as pa
import pytest

from tests.helpers.upstream import arrow, json_lines, parquet, picture, separated, talk
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import BadFileError, RecipeError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.sources import SOURCES
from vlmill.pipeline.sources.choices import ASKED


def read(path, kind="table", **options):
    source = parse_block(SOURCES[kind], options, "options")
    return list(source.rows(path, range(len(source.survey(path)))))


def texts(row):
    (page,) = row.pages
    return [
        (node.role, node.turn, node.text) if node.kind == "text" else (node.role, node.turn, None)
        for node in page.nodes
    ]


def details(row):
    return [detail for _, detail in row.failed]


ROWS = [{"file": f"{row}.png", "asked": f"What is {row}?", "said": f"It is {row}."} for row in range(7)]
WRITERS = {
    "csv": lambda folder: separated(folder / "a.csv", ROWS),
    "tsv": lambda folder: separated(folder / "a.tsv", ROWS),
    "jsonl": lambda folder: json_lines(folder / "a.jsonl", ROWS),
    "parquet": lambda folder: parquet(folder / "a.parquet", ROWS),
    "arrow": lambda folder: arrow(folder / "a.arrow", ROWS),
}


def test_the_same_rows_are_the_same_samples_in_every_format(tmp_path):
    asked = {"image": "file", "question": "asked", "answer": "said"}
    found = {form: read(write(tmp_path), **asked) for form, write in WRITERS.items()}
    assert all(rows == found["csv"] for rows in found.values())
    assert [row.row for row in found["csv"]] == list(range(7))
    assert texts(found["csv"][3]) == [("user", 0, None), ("user", 0, "What is 3?"), ("assistant", 0, "It is 3.")]
    assert found["csv"][3].pages[0].pictures[0].path == "3.png"


def test_a_picture_of_no_bytes_is_there_and_damaged_unless_a_path_leads_to_one(tmp_path):
    said = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A cup."}]
    cells = [{"bytes": b"", "path": None}, {"bytes": b"", "path": "a.png"}, {"bytes": None, "path": None}]
    rows = [{"picture": cell, "talk": said} for cell in cells]
    found = read(parquet(tmp_path / "a.parquet", rows), image="picture", turns="talk")
    assert [[(one.data, one.path) for page in row.pages for one in page.pictures] for row in found] == [
        [(b"", None)],
        [(None, "a.png")],
        [],
    ]


def test_an_image_is_bytes_an_object_a_data_uri_or_a_path_and_a_cell_may_hold_several(tmp_path):
    data = picture(1)
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    rows = [
        {"image": ["a.png", uri, {"bytes": None, "path": "b.png"}], "text": "Three"},
        {"image": "c.png", "text": "One"},
    ]
    lines = json_lines(tmp_path / "a.jsonl", [{"image": row["image"], "q": "Q", "a": "A"} for row in rows])
    three, one = read(lines, image="image", question="q", answer="a")
    assert [(image.path, image.data) for image in three.pages[0].pictures] == [
        ("a.png", None),
        (None, data),
        ("b.png", None),
    ]
    assert [node.kind for node in three.pages[0].nodes] == ["image"] * 3 + ["text"] * 2
    assert one.pages[0].pictures[0].path == "c.png"
    (whole,) = read(
        parquet(tmp_path / "a.parquet", [{"photo": data, "words": "A cat"}]), image="photo", caption="words"
    )
    assert whole.pages[0].pictures[0].data == data
    listed = [{"one": json.dumps(["a.png", "b.png"]), "two": "c.png", "q": "Q", "a": "A"}]
    (row,) = read(separated(tmp_path / "a.csv", listed), image=["one", "two"], question="q", answer="a")
    assert [image.path for image in row.pages[0].pictures] == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("answer", ["B", "b", "(B)", "1", 1, "a dog"])
def test_choices_follow_the_question_with_letters_and_the_answer_is_one(tmp_path, answer):
    rows = [{"q": "What?", "first": "a cat", "second": "a dog", "a": answer}]
    (row,) = read(json_lines(tmp_path / "a.jsonl", rows), question="q", answer="a", choices=["first", "second"])
    assert texts(row) == [("user", 0, f"What?\nA. a cat\nB. a dog\n{ASKED}"), ("assistant", 0, "B")]


@pytest.mark.parametrize("form", ["{}) {}", "({}) {}", "{}. {}", "{}: {}"])
@pytest.mark.parametrize("answer", ["B", "1", "a dog", "whole"])
def test_choices_with_letters_of_their_own_get_no_second_ones(tmp_path, form, answer):
    """As ArxivQA has them."""
    choices = [form.format(letter, said) for letter, said in (("A", "a cat"), ("b", "a dog"))]
    rows = [{"q": "What?", "choices": choices, "a": choices[1] if answer == "whole" else answer}]
    (row,) = read(json_lines(tmp_path / "a.jsonl", rows), question="q", answer="a", choices="choices")
    assert texts(row) == [("user", 0, f"What?\nA. a cat\nB. a dog\n{ASKED}"), ("assistant", 0, "B")]


@pytest.mark.parametrize("answer", ["B. a dog", "(b) a dog", " B) a dog "])
def test_an_answer_may_be_a_choice_with_its_letter_in_front(tmp_path, answer):
    assert choose(tmp_path, ["a cat", "a dog"], answer) == "B"
    assert "is none of the 2 choices" in choose(tmp_path, ["a cat", "a dog"], answer.replace("dog", "cow"))
    assert "is none of the 2 choices" in choose(tmp_path, ["a dog", "a cat"], answer), "the letter is another's"


def test_choices_may_be_padded_to_any_length(tmp_path):
    assert choose(tmp_path, ["a cat", "a dog", *[""] * 40], "B") == "B"


def test_choices_that_only_begin_like_letters_stay_as_they_are(tmp_path):
    rows = [{"q": "Who?", "choices": ["A. Smith", "C. Jones"], "a": "C. Jones"}]
    (row,) = read(json_lines(tmp_path / "a.jsonl", rows), question="q", answer="a", choices="choices")
    assert texts(row)[0][2] == f"Who?\nA. A. Smith\nB. C. Jones\n{ASKED}"


def choose(folder, choices, answer, **options):
    rows = [{"q": "What?", "choices": choices, "a": answer}]
    (row,) = read(json_lines(folder / "a.jsonl", rows), question="q", answer="a", choices="choices", **options)
    return texts(row)[1][2] if row.pages else details(row)[0]


@pytest.mark.parametrize("answer", ["C", 2, "a crow"])
def test_an_empty_choice_keeps_its_letter_and_number(tmp_path, answer):
    """Else C and 2 would become the letter of the choice behind the one that they name."""
    rows = [{"q": "What?", "A": "a cat", "B": "", "C": "a crow", "D": "a dog", "a": answer}]
    (row,) = read(json_lines(tmp_path / "a.jsonl", rows), question="q", answer="a", choices=["A", "B", "C", "D"])
    assert texts(row) == [("user", 0, f"What?\nA. a cat\nC. a crow\nD. a dog\n{ASKED}"), ("assistant", 0, "C")]
    assert choose(tmp_path, ["a cat", None, "a crow"], answer) == "C"


@pytest.mark.parametrize(
    ("choices", "answer"), [(["a cat", "", "a dog"], "B"), (["", "a cat"], 0), (["a cat", ""], "1")]
)
def test_an_answer_does_not_name_a_choice_that_is_empty(tmp_path, choices, answer):
    assert choose(tmp_path, choices, answer).startswith(f"the answer '{answer}' is none of the ")


def test_choices_with_letters_of_their_own_close_ranks_over_an_empty_one(tmp_path):
    for answer in ("B", "a dog", "B) a dog"):
        assert choose(tmp_path, ["A) a cat", "", "B) a dog"], answer) == "B"


@pytest.mark.parametrize(
    ("choices", "answer", "found"),
    [
        (["B", "A"], "B", {"letter": "B", "words": "A"}),
        (["4", "3", "2", "1"], "1", {"number": "B", "words": "D", "number_from_1": "A"}),
        ([4, 3, 2, 1], 1, {"number": "B", "words": "D", "number_from_1": "A"}),
    ],
)
def test_an_answer_that_names_two_choices_is_refused_until_the_recipe_says_which_counts(
    tmp_path, choices, answer, found
):
    assert "names two choices" in choose(tmp_path, choices, answer)
    assert {naming: choose(tmp_path, choices, answer, answer_as=naming) for naming in found} == found


def test_a_number_among_choices_of_texts_is_the_place_of_one(tmp_path):
    assert choose(tmp_path, ["4", "3", "2", "1"], 1) == "B"
    assert choose(tmp_path, ["5", "7"], 7) == "B"  # no place has this number


def test_numbers_from_1_are_read_where_the_recipe_says_so_and_suggested_where_one_is_too_large(tmp_path):
    said = choose(tmp_path, ["a cat", "a dog", ""], "2")
    assert said.endswith(
        "none of the 2 choices; where numbers count from 1, answer_as: number_from_1 in the options says so"
    )
    assert choose(tmp_path, ["a cat", "a dog", ""], "2", answer_as="number_from_1") == "B"
    assert "answer_as" not in choose(tmp_path, ["a cat", "a dog"], "3")
    with pytest.raises(
        RecipeError, match="answer_as says how an answer names its choice: name the columns with choices"
    ):
        read(json_lines(tmp_path / "a.jsonl", [{}]), question="q", answer="a", answer_as="letter")


def test_a_turn_of_a_tool_is_refused_until_speakers_says_who_speaks(tmp_path):
    said = [("human", "Find it."), ("gpt", "Looking."), ("observation", "[3, 4]"), ("gpt", "At 3, 4.")]
    path = json_lines(tmp_path / "a.jsonl", [{"turns": [{"from": who, "value": text} for who, text in said]}])
    (refused,) = read(path, turns="turns")
    assert refused.failed[0][0] is Reason.UNSUPPORTED_CONTENT
    (row,) = read(path, turns="turns", speakers={"observation": "user"})
    roles = ["user", "assistant", "user", "assistant"]
    assert [(role, text) for role, _, text in texts(row)] == list(zip(roles, (text for _, text in said), strict=True))


def test_an_object_of_bytes_and_path_in_json_has_its_bytes_as_base64(tmp_path):
    data = picture(1, (8, 8))
    held = [base64.b64encode(data).decode(), "no picture", [1], ""]
    rows = [{"image": {"bytes": one, "path": "a.png"}, "text": "A cat"} for one in held]
    whole, text, listed, empty = read(json_lines(tmp_path / "a.jsonl", rows), image="image", caption="text")
    assert whole.pages[0].pictures[0].data == data
    assert details(text) == ["image has bytes that are a str, expected bytes or base64"]
    assert details(listed) == ["image has bytes that are a list, expected bytes or base64"]
    assert empty.pages[0].pictures[0].path == "a.png"


def test_an_answer_that_is_no_choice_is_a_bad_row(tmp_path):
    rows = [{"q": "What?", "choices": ["a cat", "a dog"], "a": said} for said in ("a cow", "2", "C", "A")]
    lost = read(json_lines(tmp_path / "a.jsonl", rows), question="q", answer="a", choices="choices")
    assert [bool(row.failed) for row in lost] == [True, True, True, False]
    assert details(lost[0]) == ["the answer 'a cow' is none of the 2 choices"]


def test_lists_of_questions_and_answers_are_turns_and_several_answers_to_one_are_references(tmp_path):
    rows = [
        {"q": ["One?", "Two?"], "a": ["1", "2"]},
        {"q": "One?", "a": ["1", "one"]},
        {"q": ["One?", "Two?"], "a": ["1"]},
        {"q": 7, "a": 2.5},
        {"q": "One?", "a": ["", None, "1"]},
        {"q": "One?", "a": [" "]},
        {"q": "One?", "a": []},
    ]
    turns, references, uneven, numbers, later, *blank = read(
        json_lines(tmp_path / "a.jsonl", rows), question="q", answer="a"
    )
    assert texts(turns) == [("user", 0, "One?"), ("assistant", 0, "1"), ("user", 1, "Two?"), ("assistant", 1, "2")]
    assert texts(references) == [("user", 0, "One?"), ("assistant", 0, "1")]
    assert details(uneven) == ["questions: 2, answers: 1, expected as many of both"]
    assert texts(numbers) == [("user", 0, "7"), ("assistant", 0, "2.5")]
    assert texts(later) == [("user", 0, "One?"), ("assistant", 0, "1")]
    assert [row.failed for row in blank] == [((Reason.EMPTY_ROW, "no a"),)] * 2


def test_conversations_show_images_where_they_say_and_else_before_the_first_question(tmp_path):
    rows = [
        {"image": "a.png", "talk": talk("Look: <image> what?", "A cat.")},
        {"image": "a.png", "talk": talk("What?", "A cat.", keys=("role", "content"))},
        {"image": None, "talk": talk("What?", "Words.")},
        {"image": None, "talk": talk("<image>What?", "Words.")},
        {"image": "a.png", "talk": json.dumps(talk("What?", "A cat."))},
        {"image": "a.png", "talk": "What?"},
    ]
    marked, plain, text, missing, written, wrong = read(
        json_lines(tmp_path / "a.jsonl", rows), image="image", turns="talk"
    )
    assert [kind for _, _, kind in texts(marked)] == ["Look: ", None, " what?", "A cat."]
    assert texts(plain) == texts(written) == [("user", 0, None), ("user", 0, "What?"), ("assistant", 0, "A cat.")]
    assert texts(text) == [("user", 0, "What?"), ("assistant", 0, "Words.")]
    assert details(missing) == ["1 times <image> for 0 images"]
    assert wrong.failed


def test_licences_and_numbers_travel_with_the_sample_and_other_columns_are_noted(tmp_path):
    rows = [{"link": "http://img.test/1", "text": "A cat", "rights": "cc0", "score": 0.5, "other": "x"}]
    (row,) = read(
        json_lines(tmp_path / "a.jsonl", rows),
        "web_table",
        image="link",
        caption="text",
        licence="rights",
        signals=["score"],
    )
    (page,) = row.pages
    assert (page.licence, page.signals, page.unread) == ("cc0", {"score": 0.5}, ("other",))
    assert page.pictures[0].url == "http://img.test/1"


def test_a_row_of_a_table_without_its_image_is_bad_and_an_address_is_for_the_web_table(tmp_path):
    rows = [{"image": None, "text": "A cat"}, {"image": "http://img.test/1", "text": "A cat"}]
    missing, web = read(json_lines(tmp_path / "a.jsonl", rows), image="image", caption="text")
    assert details(missing) == ["no image"]
    assert "kind fetches nothing" in details(web)[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": "a"}, "name the columns of one form"),
        ({"caption": "b", "question": "c", "answer": "d", "image": "a"}, "name the columns of one form"),
        ({"caption": "b"}, "a caption or text of OCR belongs to an image"),
        ({"ocr": "b"}, "a caption or text of OCR belongs to an image"),
        ({"image": "a", "ocr": "b", "caption": "c"}, "name the columns of one form"),
        ({"image": "a", "caption": "c", "ocr_boxes": "b"}, "ocr_boxes are about the texts of ocr"),
        ({"question": "c"}, "name both columns"),
    ],
)
def test_options_that_say_nothing_of_a_row_or_two_things_are_refused(options, said):
    with pytest.raises(RecipeError, match=said):
        parse_block(SOURCES["table"], options, "options")


def test_a_damaged_arrow_file_is_named_and_nothing_is_read_outside_of_it(tmp_path):
    path = arrow(tmp_path / "a.arrow", ROWS)
    whole = path.read_bytes()
    offsets = whole.index(b"0.png1.png2.png") - 64  # the buffer before the values of the first batch
    for number, damaged in enumerate(
        (whole[: len(whole) // 2], b"\0" * 64, whole[:offsets] + b"\xff\xff\xff\x7f" * 8 + whole[offsets + 32 :])
    ):
        broken = tmp_path / f"{number}.arrow"
        broken.write_bytes(damaged)
        with pytest.raises(BadFileError, match=rf"{number}\.arrow"):
            read(broken, image="file", question="asked", answer="said")


def test_an_arrow_file_of_either_form_is_read_and_datasets_writes_one_of_them(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    (saved,) = (tmp_path / "saved").glob("*.arrow")
    options = {"image": "file", "question": "asked", "answer": "said"}
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(tmp_path / "file.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=2)
    rows = read(saved, **options)
    assert rows == read(tmp_path / "file.arrow", **options)
    assert len(rows) == len(ROWS)


def test_ids_of_images_become_names_of_files_and_names_stay(tmp_path):
    rows = [{"image_id": said, "question": "Is it there?", "answer": "No."} for said in ("2371", 2371, "chart.png", "")]
    path = json_lines(tmp_path / "rows.jsonl", rows)
    source = SOURCES["table"](image="image_id", file="{image}.jpg", question="question", answer="answer")
    read = list(source.rows(path, range(4)))
    assert [row.pages[0].pictures[0].path for row in read[:3]] == ["2371.jpg", "2371.jpg", "chart.png"]
    assert read[3].failed


def test_numbers_of_images_are_filled_up_with_zeros(tmp_path):
    rows = [{"image_id": said, "question": "Is it there?", "answer": "No."} for said in (139, "7", 123456, "a/1.png")]
    path = json_lines(tmp_path / "rows.jsonl", rows)
    source = SOURCES["table"](image="image_id", file="v_{image:05}.jpg", question="question", answer="answer")
    found = [row.pages[0].pictures[0].path for row in source.rows(path, range(4))]
    assert found == ["v_00139.jpg", "v_00007.jpg", "v_123456.jpg", "a/1.png"]
    with pytest.raises(ValueError, match=r"expected a path with \{image\} in it, such as \{image\}.jpg"):
        SOURCES["table"](image="image_id", file="{id}.jpg", question="question", answer="answer")


@pytest.mark.parametrize(("kind", "options"), [("web_table", {"image": "url"}), ("table", {})])
def test_a_path_without_files_of_images_is_refused(kind, options):
    with pytest.raises(ValueError, match="file is the path of an image"):
        SOURCES[kind](file="{image}.jpg", question="q", answer="a", **options)


def test_an_answer_that_looks_like_a_list_stays_as_it_is_written(tmp_path):
    rows = [
        {"q": "Where is the cat?", "a": "[12, 30, 45, 60]"},
        {"q": "[image] What?", "a": '["red", "blue"]'},
        {"q": '["One?", "Two?"]', "a": '["1", "2"]'},
        {"q": '["One?", "Two?"]', "a": "[1]"},
    ]
    box, colours, turns, uneven = read(separated(tmp_path / "a.csv", rows), question="q", answer="a")
    assert texts(box)[-1] == ("assistant", 0, "[12, 30, 45, 60]")
    assert texts(colours)[-1] == ("assistant", 0, '["red", "blue"]')
    assert [text for _, _, text in texts(turns)] == ["One?", "1", "Two?", "2"]
    assert [text for _, _, text in texts(uneven)] == ['["One?", "Two?"]', "[1]"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('image;caption\na.png;"A dog; a cat"\n', "A dog; a cat"),
        ("image;caption\na.png;1,5 m\n", "1,5 m"),
        ("image\tcaption\na.png\tA dog\n", "A dog"),
        ("image,caption,a;b;c;d\na.png,A dog,1\n", "A dog"),
        ('"image","caption"\n"a.png","A dog; a cat"\n', "A dog; a cat"),
    ],
)
def test_what_separates_the_values_of_csv_is_seen_from_its_header(tmp_path, text, said):
    path = tmp_path / "a.csv"
    path.write_text(text)
    (row,) = read(path, image="image", caption="caption")
    assert [(node.text, node.url) for node in row.pages[0].nodes] == [(None, "a.png"), (said, None)]


def test_of_several_columns_and_places_of_a_list_the_first_caption_that_is_not_blank_counts(tmp_path):
    rows = [
        {"image": "a.png", "en": "A cat.", "all": ["Ein Hund.", "A dog."]},
        {"image": "b.png", "en": "  ", "all": ["Ein Hund.", "A dog."]},
        {"image": "c.png", "en": None, "all": ["Ein Fuchs."]},
        {"image": "d.png", "en": None, "all": [" "]},
    ]
    options = {"image": "image", "caption": ["en", "all.1", "all"]}
    for path in (json_lines(tmp_path / "a.jsonl", rows), parquet(tmp_path / "a.parquet", rows)):
        found = read(path, **options)
        texts = [[node.text for page in row.pages for node in page.nodes if node.text] for row in found]
        assert texts == [["A cat."], ["A dog."], ["Ein Fuchs."], []]
        assert found[3].failed == ((Reason.EMPTY_ROW, "no text"),)


READ = ["Invoice", "12", "Total", "3.50"]
BOXES = [[10, 10, 60, 22], [70, 11, 90, 23], [10, 40, 50, 52], [60, 41, 90, 53]]
WITH_BOXES = [{"text": text, "bbox": box} for text, box in zip(READ, BOXES, strict=True)]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"words": READ, "bboxes": BOXES}, "Invoice 12\nTotal 3.50"),
        ({"words": READ}, "Invoice 12 Total 3.50"),
        ({"words": ["Invoice", 12, "Total", 3.5]}, "Invoice 12 Total 3.5"),
        ({"words": [], "bboxes": []}, "no text"),
        ({"words": None, "bboxes": None}, "no text"),
        ({"words": READ[:3], "bboxes": BOXES}, "words has 3 texts, and there are 4 boxes"),
        ({"words": 7}, "words is int, expected what OCR read"),
        ({"words": {"label": "x"}}, "words has no text of OCR; it has label"),
        ({"words": "As it stands"}, "As it stands"),
        ({"words": WITH_BOXES}, "Invoice 12\nTotal 3.50"),
        ({"words": {"text": READ, "bbox": BOXES}}, "Invoice 12\nTotal 3.50"),
        ({"words": [{"words": [{"text": text} for text in READ[:2]]}, {"text": "Total"}]}, "Invoice 12 Total"),
    ],
)
def test_what_ocr_read_is_the_text_of_its_picture_line_by_line(tmp_path, cells, said):
    options = {"image": "image", "ocr": "words", **({"ocr_boxes": "bboxes"} if "bboxes" in cells else {})}
    rows = [{"image": "a.png", **cells}]
    written = [{name: json.dumps(cell) if isinstance(cell, list | dict) else cell for name, cell in rows[0].items()}]
    for path in (json_lines(tmp_path / "a.jsonl", rows), json_lines(tmp_path / "written.jsonl", written)):
        (row,) = read(path, **options)
        found = [(node.kind, node.text, node.supervised) for page in row.pages for node in page.nodes]
        assert found in ([], [("image", None, False), ("text", said, True)])
        assert bool(found) == ("Invoice" in said or "stands" in said)
        assert details(row) == [] if found else said in details(row)[0]


def test_lines_and_words_of_ocr_in_parquet_and_within_objects_are_read(tmp_path):
    rows = [{"image": "a.png", "page": {"lines": READ[::2], "tokens": READ, "boxes": BOXES}}]
    path = parquet(tmp_path / "a.parquet", rows)
    (lines,) = read(path, image="image", ocr="page.lines")
    (words,) = read(path, image="image", ocr="page.tokens", ocr_boxes="page.boxes")
    assert lines.pages[0].nodes[1].text == "Invoice\nTotal"
    assert words.pages[0].nodes[1].text == "Invoice 12\nTotal 3.50"
