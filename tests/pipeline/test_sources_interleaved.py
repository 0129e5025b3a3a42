"""Interleaved documents: MMC4, OmniCorpus, MINT-1T and CoMM, in rows written in upstream's forms."""

from __future__ import annotations

import io
import json
import math

import pyarrow as pa
import pytest
from PIL import Image

from tests.helpers import upstream
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.images.decode import decode_image
from vlmill.pipeline.sources import SOURCES
from vlmill.pipeline.sources.comm import Comm
from vlmill.pipeline.sources.mint_documents import MintDocuments
from vlmill.pipeline.sources.mmc4 import Mmc4
from vlmill.pipeline.sources.web_documents import FileDocuments, WebDocuments

ADDRESS = "http://img.test/{}.png"


def rows(source, path):
    return list(source.rows(path, range(len(source.survey(path)))))


def reasons(row):
    return [reason for reason, _ in row.failed]


def said(row):
    """Texts, and for images their addresses, in order."""
    (page,) = row.pages
    return [node.text if node.kind == "text" else node.url for node in page.nodes]


# -- MMC4 ------------------------------------------------------------------------------------------------------------


def matched(place, number=0, sim=0.3, **more):
    return {"raw_url": ADDRESS.format(number), "matched_text_index": place, "matched_sim": sim, **more}


def mmc4(tmp_path, *images, texts=("One.", "Two.", "Three."), **more):
    row = {"text_list": list(texts), "image_info": list(images), "url": "http://web.test/", **more}
    return upstream.json_lines(tmp_path / "docs_no_face_shard_0_v2.jsonl", [row])


def test_images_of_mmc4_stand_before_their_sentences_and_sentences_between_them_are_one_text(tmp_path):
    path = mmc4(tmp_path, matched(2, 0, 0.4), matched(0, 1), matched(2, 2, 0.25), could_have_url_duplicate=1)
    (row,) = rows(Mmc4(), path)
    first, second, third = map(ADDRESS.format, (1, 0, 2))
    assert said(row) == [first, "One. Two.", second, third, "Three."]
    (page,) = row.pages
    assert [picture.url for picture in page.pictures] == [first, second, third]
    assert [node.image for node in page.nodes if node.kind == "image"] == [0, 1, 2]
    assert (page.url, page.signals) == ("http://web.test/", {"matched_sim": 0.25, "could_have_url_duplicate": 1.0})


def test_images_that_are_not_similar_enough_are_left_out_and_that_is_noted(tmp_path):
    path = mmc4(tmp_path, matched(1, 0, 0.2), matched(1, 1, 0.3), matched(2, 2, None))
    (all_of_them,), (near,) = rows(Mmc4(), path), rows(Mmc4(min_similarity=0.24), path)
    assert len(all_of_them.pages[0].pictures) == 3
    assert said(near) == ["One.", ADDRESS.format(1), "Two.", ADDRESS.format(2), "Three."]
    assert near.pages[0].unread
    assert not all_of_them.pages[0].unread


@pytest.mark.parametrize(
    ("images", "texts", "reason"),
    [
        ([matched(3)], ("One.",), Reason.BAD_ROW),
        ([matched(-1)], ("One.",), Reason.BAD_ROW),
        ([matched(True)], ("One.", "Two."), Reason.BAD_ROW),
        ([matched("0")], ("One.",), Reason.BAD_ROW),
        ([None], ("One.",), Reason.BAD_ROW),
        ([matched(0)], (None,), Reason.BAD_ROW),
        ([matched(0)], (" ", ""), Reason.EMPTY_ROW),
        ([], (), Reason.EMPTY_ROW),
    ],
)
def test_a_document_of_mmc4_whose_images_have_no_sentence_is_refused(tmp_path, images, texts, reason):
    (row,) = rows(Mmc4(), mmc4(tmp_path, *images, texts=texts))
    assert reasons(row) == [reason]


def test_an_image_without_an_address_is_lost_alone(tmp_path):
    (row,) = rows(Mmc4(), mmc4(tmp_path, {**matched(0), "raw_url": None}))
    assert [picture.reason for picture in row.pages[0].pictures] == [Reason.BAD_URL]
    assert len(said(row)) == 2


# -- lists of texts and images ---------------------------------------------------------------------------------------


