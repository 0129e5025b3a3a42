"""Small files in the upstream formats, made for tests: one of each shape in SHAPES, and hostile ones."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import signal
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw


def picture(
    seed: int = 0, size: tuple[int, int] = (40, 30), form: str = "PNG", mode: str = "RGB", **options: Any
) -> bytes:
    """A picture of smooth shapes; another seed gives another picture."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(random.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        left, top, right, bottom = (random.random(4) * [*size, *size]).astype(int).tolist()
        box = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
        draw.ellipse(box, fill=tuple(random.integers(0, 256, 3).tolist()))
    return encoded(image.convert(mode), form, **options)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The bytes of a picture in a format."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def tiff(frames: Sequence[Image.Image]) -> bytes:
    """A TIFF of these frames."""
    return encoded(frames[0], "TIFF", save_all=True, append_images=list(frames[1:]), compression="tiff_deflate")


def obelics(path: Path, documents: Sequence[Sequence[str | None]], **columns: list[Any]) -> Path:
    """A Parquet file of web documents. An item that begins with http is an image address, any other a text."""
    images = [[item if _is_address(item) else None for item in document] for document in documents]
    table: dict[str, list[Any]] = {
        "images": images,
        "metadata": [json.dumps([None] * len(document)) for document in documents],
        "general_metadata": [json.dumps({"url": f"http://web.test/{row}"}) for row in range(len(documents))],
        "texts": [[None if _is_address(item) else item for item in document] for document in documents],
        **columns,
    }
    text = pa.list_(pa.string())
    schema = pa.schema({"images": text, "metadata": pa.string(), "general_metadata": pa.string(), "texts": text})
    pq.write_table(pa.table(table, schema=schema), path, row_group_size=3)
    return path


def _is_address(item: str | None) -> bool:
    return item is not None and item.startswith("http")


def cauldron(
    path: Path, rows: Sequence[tuple[Sequence[bytes | None], Sequence[tuple[str | None, str | None]]]]
) -> Path:
    """A Parquet file of (images, (question, answer) turns)."""
    images = [[{"bytes": data, "path": f"{place}.png"} for place, data in enumerate(row[0])] for row in rows]
    texts = [[{"user": user, "assistant": answer, "source": "quiz"} for user, answer in row[1]] for row in rows]
    schema = pa.schema(
        {
            "images": pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()})),
            "texts": pa.list_(pa.struct({"user": pa.string(), "assistant": pa.string(), "source": pa.string()})),
        }
    )
    pq.write_table(pa.table({"images": images, "texts": texts}, schema=schema), path, row_group_size=3)
    return path


def tar(path: Path, members: Sequence[tuple[str, bytes]] | Mapping[str, bytes]) -> Path:
    """A tar of these members, in this order."""
    with tarfile.open(path, "w") as file:
        for name, data in members.items() if isinstance(members, Mapping) else members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def parquet(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None = None) -> Path:
    """A Parquet file of these rows, three in a row group."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, row_group_size=3)
    return path


def arrow(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A stream of Arrow as `save_to_disk` leaves it, three rows in a batch."""
    path = path.with_suffix(".arrow")
    table = pa.Table.from_pylist(list(rows)) if rows else pa.table({"images": [], "talk": []})
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table, max_chunksize=3)
    return path


def json_array(path: Path, rows: Sequence[Any], **options: Any) -> Path:
    """A JSON file that is one array."""
    path.write_text(json.dumps(list(rows), ensure_ascii=False, **options), encoding="utf-8")
    return path


