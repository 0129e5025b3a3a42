"""The upstream forms of the quickstart data: OBELICS' and The Cauldron's tables, and tars of documents."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PAGES = "http://pages.quickstart.test/"

WEB = pa.schema(
    [
        ("images", pa.list_(pa.string())),
        ("metadata", pa.string()),
        ("general_metadata", pa.string()),
        ("texts", pa.list_(pa.string())),
    ]
)
QUIZ = pa.schema(
    [
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("texts", pa.list_(pa.struct([("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())]))),
    ]
)


@dataclass(frozen=True, slots=True)
class Slot:
    """One place of a document: a text, or an image's address with what the page says about it."""

    text: str | None = None
    url: str | None = None
    alt: str = ""
    size: tuple[int, int] = (0, 0)


def document(name: str, slots: Sequence[Slot]) -> dict[str, Any]:
    """The row of OBELICS' table that holds a document."""
    address = PAGES + quote(name)
    return {
        "images": [slot.url for slot in slots],
        "metadata": json.dumps([None if slot.url is None else _about(slot, address) for slot in slots]),
        "general_metadata": json.dumps(
            {"url": address, "warc_filename": "quickstart.warc.gz", "warc_record_offset": 0, "warc_record_length": 0}
        ),
        "texts": [slot.text for slot in slots],
    }


def _about(slot: Slot, address: str) -> dict[str, Any]:
    url = slot.url or ""
    name, _, ending = url.rpartition("/")[2].rpartition(".")
    width, height = slot.size
    return {
        "document_url": address,
        "unformatted_src": url,
        "src": url,
        "formatted_filename": name.replace("-", " "),
        "alt_text": slot.alt,
        "original_width": width or None,
        "original_height": height or None,
        "format": {"jpg": "jpeg"}.get(ending, ending),
        "rendered_width": width or None,
        "rendered_height": height or None,
    }


def conversation(pictures: Sequence[bytes], turns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The row of The Cauldron's table."""
    return {
        "images": [{"bytes": picture, "path": None} for picture in pictures],
        "texts": [{"user": question, "assistant": answer, "source": "quickstart_shapes"} for question, answer in turns],
    }


def write_parquet(path: Path, schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of rows."""
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def write_tar(path: Path, rows: Sequence[Mapping[str, bytes]]) -> None:
    """Rows of members by suffix.

    Those of a row stand together under one key; none tells when or by whom it was written.
    """
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, row in enumerate(rows):
            for suffix, data in sorted(row.items()):
                member = tarfile.TarInfo(f"{number:05}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
