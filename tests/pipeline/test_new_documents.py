"""`vlmill new` on rows that are interleaved documents, and on texts and files that would have to become such rows."""

from __future__ import annotations

import base64

import pytest

from tests.helpers.upstream import json_lines, picture
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.proposal.proposal import examine_place
from vlmill.pipeline.proposal.recipe_text import write_recipe
from vlmill.pipeline.proposal.table import explain_nothing
from vlmill.pipeline.recipe.load import load_recipe

SHOWN = "https://img.example.org/{}.jpg"


def parts_of(row, **names):
    """A document of three parts as a crawler writes them."""
    shown, said = names.get("shown", "src"), names.get("said", "text")
    return [
        {"type": "text", said: f"The first gate of {row}."},
        {"type": "image", shown: SHOWN.format(row), "alt": "gate"},
        {"type": "text", said: "It is open."},
    ]


def read_kinds(found):
    return [node.kind for node in found.chosen.pages[0].nodes]


@pytest.mark.parametrize("beside", [{}, {"title": "A page"}, {"title": "A page", "description": "of gates", "id": 3}])
@pytest.mark.parametrize("names", [{}, {"shown": "image_url", "said": "body"}])
def test_parts_are_a_document_whatever_address_and_title_the_page_has(tmp_path, beside, names):
    rows = [{"url": f"https://example.org/{row}", **beside, "content": parts_of(row, **names)} for row in range(6)]
    found = examine_place(str(json_lines(tmp_path / "pages.jsonl", rows)))
    assert found.chosen.kind == "web_documents"
    assert found.chosen.options == {
        "images": f"content.{names.get('shown', 'src')}",
        "texts": f"content.{names.get('said', 'text')}",
    }
    assert read_kinds(found) == ["text", "image", "text"]
    assert found.chosen.pages[0].url == "https://example.org/0"


@pytest.mark.parametrize(
    ("shown", "kind"), [(SHOWN, "web_documents"), ("img/{}.jpg", "file_documents")], ids=["addresses", "files"]
)
def test_two_lists_of_one_length_are_a_document_under_any_names(tmp_path, shown, kind):
    rows = [
        {"page": f"https://example.org/{row}", "body": ["One.", None, "Two."], "pics": [None, shown.format(row), None]}
        for row in range(6)
    ]
    found = examine_place(str(json_lines(tmp_path / "lists.jsonl", rows)))
    assert found.chosen.kind == kind
    assert found.chosen.options == {"images": "pics", "texts": "body", "url": "page"}
    assert read_kinds(found) == ["text", "image", "text"]
    named = examine_place(str(tmp_path / "lists.jsonl"), {"texts": ["body"], "images": ["pics"]})
    assert (named.chosen.kind, dict(named.chosen.options)) == (kind, dict(found.chosen.options))


@pytest.mark.parametrize(
    "row",
    [
        {"image": SHOWN.format(1), "caption": "A gate."},
        {"image": SHOWN.format(1), "caption": "A gate.", "tags": ["gate", "iron"]},
        {"url": SHOWN.format(1), "text": "A gate.", "boxes": [{"label": "gate"}, {"label": "wall"}]},
    ],
)
def test_pictures_with_captions_stay_what_they_are(tmp_path, row):
    found = examine_place(str(json_lines(tmp_path / "pairs.jsonl", [row] * 6)))
    assert found.chosen.kind == "web_table"
    assert "caption" in found.chosen.options


@pytest.mark.parametrize("said", ["Before\n\n![a gate](https://e.org/a.jpg)", 'Before <img src="https://e.org/a.jpg">'])
def test_images_within_texts_are_named_with_the_page_that_helps(tmp_path, said):
    rows = [{"url": f"https://example.org/{row}", "text": said} for row in range(4)]
    found = examine_place(str(json_lines(tmp_path / "pages.jsonl", rows)))
    assert any("docs/web-documents.md" in note for note in found.notes)


@pytest.mark.parametrize("name", ["a.html", "a.htm", "crawl.warc", "crawl.warc.gz", "a.md"])
def test_pages_as_they_were_crawled_have_a_way_on(tmp_path, name):
    (tmp_path / name).write_bytes(b"<p>Gates</p>")
    with pytest.raises(SourceError, match="docs/web-documents.md, Pages of a crawl"):
        examine_place(str(tmp_path))


def test_lists_that_no_kind_reads_say_which_columns_to_name(tmp_path):
    rows = [{"body": ["One.", "Two."], "pics": [SHOWN.format(1)]}] * 4
    found = examine_place(str(json_lines(tmp_path / "lists.jsonl", rows)))
    assert found.chosen is None
    assert "--column texts=COLUMN --column images=COLUMN" in explain_nothing(found)


