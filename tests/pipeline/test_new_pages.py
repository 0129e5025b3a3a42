"""`vlmill new` over scans: pictures of pages beside what an OCR program wrote, and PDFs without a text layer."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from tests.helpers.upstream import picture, tar
from vlmill.pipeline.proposal.page_texts import read_page_text
from vlmill.pipeline.proposal.proposal import examine_place
from vlmill.pipeline.proposal.table import explain_nothing

WORDS = [("Dear", 10, 5), ("Sir,", 60, 6), ("yours.", 12, 40)]
"""Words of a page, and where each begins: two lines, the first of two words."""


def spread(make):
    return [make(word, left, top) for word, left, top in WORDS]


FORMS = {
    "words": {"words": spread(lambda word, x, y: {"text": word, "bbox": [x, y, x + 40, y + 20], "conf": 0.9})},
    "sizes": {"words": spread(lambda word, x, y: {"text": word, "left": x, "top": y, "width": 40, "height": 20})},
    "widths": spread(lambda word, x, y: {"text": word, "box": [x, y + 100, 40, 20]}),
    "lines": {"page": 1, "lines": [{"text": "Dear Sir,"}, {"text": "yours."}]},
    "textract": {
        "Blocks": [
            {"BlockType": "PAGE"},
            *({"BlockType": "LINE", "Text": line} for line in ("Dear Sir,", "yours.")),
            *({"BlockType": "WORD", "Text": word} for word, _, _ in WORDS),
        ]
    },
    "tesseract": {"text": ["", "Dear", "Sir,", "yours."], "line_num": [0, 1, 1, 2], "block_num": [1] * 4},
    "doctr": {
        "pages": [
            {
                "blocks": [
                    {
                        "geometry": [[0, 0], [1, 1]],
                        "lines": [
                            {"geometry": [[0, 0], [1, 1]], "words": [{"value": word} for word in line.split()]}
                            for line in ("Dear Sir,", "yours.")
                        ],
                    }
                ]
            }
        ]
    },
    "paddle": {"rec_texts": ["Dear Sir,", "yours."], "rec_scores": [0.9, 0.8]},
    "easyocr": spread(lambda word, x, y: [[[x, y], [x + 40, y], [x + 40, y + 20], [x, y + 20]], word, 0.9]),
    "azure": {"status": "succeeded", "analyzeResult": {"content": "Dear Sir,\nyours.", "pages": [{"lines": []}]}},
    "google": {"responses": [{"fullTextAnnotation": {"text": "Dear Sir,\nyours.\n"}, "textAnnotations": []}]},
    "whole": {"textAnnotations": [{"description": "Dear Sir,\nyours."}, *({"description": one[0]} for one in WORDS)]},
    "corners": {
        "words": spread(
            lambda word, x, y: {"text": word, "boundingPoly": {"vertices": [{"x": x, "y": y}, {"x": x, "y": y + 20}]}}
        )
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_the_words_and_lines_of_ocr_are_the_text_of_a_page_line_by_line(form):
    assert read_page_text(FORMS[form]) == "Dear Sir,\nyours."


@pytest.mark.parametrize(
    "said",
    [
        {"text": "A plain text."},  # a column like others
        {"caption": "A dog.", "words": [{"text": "STOP"}]},
        {"messages": [{"role": "user", "content": "What?"}]},
        [{"role": "user", "content": "What?"}],
        [{"question": "What?", "answer": "A.", "box": [1, 2, 3, 4], "text": "A"}],
        {"id": 1, "width": 640},
    ],
)
def test_what_says_something_else_of_a_picture_is_no_text_of_a_page(said):
    assert read_page_text(said) is None


def write_pages(folder, suffix="png"):
    folder.mkdir(parents=True)
    for row in range(3):
        Image.open(io.BytesIO(picture(row))).convert("RGB").save(folder / f"page{row}.{suffix}")


@pytest.mark.parametrize("name", ["page{}.json", "page{}.png.json", "../ocr/page{}.json", "ocr/page{}.json"])
def test_scans_beside_their_ocr_become_rows_of_pictures_and_texts(name, tmp_path):
    folder = tmp_path / "scans" / "pages"
    write_pages(folder)
    for row in range(3):
        (folder / name.format(row)).parent.mkdir(exist_ok=True)
        (folder / name.format(row)).write_text(json.dumps({"licence": "CC0", "score": row, **FORMS["words"]}))
    found = examine_place(str(tmp_path / "scans"))
    assert found.chosen is not None
    assert (found.chosen.kind, dict(found.chosen.options)) == (
        "table",
        {"image": "image", "caption": "text", "licence": "licence"},
    )
    assert [one["text"] for one in found.listed] == ["Dear Sir,\nyours."] * 3
    assert "words" not in found.listed[0]
    assert any(note.startswith("the texts of 3 pages were made of") for note in found.notes)


def test_captions_in_a_folder_of_their_own_are_found_but_not_where_two_pictures_have_the_name(tmp_path):
    for row in range(3):
        for kind, end, data in (("images", "png", picture(row)), ("texts", "txt", f"Shape {row}.".encode())):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / f"{row}.{end}").write_bytes(data)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "2.png").write_bytes(picture(9))
    rows = {row["image"]: row.get("caption") for row in examine_place(str(tmp_path)).listed}
    assert rows == {"images/0.png": "Shape 0.", "images/1.png": "Shape 1.", "images/2.png": None, "more/2.png": None}


@pytest.mark.parametrize("keyed", [True, False])
def test_one_file_of_ocr_for_all_pages_names_its_pictures(keyed, tmp_path):
    write_pages(tmp_path / "scans")
    pages = {f"page{row}.png": FORMS["words"] for row in range(2)}
    listed = {"pages": [{"file": f"scans/{name}", **said} for name, said in pages.items()]}
    (tmp_path / "scans" / "ocr.json").write_text(json.dumps(pages if keyed else listed))
    found = examine_place(str(tmp_path / "scans"))
    assert [one.get("text") for one in found.listed] == ["Dear Sir,\nyours."] * 2 + [None]
    assert any("1 of 3 pictures" in note for note in found.notes)


def test_scans_without_a_text_are_told_what_writes_one(tmp_path):
    write_pages(tmp_path / "scans")
    with pytest.raises(Exception, match="docs/documents.md, Scans"):
        examine_place(str(tmp_path / "scans"))
    (tmp_path / "pdf").mkdir()
    Image.new("RGB", (60, 80)).save(tmp_path / "pdf" / "scan.pdf")
    said = explain_nothing(examine_place(str(tmp_path / "pdf")))
    assert "ocrmypdf -s IN.pdf OUT.pdf" in said
    assert "docs/documents.md, Scans" in said


TALK = [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "A page."}]


@pytest.mark.parametrize("said", [TALK, {"messages": TALK}])
def test_a_tar_of_pictures_and_conversations_says_to_unpack_it_and_what_is_unpacked_is_read(said, tmp_path):
    (tmp_path / "unpacked").mkdir()
    members = [
        (f"{row}.{end}", data)
        for row in range(3)
        for end, data in (("png", picture(row)), ("json", json.dumps(said).encode()))
    ]
    refused = examine_place(str(tar(tmp_path / "talk.tar", members)))
    assert refused.chosen is None
    assert "vlmill new unpacked" in explain_nothing(refused)
    for name, data in members:
        (tmp_path / "unpacked" / name).write_bytes(data)
    found = examine_place(str(tmp_path / "unpacked"))
    assert found.chosen is not None
    assert dict(found.chosen.options) == {"image": "image", "turns": "messages"}


def write_rows(folder, rows):
    """Rows about pictures of pages, which lie beside them."""
    for number, row in enumerate(rows):
        (folder / f"{number}.png").write_bytes(picture(number, (60, 60)))
        row["image"] = f"{number}.png"
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return examine_place(str(folder / "rows.jsonl"))


PAGES = [["Dear", "Sir,", "yours."], ["Paid", "on", "Monday"]]
PLACES = [[10, 5, 50, 25], [60, 6, 90, 24], [12, 40, 50, 60]]


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        ([{"tokens": page, "bboxes": PLACES} for page in PAGES], {"ocr": "tokens", "ocr_boxes": "bboxes"}),
        ([{"lines": [page[0] + " " + page[1], page[2]]} for page in PAGES], {"ocr": "lines"}),
        (
            [
                {"read": [{"text": text, "box": box} for text, box in zip(page, PLACES, strict=True)], "doctype": "a"}
                for page in PAGES
            ],
            {"ocr": "read"},
        ),
        (
            [{"scan": {"words": page, "boxes": PLACES}} for page in PAGES],
            {"ocr": "scan"},
        ),
        ([{"tokens": page, "caption": "A letter."} for page in PAGES], {"caption": "caption"}),
        (
            [{"words": page, "question": "Who?", "answer": "Sir"} for page in PAGES],
            {"question": "question", "answer": "answer"},
        ),
    ],
)
def test_columns_of_what_ocr_read_are_found_where_rows_say_nothing_else(tmp_path, rows, options):
    chosen = write_rows(tmp_path, rows).chosen
    assert chosen.kind == "table"
    assert chosen.options == {"image": "image", **options}
    if "ocr" in options:
        assert [page.nodes[1].text for page in chosen.pages] == ["Dear Sir,\nyours.", "Paid on\nMonday"]


def test_a_named_column_of_ocr_brings_its_boxes_along(tmp_path):
    rows = [{"seen": page, "bboxes": PLACES} for page in PAGES]
    assert write_rows(tmp_path, rows).chosen is None
    chosen = examine_place(str(tmp_path / "rows.jsonl"), named={"ocr": ["seen"]}).chosen
    assert chosen.options == {"image": "image", "ocr": "seen", "ocr_boxes": "bboxes"}
    assert chosen.pages[0].nodes[1].text == "Dear Sir,\nyours."