def test_omnicorpus_has_structs_beside_its_lists_and_places_without_anything(tmp_path):
    strings = pa.list_(pa.string())
    about = pa.struct({"url": pa.string(), "domain": strings, "fluency_prob": pa.float64(), "porn_prob": pa.float64()})
    picture = pa.struct({"height": pa.int64(), "unsafe_prob": pa.float64()})
    schema = pa.schema({"general_metadata": about, "images": strings, "texts": strings, "metadata": pa.list_(picture)})
    row = {
        "general_metadata": {"url": "http://web.test/", "domain": ["a"], "fluency_prob": 0.9, "porn_prob": math.nan},
        "images": [ADDRESS.format(0), None, None, "b.png"],
        "texts": [None, "One.\n\nTwo.", None, None],
        "metadata": [{"height": 9, "unsafe_prob": 0.1}, None, None, None],
    }
    path = upstream.parquet(tmp_path / "shard_0.parquet", [row], schema)
    options = {
        "url": "general_metadata.url",
        "signals": ("general_metadata.fluency_prob", "general_metadata.porn_prob"),
    }
    (found,) = rows(WebDocuments(**options), path)
    (page,) = found.pages
    assert said(found) == [ADDRESS.format(0), "One.", "Two.", None]
    assert [picture.reason for picture in page.pictures] == [None, Reason.BAD_URL]
    assert (page.url, page.signals, page.unread) == ("http://web.test/", {"fluency_prob": 0.9}, ("metadata",))
    (whole,) = rows(WebDocuments(**options, paragraphs=False), path)
    assert said(whole)[1] == "One.\n\nTwo."


def test_mint_1t_has_the_address_beside_its_lists(tmp_path):
    row = {
        "images": [None, ADDRESS.format(0)],
        "texts": ["One.", None],
        "url": "http://web.test/",
        "cc_dump": "2017-22",
    }
    (found,) = rows(WebDocuments(), upstream.parquet(tmp_path / "shard_0000.parquet", [row]))
    assert said(found) == ["One.", ADDRESS.format(0)]
    assert (found.pages[0].url, found.pages[0].unread) == ("http://web.test/", ("cc_dump",))


def test_frames_of_a_video_are_files_named_by_its_id_and_their_time(tmp_path):
    lists = {"images": json.dumps(["1.5", None]).encode(), "texts": json.dumps([None, "Said."]).encode()}
    there = [{"id": "v0", **lists}, {"id": "../..", **lists}, {"id": None, **lists}]
    path = upstream.parquet(tmp_path / "shard_0.parquet", there)
    first, outside, nameless = rows(FileDocuments(file="{id}/{image}.jpg"), path)
    assert said(first) == ["v0/1.5.jpg", "Said."]
    assert [picture.path for picture in first.pages[0].pictures] == ["v0/1.5.jpg"]
    assert outside.pages[0].pictures[0].path == "../../1.5.jpg"  # which the folder of images confines
    assert reasons(nameless) == [Reason.BAD_ROW]


def test_an_image_of_the_web_among_files_is_lost_alone(tmp_path):
    row = {"images": ["a.png", None, ADDRESS.format(0)], "texts": [None, "Said.", None]}
    (found,) = rows(FileDocuments(), upstream.parquet(tmp_path / "shard_0.parquet", [row]))
    (page,) = found.pages
    assert [(picture.path, picture.reason) for picture in page.pictures] == [
        ("a.png", None),
        (None, Reason.UNSUPPORTED_MEDIA),
    ]
    assert page.pictures[1].url == ADDRESS.format(0)
    assert page.pictures[1].detail.startswith(
        "image 2 lies on the web, and this kind fetches nothing; web_documents does"
    )


def test_a_path_without_the_image_in_it_is_refused_in_the_recipe():
    with pytest.raises(RecipeError, match="expected a path with"):
        parse_block(SOURCES["file_documents"], {"file": "{id}.jpg"}, "options")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"images": [None], "texts": ["a", "b"]}, Reason.BAD_ROW),
        ({"images": ["http://a.test/"], "texts": ["a"]}, Reason.BAD_ROW),
        ({"images": "[", "texts": []}, Reason.BAD_ROW),
        ({"images": "[" * 5000, "texts": []}, Reason.BAD_ROW),
        ({"images": [7], "texts": [None]}, Reason.BAD_ROW),
        ({"images": [None], "texts": [7]}, Reason.BAD_ROW),
        ({"images": [None, ""], "texts": [None, " "]}, Reason.EMPTY_ROW),
        ({"images": [], "texts": []}, Reason.EMPTY_ROW),
    ],
)
def test_lists_that_do_not_match_are_a_bad_row(tmp_path, row, reason):
    good = {"images": [None], "texts": ["a"]}
    found = rows(WebDocuments(), upstream.json_lines(tmp_path / "a.jsonl", [good, row, good]))
    assert [reasons(one) for one in found] == [[], [reason], []]


# -- MINT-1T's tars --------------------------------------------------------------------------------------------------


def frames(*seeds):
    return upstream.tiff([Image.open(io.BytesIO(upstream.picture(seed))) for seed in seeds])


def document(images, metadata=None, **more):
    texts = ["Before", *[None] * len(images), "After\n\nall"]
    about = {"texts": texts, "images": [None, *images, None], "image_metadata": metadata, "url": "http://a.test/1.pdf"}
    return {"json": json.dumps(about).encode(), **more}


def packed(tmp_path, *documents):
    return upstream.members(tmp_path / "CC-MAIN-00000.tar", documents)


