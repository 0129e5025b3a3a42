"""Parquet as the Hub's `datasets` and TRL read it: `images` of type Image, `messages` of parts.

The features stand in the schema's metadata, as `datasets` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from vlmill.mixtures.export.base import ExportedShard, ExportPart, PictureFolder, list_configs
from vlmill.mixtures.export.record import NUMBERS, TEXTS, Record

STRING = {"dtype": "string", "_type": "Value"}
INTEGER = {"dtype": "int64", "_type": "Value"}
FEATURES: dict[str, Any] = {
    **dict.fromkeys(TEXTS, STRING),
    "images": [{"_type": "Image"}],
    "messages": [
        {
            "role": STRING,
            "content": [{"type": STRING, "text": STRING}],
            "loss": {"dtype": "bool", "_type": "Value"},
        }
    ],
    "sequence": INTEGER,
    "weight": INTEGER,
}
"""As `datasets` writes them: a list is a list of its only feature."""

CONTENT = pa.list_(pa.struct([pa.field("type", pa.string()), pa.field("text", pa.string())]))
MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": CONTENT, "loss": pa.bool_()}))
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in TEXTS),
        pa.field("images", pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()}))),
        pa.field("messages", MESSAGES),
        pa.field("sequence", pa.int64()),
        pa.field("weight", pa.int64()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)
BYTES = "images.list.element.bytes"
"""The column of pictures: those come compressed."""

GROUP, GROUP_BYTES = 1000, 32 << 20
"""Rows and bytes of a row group, at most, but for one record that is larger."""


class ParquetShard:
    """One file, a row group in memory."""

    def __init__(self, path: Path) -> None:
        others = dict.fromkeys((name for name in _list_leaves() if name != BYTES), "zstd")
        self._writer = pq.ParquetWriter(
            path, SCHEMA, compression={**others, BYTES: "none"}, use_dictionary=list(others)
        )
        self._pending, self._weight, self.size, self.members = list[dict[str, Any]](), 0, 0, ()

    def add(self, record: Record) -> Sequence[str]:
        """Append a row."""
        if self._pending and (len(self._pending) == GROUP or self._weight + record.size > GROUP_BYTES):
            self._flush()
        self._pending.append(_make_row(record))
        self._weight += record.size
        self.size += record.size
        return ()

    def close(self) -> None:
        """Write the last group and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._pending, schema=SCHEMA))
        self._pending, self._weight = [], 0


class ParquetExport:
    """`--to parquet`."""

    name: ClassVar[str] = "parquet"
    version: ClassVar[int] = 2
    suffix: ClassVar[str] = ".parquet"
    about: ClassVar[str] = (
        "`datasets.load_dataset(FOLDER)` reads it; several configs are `load_dataset(FOLDER, NAME)`. `messages` are "
        "those of transformers and TRL: each `content` is a list of texts and of places for `images`, in order."
    )

    def made_by(self) -> Mapping[str, str]:
        """The table writer."""
        return {"pyarrow": version("pyarrow")}

    def open_shard(self, path: Path, pictures: PictureFolder) -> ParquetShard:  # noqa: ARG002 - pictures lie within
        """A file of its own."""
        return ParquetShard(path)

    def finish(
        self,
        name: str,  # noqa: ARG002
        parts: Sequence[ExportPart],  # noqa: ARG002
        shards: Mapping[str, Sequence[ExportedShard]],  # noqa: ARG002
    ) -> Mapping[str, str]:
        """The card says it all."""
        return {}

    def describe_configs(
        self, parts: Sequence[ExportPart], shards: Mapping[str, Sequence[ExportedShard]]
    ) -> Mapping[str, Any]:
        """Which files are which split."""
        return {"configs": list_configs([part for part in parts if shards.get(part.folder)], self.suffix)}


def _make_row(record: Record) -> dict[str, Any]:
    return {
        **{name: getattr(record, name) for name in (*TEXTS, *NUMBERS)},
        "images": [{"bytes": picture.data, "path": picture.name} for picture in record.pictures],
        "messages": [
            {
                "role": message.role,
                "content": [
                    {"type": "image", "text": None} if part is None else {"type": "text", "text": part}
                    for part in message.parts
                ],
                "loss": message.supervised,
            }
            for message in record.messages
        ],
    }


def _list_leaves() -> list[str]:
    """The columns of the file, by their paths in it."""
    inside = "messages.list.element"
    plain = [field.name for field in SCHEMA if field.name not in {"images", "messages"}]
    nested = [f"{inside}.{name}" for name in ("role", "loss", "content.list.element.type", "content.list.element.text")]
    return [*plain, "images.list.element.path", BYTES, *nested]
