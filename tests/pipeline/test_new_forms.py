"""`vlmill new` on the forms that trainers take: OpenAI, LLaMA-Factory, ms-swift, TRL, `save_to_disk`, folders."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import datasets
import pytest

import vlmill as api
from tests.helpers.small import vlmill
from tests.helpers.upstream import json_lines, picture, talk
from vlmill.pipeline.cli.hub_recipe import list_shipped, take_recipe
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.inputs.files import list_input_files
from vlmill.pipeline.proposal.page_texts import OF_A_PAGE
from vlmill.pipeline.proposal.place_names import find_wrapped, make_pattern, split_names
from vlmill.pipeline.proposal.proposal import examine_place
from vlmill.pipeline.sources.llava import LlavaSource, WebLlavaSource
from vlmill.pipeline.sources.table import TableSource

ROWS = range(4)
ASK, SAY = {"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "A dog."}
IMAGE = "images/0.png"


def openai(url):
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": url, "detail": "low"}}]
    return {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}, SAY]}


DATA = f"data:image/png;base64,{base64.b64encode(picture(1)).decode()}"
PARTS = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}, SAY]
FORMS = {
    "OpenAI, addresses": (openai("https://img.test/0.png"), "web_llava", {}),
    "OpenAI, data": (openai(DATA), "llava", {}),
    "LLaMA-Factory, sharegpt": ({"conversations": talk("<image>What?", "A dog."), "images": [IMAGE]}, "llava", {}),
    "LLaMA-Factory, alpaca": (
        {"instruction": "<image>Answer.", "input": "What?", "output": "A dog.", "images": [IMAGE]},
        "table",
        {"image": "images", "question": ["instruction", "input"], "answer": "output"},
    ),
    "ms-swift": ({"messages": [ASK, SAY], "images": [IMAGE]}, "llava", {}),
    "ms-swift, query": (
        {"query": "<image>What?", "response": "A dog.", "images": [IMAGE]},
        "table",
        {"image": "images", "question": "query", "answer": "response"},
    ),
    "TRL, prompt and completion": (
        {"prompt": [ASK], "completion": [SAY], "images": [IMAGE]},
        "table",
        {"image": "images", "turns": ["prompt", "completion"]},
    ),
    "TRL, parts": ({"messages": PARTS, "images": [IMAGE]}, "llava", {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_a_trainer_is_read_with_its_question_its_image_and_its_answer(form, tmp_path):
    row, kind, options = FORMS[form]
    (tmp_path / "images").mkdir()
    (tmp_path / IMAGE).write_bytes(picture(0))
    found = examine_place(str(json_lines(tmp_path / "a.jsonl", [row] * 4)))
    assert (found.chosen.kind, dict(found.chosen.options)) == (kind, options)
    for page in found.chosen.pages:
        assert len(page.pictures) == 1
        assert "What?" in [line for node in page.nodes if node.role == "user" for line in (node.text or "").split("\n")]
        assert [node.text for node in page.nodes if node.supervised] == ["A dog."]


def rows(source, path):
    return list(source.rows(path, range(len(source.survey(path)))))


def test_addresses_and_files_are_of_two_kinds_and_each_names_the_other(tmp_path):
    beside = {"messages": [ASK, SAY]}
    there = [
        openai("https://img.test/0.png"),
        openai("0.png"),
        {**beside, "images": ["http://img.test/0"]},
        {**beside, "images": [IMAGE]},
        openai(DATA),
    ]
    path = json_lines(tmp_path / "a.jsonl", there)
    web, files = rows(WebLlavaSource(), path), rows(LlavaSource(), path)
    assert [len(row.pages) for row in web] == [1, 0, 1, 0, 1]
    assert [len(row.pages) for row in files] == [0, 1, 0, 1, 1]
    assert web[0].pages[0].pictures[0].url == "https://img.test/0.png"
    lost = [(row.failed[0][0], row.failed[0][1]) for row in (*web, *files) if row.failed]
    assert {reason for reason, _ in lost} == {Reason.UNSUPPORTED_MEDIA}
    assert all("kind llava reads files" in detail or "web_llava" in detail for _, detail in lost)


def test_answers_in_the_prompt_of_trl_are_not_supervised(tmp_path):
    row = {"prompt": [{**ASK, "content": "Q"}, SAY, {**ASK, "content": "And?"}], "completion": [SAY]}
    (found,) = rows(TableSource(turns=("prompt", "completion")), json_lines(tmp_path / "a.jsonl", [row]))
    assert [(node.role, node.supervised) for node in found.pages[0].nodes] == [
        ("user", False),
        ("assistant", False),
        ("user", False),
        ("assistant", True),
    ]


def test_tables_that_datasets_saved_are_read_and_those_of_the_test_split_stay_unseen(tmp_path):
    saved = datasets.Dataset.from_list([{"messages": [{**ASK, "content": f"{row}?"}, SAY]} for row in ROWS])
    saved.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(tmp_path / "two")
    one, two = (examine_place(str(tmp_path / name)) for name in ("one", "two"))
    assert [one.chosen.kind, two.chosen.kind] == ["chat", "chat"]
    assert [file.name for file in list_input_files("a", one.root, one.files)] == [
        f"data-0000{part}-of-00002.arrow" for part in range(2)
    ]
    assert one.notes == ()
    assert [file.name for file in list_input_files("a", two.root, two.files)] == ["train/data-00000-of-00001.arrow"]
    assert two.notes == ("left out, so that it stays unseen: 1 file of test",)


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["data/train-0.parquet", "data/train-1.parquet", "data/test-0.parquet"], "data/train-*.parquet"),
        (["a/train/0.parquet", "b/train/0.parquet", "a/val/0.parquet"], "**/train*/*.parquet"),
        (["train/0.parquet", "train/1.parquet", "validation/0.parquet"], "train/*.parquet"),
        (["a/0.parquet", "b/1.parquet"], "**/*.parquet"),
        (["test-0.parquet", "test-1.parquet"], "*.parquet"),
        (["x[1]/0.csv", "x[1]/1.CSV"], "x[[]1]/*.[cC][sS][vV]"),
    ],
)
def test_a_pattern_means_the_files_of_train_where_there_are_others(names, pattern):
    assert make_pattern(*split_names(names)) == pattern


def test_pictures_with_json_beside_them_become_a_table(tmp_path):
    for row in ROWS:
        (tmp_path / f"{row}.jpg").write_bytes(picture(row, form="JPEG"))
        (tmp_path / f"{row}.json").write_text(
            json.dumps({"question": "What?", "answer": f"{row}", "image": "gone.jpg"})
        )
    (tmp_path / "0.json").write_text("{")
    (tmp_path / "1.txt").write_text("A shape.\n")
    found = examine_place(str(tmp_path))
    assert (found.chosen.kind, dict(found.chosen.options)) == (
        "table",
        {"image": "image", "question": "question", "answer": "answer"},
    )
    assert found.listed[:2] == (
        {"image": "0.jpg"},
        {"image": "1.jpg", "question": "What?", "answer": "1", "caption": "A shape."},
    )
    assert (
        "1 of 4 pictures have no .txt, .json or .hocr file that says anything, and give no sample: 0.jpg" in found.notes
    )


@pytest.mark.parametrize(
    "stray", ["Thumbs.db", "desktop.ini", ".DS_Store", "IMG_1.HEIC", "backup.zip", "a.docx", "a.pdf"]
)
def test_a_stray_file_does_not_part_pictures_from_the_json_beside_them(stray, tmp_path):
    for row in range(3):
        (tmp_path / f"{row}.jpg").write_bytes(picture(row))
        (tmp_path / f"{row}.json").write_text(json.dumps({"question": f"What is {row}?", "answer": f"It is {row}."}))
    clean = examine_place(str(tmp_path))
    (tmp_path / stray).write_bytes(b"no rows")
    found = examine_place(str(tmp_path))
    assert (found.chosen.options, found.listed) == (clean.chosen.options, clean.listed)
    assert found.chosen.options == {"image": "image", "question": "question", "answer": "answer"}
    known = stray == ".DS_Store" or any(f"1 {Path(stray).suffix.lower()}" in note for note in found.notes)
    assert known
    rows = [{"image": f"{row}.jpg", "caption": "From a list. " * 9} for row in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert examine_place(str(tmp_path)).chosen.options == {"image": "image", "caption": "caption"}


@pytest.mark.parametrize("suffix", [".txt", ".json"])
def test_what_stands_beside_a_picture_in_utf_16_is_read_and_in_another_encoding_it_says_nothing(suffix, tmp_path):
    said = "Die Bremsscheibe ist abgenutzt, größer als 2 mm."
    said = said if suffix == ".txt" else json.dumps({"caption": said}, ensure_ascii=False)
    codecs = {"plain": "utf-8", "mark": "utf-8-sig", "wide": "utf-16", "old": "latin-1"}
    for name, codec in codecs.items():
        (tmp_path / f"{name}.jpg").write_bytes(picture(1))
        (tmp_path / f"{name}{suffix}").write_bytes(said.encode(codec))
    found = examine_place(str(tmp_path))
    told = {row["image"]: row.get("caption") for row in found.listed}
    caption = "Die Bremsscheibe ist abgenutzt, größer als 2 mm."
    assert told == {"mark.jpg": caption, "old.jpg": None, "plain.jpg": caption, "wide.jpg": caption}
    assert any(f"1 files are not in UTF-8 and say nothing: old{suffix}; convert them" in note for note in found.notes)
    assert not any("no JSON" in note for note in found.notes)


def test_rows_beside_pictures_that_give_no_sample_are_noted_with_the_reason(tmp_path):
    for row in range(4):
        (tmp_path / f"{row}.jpg").write_bytes(picture(row))
        (tmp_path / f"{row}.txt").write_text(f"A shape {row}.")
    (tmp_path / "3.txt").unlink()
    (tmp_path / "3.json").write_text(json.dumps({"question": "What?", "answer": "A shape."}))
    found = examine_place(str(tmp_path))
    assert found.notes == ("1 of the first 4 rows gives no sample; row 3: no text",)


def test_pictures_that_nothing_decodes_are_named_with_what_to_do(tmp_path):
    for row in range(3):
        (tmp_path / f"{row}.heic").write_bytes(b"....ftypheic")
        (tmp_path / f"{row}.txt").write_text("A shape.")
    with pytest.raises(api.SourceError, match=r"are not read \(3 \.heic\): convert them to JPEG or PNG first"):
        examine_place(str(tmp_path))
    (tmp_path / "3.jpg").write_bytes(picture(3))
    (tmp_path / "3.txt").write_text("A shape.")
    assert any("(3 .heic): convert them" in note for note in examine_place(str(tmp_path)).notes)


def write_pictures(folder, count=6):
    """Pictures `000.png` and so on."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:03}.png").write_bytes(picture(number))


