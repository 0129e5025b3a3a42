"""Small files in the upstream formats, made for tests; shapes.py has one row of each shape."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
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
    kinds = {"images": text, "metadata": pa.string(), "general_metadata": pa.string(), "texts": text}
    schema = pa.schema({**{name: pa.array(column).type for name, column in columns.items()}, **kinds})
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


def members(path: Path, rows: Sequence[Mapping[str, bytes]]) -> Path:
    """A tar of rows of members by suffix."""
    return tar(path, [(f"{key:03d}.{suffix}", data) for key, row in enumerate(rows) for suffix, data in row.items()])


def image(seed: int) -> dict[str, Any]:
    """An image as the Hub stores it."""
    return {"bytes": picture(seed), "path": f"{seed}.png"}


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