def pixels(row):
    return [decode_image(picture.data).tobytes() for picture in row.pages[0].pictures]


def drawn(*seeds):
    return [decode_image(upstream.picture(seed)).tobytes() for seed in seeds]


def test_frames_of_a_paper_are_found_by_page_and_number_or_else_in_order(tmp_path):
    metadata = [{"page": 0, "xref": 9}, {"page": 2, "xref": 7}]
    named = document(["page_2_image_7", "page_0_image_9", "page_5_image_1"], metadata, tiff=frames(1, 2), pdf=b"?")
    ordered = document(["a.png", "b.png"], tiff=frames(3, 4))
    single = document(["page_0_image_9"], metadata[:1], tiff=frames(5))
    first, second, third = rows(MintDocuments(), packed(tmp_path, named, ordered, single))
    assert said(first) == ["Before", *(f"000.tiff#page_{place}" for place in ("2_image_7", "0_image_9", "5_image_1")),
                           "After", "all"]  # fmt: skip
    assert [picture.reason for picture in first.pages[0].pictures] == [None, None, Reason.UNDECODABLE]
    assert [decode_image(one.data).tobytes() for one in first.pages[0].pictures[:2]] == drawn(2, 1)
    assert pixels(second) == drawn(3, 4)
    assert pixels(third) == drawn(5)
    assert first.pages[0].url == "http://a.test/1.pdf"
    assert first.pages[0].unread == (".pdf",)
    assert [row.upstream_id for row in (first, second, third)] == ["000", "001", "002"]


def test_frames_that_are_not_as_many_as_are_named_are_trusted_for_none(tmp_path):
    metadata = [{"page": 0, "xref": 9}, {"page": 2, "xref": 7}]
    (row,) = rows(MintDocuments(), packed(tmp_path, document(["page_2_image_7"], metadata, tiff=frames(1, 2, 3))))
    (picture,) = row.pages[0].pictures
    assert (picture.reason, picture.detail) == (
        Reason.UNDECODABLE,
        "frames of the TIFF: text of 2 pages beside a tif of 3",
    )


def test_a_document_without_its_tiff_keeps_its_texts(tmp_path):
    alone, bare, damaged = rows(
        MintDocuments(), packed(tmp_path, document(["a"]), document([]), document(["a"], tiff=b"II*\0nothing"))
    )
    assert [[picture.reason for picture in row.pages[0].pictures] for row in (alone, bare, damaged)] == [
        [Reason.MISSING_FILE],
        [],
        [Reason.UNDECODABLE],
    ]
    assert said(bare) == ["Before", "After", "all"]


@pytest.mark.parametrize(("command", "reason"), [(b"CRASH", Reason.CRASHED), (b"HANG", Reason.TIMED_OUT)])
def test_a_tiff_that_kills_or_stops_its_reader_loses_its_images_alone(tmp_path, monkeypatch, command, reason):
    monkeypatch.setattr("vlmill.pipeline.sources.mint_documents.render_pages", upstream.render_or_die)
    path = packed(tmp_path, document(["a", "b"], tiff=command), document(["a", "b"], tiff=b"FINE"))
    bad, good = rows(MintDocuments(seconds=0.5), path)
    assert [picture.reason for picture in bad.pages[0].pictures] == [None, reason]
    assert [picture.data for picture in good.pages[0].pictures] == [b"FINE#0", b"FINE#1"]


# -- CoMM ------------------------------------------------------------------------------------------------------------


def text(content):
    return {"type": "text", "content": content}


def test_a_document_of_comm_is_its_title_its_summary_and_its_steps(tmp_path):
    shown = {"type": "image", "url": ADDRESS.format(0), "image_path": "wikihow/0.jpg"}
    row = {
        "data_id": "wikihow_1",
        "title": " Tea ",
        "summary_info": [text("How to make tea."), {**shown, "url": None}],
        "step_info": [[text("Boil."), shown], [text(" \n")], [text("Pour.")]],
    }
    empty = {"title": "Tea", "step_info": [[]]}
    found, nothing = rows(Comm(), upstream.json_lines(tmp_path / "train.jsonl", [row, empty]))
    assert said(found) == ["Tea", "How to make tea.", None, "Boil.", ADDRESS.format(0), "Pour."]
    assert [picture.reason for picture in found.pages[0].pictures] == [Reason.BAD_URL, None]
    assert reasons(nothing) == [Reason.EMPTY_ROW]


@pytest.mark.parametrize("step", [text("no list"), [["text"]], [{"type": "text"}], [{"type": "video", "url": "a"}]])
def test_a_step_of_comm_of_another_form_is_a_bad_row_that_says_where(tmp_path, step):
    (row,) = rows(Comm(), upstream.json_lines(tmp_path / "train.jsonl", [{"step_info": [[text("A")], step]}]))
    assert reasons(row) == [Reason.BAD_ROW]
    assert "step 1" in row.failed[0][1]