def test_captions_of_coco_are_joined_with_their_pictures_and_other_splits_stay_unseen(tmp_path):
    write_pictures(tmp_path / "images")
    images = [{"id": 10 + number, "file_name": f"{number:03}.png"} for number in range(5)]
    notes = [{"image_id": image, "caption": f"a dog {image}"} for image in (10, 10, 11, 12, 13, 14, 99)]
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    for split in ("train2017", "val2017"):
        (annotations / f"captions_{split}.json").write_text(json.dumps({"images": images, "annotations": notes}))
    found = examine_place(str(tmp_path))
    assert [row["caption"] for row in found.listed] == [f"a dog {one}" for one in (10, 10, 11, 12, 13, 14)]
    assert found.listed[0]["image"] == "images/000.png"
    assert (found.chosen.kind, found.samples) == ("table", 6)
    said = "; ".join(found.notes)
    assert "annotations of a picture that is not here: 1" in said
    assert "pictures without an annotation, which are left out: 1" in said
    assert "stays unseen: annotations/captions_val2017.json" in said


def test_questions_and_answers_in_two_files_are_joined(tmp_path):
    write_pictures(tmp_path / "images")
    questions = [{"question_id": 7 + n, "image_id": n, "question": f"How many, {n}?"} for n in range(6)]
    answers = [{"question_id": 7 + n, "image_id": n, "multiple_choice_answer": str(n)} for n in range(6)]
    (tmp_path / "q.json").write_text(json.dumps({"questions": questions}))
    (tmp_path / "a.json").write_text(json.dumps({"annotations": answers}))
    found = examine_place(str(tmp_path))
    assert found.listed[2] == {"image": "images/002.png", "question": "How many, 2?", "answer": "2"}
    assert found.chosen.options == {"image": "image", "question": "question", "answer": "answer"}


