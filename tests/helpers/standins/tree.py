"""The files of one stand-in while they are written, and the record of what vlmill has to make of them."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.helpers.standins.material import Drawing, Material

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
STRING = pa.string()
STRINGS = pa.list_(STRING)

Row = tuple[Any, str]
"""A row, and the reason why vlmill refuses it; empty for a good one."""


@dataclass(frozen=True)
class Contents:
    """What vlmill has to read of one input file."""

    samples: int
    refused: Mapping[int, tuple[str, ...]]  # row -> reasons, one per lost page


@dataclass
class Tree:
    """The tree of a repository, and the folder of pictures that its rows name."""

    repository: str
    root: Path
    pictures: Path
    odd: bool
    subsets: Collection[str]  # that are written
    files: dict[str, Contents] = field(default_factory=dict)

    def material(self, subset: str) -> Material:
        """What the rows of a subset are made of."""
        return Material(f"{self.repository}/{subset}")

    def mix(self, good: Iterable[Any], odd: Sequence[Row] = ()) -> list[Row]:
        """Good rows with the odd ones among them: each after another good one, the rest at the end."""
        rows, left = list[Row](), list(odd) if self.odd else []
        for row in good:
            rows.append((row, ""))
            if left:
                rows.append(left.pop(0))
        return rows + left

    def write(self, name: str, data: bytes) -> None:
        """A file that is not read as rows."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def expect(self, name: str, rows: Sequence[Row]) -> None:
        """Note what has to be read of a file whose rows become a sample each."""
        refused = {number: (reason,) for number, (_, reason) in enumerate(rows) if reason}
        self.files[name] = Contents(len(rows) - len(refused), refused)

    def write_parquet(self, name: str, columns: Mapping[str, pa.DataType], rows: Sequence[Row]) -> None:
        """Rows as `datasets` writes them: three in a row group, with the features in the metadata."""
        features = {column: describe_feature(kind) for column, kind in columns.items()}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = pa.Table.from_pylist([row for row, _ in rows], schema=pa.schema(dict(columns), metadata))
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=3)
        self.write(name, buffer.getvalue())
        self.expect(name, rows)

    def write_shards(
        self, name: Callable[[int, int], str], columns: Mapping[str, pa.DataType], rows: Sequence[Row]
    ) -> None:
        """Rows in two Parquet files where there are enough; `name` makes theirs of number and count."""
        count = 2 if len(rows) > 4 else 1
        for number in range(count):
            start, stop = (len(rows) * place // count for place in (number, number + 1))
            self.write_parquet(name(number, count), columns, rows[start:stop])

    def write_json(self, name: str, rows: Sequence[Row]) -> None:
        """An array of rows."""
        self.write(name, json.dumps([row for row, _ in rows], ensure_ascii=False).encode())
        self.expect(name, rows)

    def write_json_lines(self, name: str, rows: Sequence[Row]) -> None:
        """A row per line."""
        self.write(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row, _ in rows).encode())
        self.expect(name, rows)

    def write_tar(self, name: str, rows: Sequence[tuple[str, Mapping[str, bytes]]], contents: Contents) -> None:
        """A tar of (key, suffix -> bytes) rows, in WebDataset's order."""
        members = [(f"{key}.{suffix}", data) for key, row in rows for suffix, data in sorted(row.items())]
        self.write(name, pack_tar(members))
        self.files[name] = contents

    def write_zip(self, name: str, members: Mapping[str, bytes]) -> None:
        """A zip of members, as old as the format allows."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for member, data in members.items():
                file.writestr(zipfile.ZipInfo(member), data)
        self.write(name, buffer.getvalue())

    def write_picture(self, name: str, drawing: Drawing) -> None:
        """A picture that rows name by path or address, which lies outside of the repository."""
        path = self.pictures / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawing.data)

    def write_card(
        self,
        licence: str,
        configs: Mapping[str, Mapping[str, str]] | None = None,
        languages: Sequence[str] = ("en",),
        **more: Any,
    ) -> None:
        """README.md with its YAML header; of `configs`, subset -> split -> pattern, those written are named."""
        header: dict[str, Any] = {"language": list(languages), **({"license": licence} if licence else {}), **more}
        if configs:
            header["configs"] = [
                {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in splits.items()]}
                for name, splits in configs.items()
                if name in self.subsets
            ]
        text = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
        self.write("README.md", f"---\n{text}---\n# A stand-in for {self.repository}\n".encode())


def pack_tar(members: Iterable[tuple[str, bytes]], mode: str = "w") -> bytes:
    """A tar of these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def describe_feature(kind: pa.DataType) -> Any:
    """The feature of `datasets` that a column of this type has."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return [describe_feature(kind.value_type)]
    if pa.types.is_struct(kind):
        return {part.name: describe_feature(part.type) for part in kind}
    return {"dtype": {"double": "float64", "halffloat": "float16"}.get(str(kind), str(kind)), "_type": "Value"}


def number_shard(number: int, count: int, split: str = "train") -> str:
    """The name that `datasets` gives to a Parquet file."""
    return f"{split}-{number:05d}-of-{count:05d}.parquet"


def as_image(drawing: Drawing, path: str | None = None) -> dict[str, Any]:
    """A cell of an image column."""
    return {"bytes": drawing.data, "path": path}