def json_lines(path: Path, rows: Sequence[Any]) -> Path:
    """A JSON Lines file; a row of bytes stands in it as it is."""
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def separated(path: Path, rows: Sequence[Mapping[str, str]], header: Sequence[str] = ()) -> Path:
    """A TSV or CSV file, as its suffix says; the first row's keys are the header where none is given."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter={".tsv": "\t", ".csv": ","}[path.suffix])
        writer.writerow(header or list(rows[0]))
        writer.writerows(list(row.values()) for row in rows)
    return path


def talk(*texts: str | None, keys: tuple[str, str] = ("from", "value")) -> list[dict[str, Any]]:
    """Turns of human and gpt, as LLaVA and ShareGPT have them; by `keys` of user and assistant, as Mantis has them."""
    speakers = ("human", "gpt") if keys[0] == "from" else ("user", "assistant")
    return [dict(zip(keys, (speakers[place % 2], text), strict=True)) for place, text in enumerate(texts)]


def idl_json(pages: Sequence[Sequence[str]]) -> bytes:
    """The lines of each page as IDL has them."""
    return json.dumps(
        {"pages": [{"text": lines, "bbox": [[0.1, 0.1, 0.5, 0.1]] * len(lines)} for lines in pages]}
    ).encode()


def pdfa_json(pages: Sequence[Sequence[str]]) -> bytes:
    """The lines of each page as PDFA has them."""
    pages_json = [
        {"words": {"text": " ".join(lines).split()}, "lines": {"text": lines}, "images_bbox": []} for lines in pages
    ]
    return json.dumps({"pages": pages_json}).encode()


def pdf(
    pages: Sequence[Sequence[str]],
    size: tuple[int, int] = (595, 842),
    colour: str = "0 0 0",
    font: str = "Helvetica",
) -> bytes:
    """A PDF with these lines (ASCII) on its pages."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>",
        f"<</Type/Font/Subtype/Type1/BaseFont/{font}>>",
    ]
    for lines in pages:
        shown = " ".join(f"({line}) Tj T*" for line in lines)
        stream = f"{colour} rg BT /F 24 Tf 28 TL 40 {size[1] - 60} Td {shown} ET"
        box = f"/MediaBox[0 0 {size[0]} {size[1]}]"
        objects.append(
            f"<</Type/Page/Parent 2 0 R{box}/Contents {len(objects) + 2} 0 R/Resources<</Font<</F 3 0 R>>>>>>"
        )
        objects.append(f"<</Length {len(stream)}>>stream\n{stream}\nendstream")
    body, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(body)}\n%%EOF\n"
    return body + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode()


# One of every shape: what the contract of a source is tested with.


@dataclass(frozen=True)
class Shape:
    """A row shape of upstream."""

    write: Callable[[Path, Sequence[Any]], Path]
    row: Callable[[int], Any]  # the n-th good row
    bad: Any  # a row that has not the form
    misspelt: Any  # a row in which something that is needed has another name
    named: tuple[str, ...]  # what the error about that says
    options: Mapping[str, Any] = field(default_factory=dict)

    def beside(self, row: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
        """A row that says more: in its keys, or in those of its JSON where it is made of members, all bytes."""
        if not all(isinstance(value, bytes) for value in row.values()):
            return {**more, **row}
        about = json.loads(row.get("json", b"{}"))
        return {**row, "json": json.dumps({**more, **about}).encode()}


def members(path: Path, rows: Sequence[Mapping[str, bytes]]) -> Path:
    """A tar of rows of members by suffix."""
    return tar(path, [(f"{key:03d}.{suffix}", data) for key, row in enumerate(rows) for suffix, data in row.items()])


def image(seed: int) -> dict[str, Any]:
    """An image as the Hub stores it."""
    return {"bytes": picture(seed), "path": f"{seed}.png"}


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
    "llava": Shape(
        json_array,
        lambda row: {"id": "twice", "image": f"{row}.png", "conversations": talk(f"<image>\n{row}?", "A")},
        {"image": "0.png", "conversations": talk("Q", "A")},
        {"image": "0.png", "conversation": talk("Q", "A")},
        ("no row has 'conversations'", "the first has image, conversation"),
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
        ("it has no column conversations or messages", "it has turns"),
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
        {"image": "image_id", "suffix": ".jpg", "question": "question", "answer": "answer"},
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
}


# What a child process may run into. These stand here because a child imports its function by name.


def obey(command: str, times: int = 1, forged: str = "") -> Iterator[str | int]:
    """Yield, fail, crash, hang, eat memory or write hexadecimal digits to the caller as they are, as told."""
    for _ in range(times):
        yield os.getpid() if command == "pid" else command.upper()
    if command == "raise":
        raise KeyError("spam")
    if command == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if command == "leave":
        os._exit(3)
    if command == "hang":
        time.sleep(600)
    if command == "eat":
        bytearray(times << 20)
    if command == "noise":
        os.write(2, b"a warning of a decoder")
    if command == "forge":
        os.write(int(sys.argv[1]), bytes.fromhex(forged))
        time.sleep(600)


def render_or_die(form: str, data: bytes, count: int, wanted: Sequence[int], long_side: int) -> Iterator[bytes | str]:
    """Stands in for the renderer: the first page of a document that begins with CRASH or HANG, then does that."""
    for number in wanted:
        if number and data.startswith(b"CRASH"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if number and data.startswith(b"HANG"):
            time.sleep(600)
        yield data + b"#%d" % number