def test_numbers_beside_pictures_are_labels_of_detectors_and_no_captions(tmp_path):
    write_pictures(tmp_path / "photos")
    for number in range(6):
        (tmp_path / "photos" / f"{number:03}.txt").write_text("0 0.5 0.5 0.25 0.3\n2 0.1 0.1 0.2 0.2\n")
    with pytest.raises(api.SourceError, match=r"6 \.txt files hold numbers alone"):
        examine_place(str(tmp_path))


def test_folders_of_classes_are_captions(tmp_path):
    for name in ("brown_dog", "cat"):
        write_pictures(tmp_path / "train" / name)
    found = examine_place(str(tmp_path))
    assert {row["caption"] for row in found.listed} == {"brown dog", "cat"}
    assert "name of its folder" in "; ".join(found.notes)
    assert "are not read" not in "; ".join(found.notes)
    (tmp_path / "train" / "cat" / "meta.yaml").write_text("items: []\n")
    told = examine_place(str(tmp_path)).notes
    assert "files of other forms are not read (1 .yaml)" in "; ".join(told)


@pytest.mark.parametrize("folders", [("train", "test"), ("a",)])
def test_folders_that_say_nothing_are_no_captions(folders, tmp_path):
    for name in folders:
        write_pictures(tmp_path / name)
    with pytest.raises(api.SourceError, match="pictures without texts"):
        examine_place(str(tmp_path))