@pytest.mark.parametrize("named", [None, {"url": ["meta.page"]}])
def test_the_address_of_a_document_may_lie_within_an_object(tmp_path, named):
    parts = [{"body": "A gate.", "src": None}, {"body": None, "src": SHOWN.format(1)}]
    rows = [{"meta": {"page": f"https://example.org/{row}"}, "blocks": parts} for row in range(4)]
    found = examine_place(str(json_lines(tmp_path / "pages.jsonl", rows)), named)
    assert found.chosen.options == {"images": "blocks.src", "texts": "blocks.body", "url": "meta.page"}


@pytest.mark.parametrize("named", [{"texts": ["bodi"]}, {"texts": ["body"], "caption": ["body"]}, {"url": ["pics"]}])
def test_what_is_named_wrongly_of_documents_is_refused(tmp_path, named):
    place = json_lines(tmp_path / "lists.jsonl", [{"body": ["One."], "pics": [None]}])
    with pytest.raises(SourceError, match="--column"):
        examine_place(str(place), named)


def test_the_recipe_of_pages_takes_their_menus_and_logos_and_that_of_captions_has_none_to_take(tmp_path):
    rows = [{"url": f"https://example.org/{row}", "content": parts_of(row)} for row in range(6)]
    pages = examine_place(str(json_lines(tmp_path / "pages.jsonl", rows)))
    (tmp_path / "pages.yaml").write_text(write_recipe([(pages, pages.chosen)], tmp_path / "pages.yaml"))
    recipe = load_recipe(str(tmp_path / "pages.yaml"))[0]
    assert [one.name for one in recipe.filters] == ["language", "shape", "text_quality"]
    assert (recipe.dedupe.paragraphs, recipe.dedupe.boilerplate, recipe.dedupe.near_images) == (3, 10, True)
    pairs = examine_place(str(json_lines(tmp_path / "a.jsonl", [{"image": SHOWN.format(1), "caption": "A."}] * 6)))
    assert "paragraphs" not in write_recipe([(pairs, pairs.chosen)], tmp_path / "a.yaml")
    both = write_recipe([(pages, pages.chosen), (pairs, pairs.chosen)], tmp_path / "both.yaml")
    assert "text_quality: {node: {min_words: 4}, sources: [pages]}" in both
    assert "paragraphs" not in both


def make_blocks(row, key, value):
    return [{"type": "text", "text": f"Words of page {row}."}, {"type": "image", key: value}]


@pytest.mark.parametrize("files", [1, 2])
def test_parts_with_other_keys_of_images_are_all_read_in_one_file_and_in_several(tmp_path, files):
    data = base64.b64encode(picture(0)).decode()
    (tmp_path / "pages").mkdir()
    rows = [{"content": make_blocks(row, *(("path", "a.png"), ("data", data))[row % 2])} for row in range(12)]
    if files == 1:
        json_lines(tmp_path / "pages/a.jsonl", rows)
    else:
        json_lines(tmp_path / "pages/a.jsonl", rows[::2])
        json_lines(tmp_path / "pages/b.jsonl", rows[1::2])
    (tmp_path / "pages/a.png").write_bytes(picture(1))
    found = examine_place(str(tmp_path / "pages"))
    assert found.chosen.kind == "file_documents"
    assert sorted(found.chosen.options["images"]) == ["content.data", "content.path"]
    assert [len(page.pictures) for page in found.chosen.pages] == [1] * 12
    (tmp_path / "pages.yaml").write_text(write_recipe([(found, found.chosen)], tmp_path / "pages.yaml"))
    options = load_recipe(str(tmp_path / "pages.yaml"))[0].sources["pages"].options
    assert sorted(options.images) == ["content.data", "content.path"]


def test_images_in_base64_are_no_texts_however_long_they_are(tmp_path):
    data = base64.b64encode(picture(0, (400, 300))).decode()
    rows = [{"content": [*make_blocks(row, "path", "a.png"), *make_blocks(row, "data", data)]} for row in range(6)]
    found = examine_place(str(json_lines(tmp_path / "pages.jsonl", rows)))
    assert found.chosen.options["texts"] == "content.text"
    named = examine_place(
        str(tmp_path / "pages.jsonl"), {"texts": ["content.text"], "images": ["content.path", "content.data"]}
    )
    assert [len(page.pictures) for page in named.chosen.pages] == [2] * 6
