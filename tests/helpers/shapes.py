"""One row shape of every source: a good row, a bad and a misspelt one, and how to write a file of them.

The contract of a source is tested with them (tests/pipeline/test_sources.py).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from tests.helpers.upstream import (
    arrow,
    idl_json,
    image,
    json_array,
    json_lines,
    members,
    parquet,
    pdf,
    pdfa_json,
    picture,
    separated,
    talk,
    tiff,
)


@dataclass(frozen=True)
class Shape:
    """A row shape of upstream."""

    write: Callable[[Path, Sequence[Any]], Path]
    row: Callable[[int], Any]  # the n-th good row
    bad: Any  # a row that has not the form
    misspelt: Any  # a row in which something that is needed has another name
    named: tuple[str, ...]  # what the error about that says
    options: Mapping[str, Any] = field(default_factory=dict)

    def said(self, row: Mapping[str, Any]) -> frozenset[str]:
        """The keys of a row, or those of its JSON as well where it is made of members."""
        about = row.get("json")
        return frozenset({*row, *(json.loads(about) if isinstance(about, bytes) else {})})

    def beside(self, row: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
        """A row that says more: in its keys, or in those of its JSON where it is made of members, all bytes."""
        if not all(isinstance(value, bytes) for value in row.values()):
            return {**more, **row}
        about = json.loads(row.get("json", b"{}"))
        return {**row, "json": json.dumps({**more, **about}).encode()}


def _cauldron_row(row: int) -> dict[str, Any]:
    return {"images": [image(row)], "texts": [{"user": f"Question {row}?", "assistant": "Yes.", "source": "quiz"}]}


def _table(schema: Mapping[str, pa.DataType]) -> Callable[[Path, Sequence[Any]], Path]:
    """Writes Parquet of these columns; of other columns where the first row has others."""

    def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
        fits = not rows or set(rows[0]) == set(schema)
        return parquet(path, rows, pa.schema(schema) if fits else None)

    return write


IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
QUESTIONS = pa.list_(pa.struct({"user": pa.string(), "assistant": pa.string(), "source": pa.string()}))
MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
STRINGS = pa.list_(pa.string())

PLACES = {"images": STRINGS, "texts": STRINGS}
FRAMES = dict.fromkeys(("id", "images", "texts"), pa.string())

PHOTOS = {"photo": IMAGE, "asked": pa.string(), "said": pa.string()}

QUIZ = {"question": pa.string(), "answer": pa.string(), "choices": pa.list_(MESSAGES), "image": IMAGE}


def _question(row: int) -> dict[str, str]:
    """A row of an evaluation set in text."""
    return {"question": f"Which {row}?", "answer": "This", "image": base64.b64encode(picture(row)).decode()}


SHAPES: dict[str, Shape] = {
    "obelics": Shape(
        _table({"images": STRINGS, "texts": STRINGS, "general_metadata": pa.string()}),
        lambda row: {"images": [None, "http://img.test/a"], "texts": [f"{row}", None], "general_metadata": "{}"},
        {"images": [None], "texts": ["a", "b"], "general_metadata": "{}"},
        {"images": [None], "text": ["a"], "general_metadata": "{}"},
        ("column 'texts' is missing", "it has images, text, general_metadata"),
    ),
    "cauldron": Shape(
        _table({"images": pa.list_(IMAGE), "texts": QUESTIONS}),
        _cauldron_row,
        {"images": [None], "texts": _cauldron_row(0)["texts"]},
        {"image": [image(0)], "texts": _cauldron_row(0)["texts"]},
        ("column 'images' is missing", "it has image, texts"),
    ),
    "finevision": Shape(
        _table({"images": pa.list_(IMAGE), "texts": QUESTIONS, "relevance_ratings": pa.list_(pa.int64())}),
        lambda row: {**_cauldron_row(row), "relevance_ratings": [4]},
        {"images": [], "texts": [{"user": "Q"}], "relevance_ratings": None},
        {"images": [image(0)], "conversation": [{"user": "Q", "assistant": "A"}]},
        ("column 'texts' is missing", "it has images, conversation"),
    ),
    "interleaved": Shape(
        _table({"images": pa.list_(IMAGE), "conversation": MESSAGES}),
        lambda row: {
            "images": [image(row), image(row + 100)],
            "conversation": talk(f"<image><image>{row}?", "A", keys=("role", "content")),
        },
        {"images": [], "conversation": talk("<image>", "A", keys=("role", "content"))},
        {"images": [image(0)], "conversations": talk("<image>", "A", keys=("role", "content"))},
        ("column 'conversation' is missing", "it has images, conversations"),
    ),
    "websight": Shape(
        _table({"image": IMAGE, "text": pa.string()}),
        lambda row: {"image": image(row), "text": f"<html>{row}</html>"},
        {"image": None, "text": "<html></html>"},
        {"image": image(0), "html": "<html></html>"},
        ("column 'text' is missing", "it has image, html"),
    ),
    "pairs": Shape(
        _table({"URL": pa.string(), "TEXT": pa.string()}),
        lambda row: {"URL": f"http://img.test/{row}", "TEXT": f"Picture {row}"},
        {"URL": None, "TEXT": "Nothing"},
        {"URL": "http://img.test/0", "caption": "Picture"},
        ("column 'TEXT' is missing", "it has URL, caption"),
        {"url": "URL", "caption": "TEXT"},
    ),
    "pairs_wds": Shape(
        members,
        lambda row: {"jpg": picture(row, form="JPEG"), "txt": f"Picture {row}".encode()},
        {"jpg": b"", "txt": b"\xff"},
        {"jpg": b"", "caption": b"A caption"},
        ("no row has jpg or", "and txt; its members are caption, jpg"),
    ),
    "rendered_text": Shape(
        members,
        lambda row: {"png": picture(row), "json": json.dumps({"text": f"Line {row}"}).encode()},
        {"png": b"", "json": b"["},
        {"png": b"", "json": b'{"txt": "Line", "font": "serif"}'},
        ("no row has a text at text or", "the first has txt, font"),
    ),
    "idl": Shape(
        members,
        lambda row: {"json": idl_json([[f"Line {row}"]]), "tif": picture(row, form="TIFF")},
        {"json": b"{}", "tif": b""},
        {"jsn": idl_json([["Line"]]), "tif": b""},
        ("no row has json and tif or", "its members are jsn, tif"),
    ),
    "pdfa": Shape(
        members,
        lambda row: {"json": pdfa_json([[f"Line {row}"]]), "pdf": pdf([[f"Line {row}"]])},
        {"json": b"[]", "pdf": b""},
        {"json": pdfa_json([["Line"]]), "tif": b""},
        ("no row has json and pdf", "its members are json, tif"),
        {"long_side": 200},
    ),
    "pdf": Shape(
        lambda path, rows: members(path.with_suffix(".tar"), rows),
        lambda row: {"pdf": pdf([[f"Line {row}"]])},
        {"pdf": b"%PDF-1.4 but no more"},
        {"pdx": pdf([["Line"]])},
        ("no row has pdf", "its members are pdx"),
        {"long_side": 200},
    ),
    "llava": Shape(
        json_array,
        lambda row: {"id": "twice", "image": f"{row}.png", "conversations": talk(f"<image>\n{row}?", "A")},
        {"image": "0.png", "conversations": talk("Q", "A")},
        {"image": "0.png", "conversation": talk("Q", "A")},
        ("no row has 'conversations'", "did you mean 'conversation'? the first has image, conversation"),
    ),
    "web_llava": Shape(
        json_lines,
        lambda row: {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": f"What is {row}?"},
                        {"type": "image_url", "image_url": {"url": f"http://img.test/{row}", "detail": "low"}},
                    ],
                },
                {"role": "assistant", "content": "A dog."},
            ]
        },
        {"messages": talk("Q", keys=("role", "content"))},
        {"turns": talk("Q", "A", keys=("role", "content"))},
        ("no row has 'conversations' or 'messages'", "the first has turns"),
    ),
    "evaluation": Shape(
        lambda path, rows: _table(QUIZ)(path.with_suffix(".parquet"), rows),
        lambda row: {**_question(row), "choices": [], "image": image(row)},
        {**_question(0), "choices": [[{"role": "A", "content": "This"}]], "image": image(0)},
        {"query": "Which?", "answer": "This", "choices": [], "image": image(0)},
        ("column 'question' is missing", "it has query, answer, choices, image"),
        {"choices": "choices"},
    ),
    "evaluation in TSV": Shape(
        lambda path, rows: separated(path.with_suffix(".tsv"), rows, () if rows else list(_question(0))),
        _question,
        {**_question(0), "more": "than there are columns"},
        {"query": "Which?", "answer": "This", "image": ""},
        ("column 'question' is missing", "it has query, answer, image"),
    ),
    "evaluation in JSON Lines": Shape(
        lambda path, rows: json_lines(path.with_suffix(".jsonl"), rows),
        _question,
        {**_question(0), "question": {"en": "Which?"}},
        {"question": "Which?", "answer": "This", "img": ""},
        ("no row has 'image'", "the first has question, answer, img"),
    ),
    "chat": Shape(
        json_lines,
        lambda row: {"conversations": talk(f"Question {row}?", "A")},
        b'{"conversations": [',
        {"turns": talk("Q", "A")},
        ("no row has 'conversations' or 'messages'", "the first has turns"),
    ),
    "chat in Parquet": Shape(
        lambda path, rows: parquet(
            path.with_suffix(".parquet"), rows, None if rows else pa.schema({"messages": MESSAGES})
        ),
        lambda row: {"messages": talk(f"Question {row}?", "A", keys=("role", "content"))},
        {"messages": talk("Q", keys=("role", "content"))},
        {"turns": talk("Q", "A", keys=("role", "content"))},
        ("it has no column 'conversations' or 'messages'", "it has turns"),
    ),
    "table": Shape(
        lambda path, rows: _table(PHOTOS)(path.with_suffix(".parquet"), rows),
        lambda row: {"photo": image(row), "asked": f"Question {row}?", "said": "Yes."},
        {"photo": None, "asked": "Question?", "said": "Yes."},
        {"photo": image(0), "asks": "Question?", "said": "Yes."},
        ("column 'asked' is missing", "it has photo, asks, said"),
        {"image": "photo", "question": "asked", "answer": "said"},
    ),
    "table in CSV": Shape(
        lambda path, rows: separated(path.with_suffix(".csv"), rows, () if rows else ["file", "text"]),
        lambda row: {"file": f"{row}.png", "text": f"Picture {row}"},
        {"file": "", "text": "Nothing"},
        {"file": "0.png", "caption": "Picture"},
        ("column 'text' is missing", "it has file, caption"),
        {"image": "file", "caption": "text"},
    ),
    "table in Arrow": Shape(
        arrow,
        lambda row: {"images": [image(row), image(row + 100)], "talk": talk(f"{row}?", "A", keys=("role", "content"))},
        {"images": [image(0)], "talk": talk("Q", keys=("role", "content"))},
        {"images": [image(0)], "turns": talk("Q", "A", keys=("role", "content"))},
        ("column 'talk' is missing", "it has images, turns"),
        {"image": "images", "turns": "talk"},
    ),
    "table of ids": Shape(
        json_array,
        lambda row: {"image_id": f"{row}" if row % 2 else row, "question": f"Is {row} there?", "answer": "No."},
        {"image_id": None, "question": "Is it there?", "answer": "No."},
        {"image_id": "0", "asked": "Is it there?", "answer": "No."},
        ("no row has", "question"),
        {"image": "image_id", "file": "{image}.jpg", "question": "question", "answer": "answer"},
    ),
    "web_table": Shape(
        lambda path, rows: json_lines(path.with_suffix(".jsonl"), rows),
        lambda row: {"link": f"http://img.test/{row}", "text": f"Picture {row}"},
        {"link": 7, "text": "Nothing"},
        {"link": "http://img.test/0", "caption": "Picture"},
        ("no row has 'text'", "the first has link, caption"),
        {"image": "link", "caption": "text"},
    ),
    "instructions": Shape(
        lambda path, rows: json_lines(path.with_suffix(".jsonl"), rows),
        lambda row: {"instruction": f"Question {row}?", "output": "A"},
        {"instruction": ["Q"], "output": "A"},
        {"question": "Q", "output": "A"},
        ("no row has 'instruction'", "the first has question, output"),
    ),
    "web_documents": Shape(
        lambda path, rows: _table(PLACES | {"url": pa.string()})(path.with_suffix(".parquet"), rows),
        lambda row: {"images": [None, "http://img.test/a"], "texts": [f"{row}", None], "url": "http://web.test/"},
        {"images": [None], "texts": ["a", "b"], "url": None},
        {"images": [None], "text": ["a"], "url": None},
        ("column 'texts' is missing", "it has images, text"),
    ),
    "web_documents in JSON Lines": Shape(
        lambda path, rows: json_lines(path.with_suffix(".jsonl"), rows),
        lambda row: {
            "images": [None, "http://img.test/a"],
            "texts": [f"{row}", None],
            "metadata": [None, {"height": 9, "unsafe_prob": 0.1}],
            "general_metadata": {"url": "http://web.test/", "id": f"{row}", "fluency_prob": 0.5},
        },
        {"images": ["http://img.test/a"], "texts": ["both"], "general_metadata": {}},
        {"image": [None], "texts": ["a"], "general_metadata": {}},
        ("no row has 'images'", "the first has image, texts"),
        {"url": "general_metadata.url", "signals": ["general_metadata.fluency_prob"]},
    ),
    "file_documents": Shape(
        lambda path, rows: _table(FRAMES)(path.with_suffix(".parquet"), rows),
        lambda row: {"id": f"v{row}", "images": json.dumps(["12.5", None]), "texts": json.dumps([None, "Said."])},
        {"id": None, "images": json.dumps(["12.5"]), "texts": json.dumps([None])},
        {"id": "v", "images": "[]", "text": "[]"},
        ("column 'texts' is missing", "it has id, images, text"),
        {"file": "{id}/{image}.jpg"},
    ),
    "mmc4": Shape(
        lambda path, rows: json_lines(path.with_suffix(".jsonl"), rows),
        lambda row: {
            "text_list": [f"One {row}.", "Two."],
            "image_info": [
                {
                    "face_detections": None,
                    "image_name": f"{row}.jpg",
                    "matched_sim": 0.28,
                    "matched_text_index": 1,
                    "raw_url": f"http://img.test/{row}",
                }
            ],
            "similarity_matrix": [[0.2, 0.28]],
            "url": "http://web.test/",
            "could_have_url_duplicate": 0,
        },
        {"text_list": ["One."], "image_info": [{"raw_url": "http://img.test/0", "matched_text_index": 1}]},
        {"text_list": ["One."], "images": []},
        ("no row has 'image_info'", "the first has text_list, images"),
    ),
    "comm": Shape(
        lambda path, rows: json_lines(path.with_suffix(".jsonl"), rows),
        lambda row: {
            "data_id": f"wikihow_{row}",
            "dataset_type": "wikihow",
            "title": f"How to {row}",
            "summary_info": [],
            "step_info": [
                [
                    {"type": "text", "content": "Take it."},
                    {"type": "image", "url": f"http://img.test/{row}", "image_path": f"wikihow/{row}.jpg"},
                ]
            ],
        },
        {"title": "How", "step_info": [[{"type": "video", "url": "http://img.test/0"}]]},
        {"title": "How", "steps": []},
        ("no row has 'step_info'", "the first has title, steps"),
    ),
    "mint_documents": Shape(
        members,
        lambda row: {
            "json": json.dumps(
                {
                    "texts": [f"Page {row}", None],
                    "images": [None, "page_0_image_7"],
                    "image_metadata": [{"page": 0, "xref": 7, "width": 40, "height": 30}],
                    "pdf_name": f"{row}.pdf",
                }
            ).encode(),
            "tiff": tiff([Image.open(io.BytesIO(picture(row)))]),
        },
        {"json": b'{"texts": ["a"], "images": []}', "tiff": b""},
        {"jsn": b"{}", "tiff": b""},
        ("no row has json", "its members are jsn, tiff"),
    ),
}