def test_pictures_in_base64_and_pairs_of_questions_and_answers_are_read(tmp_path):
    told = base64.b64encode(picture(1)).decode()
    pairs = [{"question": "How many?", "answer": 3}, {"question": "Which?", "answer": "red"}]
    json_lines(tmp_path / "a.jsonl", [{"image_b64": told, "qa": pairs}] * 4)
    found = examine_place(str(tmp_path / "a.jsonl"))
    assert found.chosen.options == {"image": "image_b64", "turns": "qa"}
    assert [node.text for node in found.chosen.pages[0].nodes[1:]] == ["How many?", "3", "Which?", "red"]
    assert found.chosen.pages[0].pictures[0].data == picture(1)


def test_a_dataset_on_the_hub_is_built_by_its_name_with_the_recipe_that_new_writes(here, tmp_path, monkeypatch, capfd):
    row = {"messages": [{**ASK, "content": "What?"}, SAY]}
    lines = json_lines(tmp_path / "a.jsonl", [{**row, "id": number} for number in ROWS]).read_bytes()
    here.repository("acme/Talk-Set", {"train.jsonl": lines, "test.jsonl": lines, "README.md": b""})
    monkeypatch.chdir(tmp_path)
    place = "hf://datasets/acme/Talk-Set"
    assert vlmill("check", place) == 1
    assert "vlmill new hf://datasets/acme/Talk-Set" in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "acme_talk_set.yaml").exists()
    for said in ("wrote acme_talk_set.yaml", "which was written before"):
        assert vlmill("build", place, "--workers", 0, "--until", "survey") == 0
        assert said in " ".join(capfd.readouterr().out.split())
    assert (tmp_path / "build/acme_talk_set/recipe.lock.yaml").exists()
    assert api.load_recipe("acme_talk_set.yaml").recipe.sources["acme_talk_set"].files == "train.jsonl"
    (tmp_path / "acme_talk_set.yaml").write_text("name: mine\n")
    assert vlmill("build", place, "--workers", 0) == 1
    assert "was not written for" in " ".join(capfd.readouterr().err.split())


def test_a_dataset_with_a_shipped_recipe_is_read_by_it(capsys):
    assert take_recipe("hf://datasets/HuggingFaceM4/OBELICS/") == "obelics"
    assert take_recipe("hf://datasets/HuggingFaceM4/OBELICS@main") == "obelics"
    assert "shipped recipe obelics" in capsys.readouterr().out
    assert list_shipped("hf://datasets/HuggingFaceM4/OBELICS@v1") == []
    with pytest.raises(RecipeError, match="llava_conversation_58k, llava_instruct_665k"):
        take_recipe("hf://datasets/liuhaotian/LLaVA-Instruct-150K")


HOCR = """<?xml version="1.0" encoding="UTF-8"?>
<html xmlns="http://www.w3.org/1999/xhtml"><head><title>not read</title><meta name="ocr-system" content="tesseract"/>
</head><body>{pages}</body></html>"""
HOCR_PAGE = """<div class='ocr_page' title='image "a.png"; bbox 0 0 90 60'><div class='ocr_carea'><p class='ocr_par'>
<span class='ocr_header' title='bbox 1 1 60 9'><span class='ocrx_word' title='x_wconf 93'>Toll</span>
 <span class='ocrx_word'><strong>{word}</strong></span></span>
<span class='ocr_line'><span class='ocrx_word'>Salt</span><br/> <span class='ocrx_word'>&amp;</span>
 <span class='ocrx_word'>tin</span></span></p></div></div>"""


def test_hocr_beside_pictures_is_their_text_and_that_of_several_pages_is_none(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(picture(number, (90, 60)))
        one = HOCR_PAGE.format(word=f"gate{number}")
        (tmp_path / f"{number}.hocr").write_text(HOCR.format(pages=one * (2 if number == 3 else 1)))
    found = examine_place(str(tmp_path))
    said = {row["image"]: row.get("text") for row in found.listed}
    assert said == {**{f"{number}.png": f"Toll gate{number}\nSalt & tin" for number in range(3)}, "3.png": None}
    assert any("1 of 4 pictures have no .txt, .json or .hocr file" in note for note in found.notes)
    assert any("the texts of 3 pages were made of the words and lines" in note for note in found.notes)


def test_words_that_ocr_read_on_a_picture_are_not_offered_as_rows(tmp_path, capsys):
    words = [{"text": word, "box": [9 * place, 1, 9 * place + 8, 9]} for place, word in enumerate(("Toll", "gate"))]
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(number, (90, 60)))
        (tmp_path / f"{number}.json").write_text(json.dumps({"width": 90, "words": words}))
    (tmp_path / "book.csv").write_text("a,b\n")  # with rows of another form nothing is beside pictures
    assert vlmill("new", tmp_path, "--out", tmp_path / "recipe.yaml") == 1
    said = "".join(capsys.readouterr())
    assert OF_A_PAGE in said
    assert "jq" not in said


def test_pages_that_name_their_pictures_are_rows_still(tmp_path):
    rows = [{"image": f"{number}.png", "text": "A toll gate."} for number in range(3)]
    assert find_wrapped(["pages.json"], [{"version": 1, "pages": rows}]).message.count("jq -c") == 1
    assert find_wrapped(["pages.json"], [{"version": 1, "pages": [{"text": row["text"]} for row in rows]}]) is None
