"""Shards: tars of samples that WebDataset reads, an index that one sample can be read by, and its lineage.

Written by `render`; read by `token_lengths`, the trainer and `trace`. webdataset's TarWriter writes the tars.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from vlmill.pipeline.core.names import INDEX_SUFFIX, LINEAGE_SUFFIX
from vlmill.pipeline.core.sample import Node, Sample, write_rows
from vlmill.pipeline.shards.tar_file import TarFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from vlmill.pipeline.images.policy import Layout
    from vlmill.pipeline.shards.byte_ranges import ByteRange, ShardStorage

BLOCK = 512
RECORD = 20 * BLOCK
"""A tar is filled up with zeros, two blocks at least, to a multiple of this."""

INDEX = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),  # of the shard, from 0
        pa.field("key", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # of the whole span, headers included
        pa.field("sha256", pa.binary(32), nullable=False),  # of the span
        pa.field("json_sha256", pa.binary(32), nullable=False),  # of its first member, from its header to its last byte
        pa.field("id", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("input_row", pa.int64(), nullable=False),
        pa.field("page", pa.int32(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("nodes", pa.int32(), nullable=False),
        pa.field(
            "images",
            pa.list_(
                pa.struct(
                    [
                        pa.field(name, pa.int32(), nullable=False)
                        for name in ("node", "width", "height", "rows", "columns", "tiles", "tokens")
                    ]
                )
            ),
            nullable=False,
        ),
        pa.field(
            "written",  # the nodes that models wrote
            pa.list_(
                pa.struct(
                    [pa.field("node", pa.int32(), nullable=False), pa.field("origin", pa.string(), nullable=False)]
                )
            ),
            nullable=False,
        ),
    ]
)
LINEAGE = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("upstream_id", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field(
            "nodes",
            pa.list_(
                pa.struct(
                    [
                        pa.field("node", pa.int32(), nullable=False),  # in the sample as it was read
                        pa.field("url", pa.string()),
                        pa.field("sha256", pa.string()),  # of the image's bytes as they came
                        pa.field("origin", pa.string()),  # of a text that a model wrote
                    ]
                )
            ),
            nullable=False,
        ),
    ]
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """An image as a shard holds it."""

    layout: Layout
    parts: Mapping[str, tuple[str, bytes]]  # part name -> (file extension, encoded picture)
    sha256: str = ""  # of the bytes that it was rendered from


@dataclass(frozen=True, slots=True)
class ShardSample:
    """A sample on its way into a shard: what is left of it, and its images in order."""

    key: str  # 15 digits, and no other sample of the source has them
    sample: Sample
    kept: tuple[int, ...]  # indices of the nodes that stay, in the order in which they are read
    images: tuple[Rendered, ...]  # of the image nodes among them
    boxes: Mapping[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)  # node -> what its coordinates mark


@dataclass
class ShardWriter:
    """Writes `<nn>.tar`, `<nn>.index.parquet` and `<nn>.lineage.parquet` into a folder; a context manager.

    A shard is closed before a sample that would take it over a bound; a sample that alone is too large stands alone.
    Where nothing is added, no file is written.
    """

    folder: Path
    most_samples: int
    most_bytes: int
    shards: int = 0  # closed or open
    _tar: TarFile | None = None
    _index: list[dict[str, Any]] = field(default_factory=list)
    _lineage: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._close()
        elif self._tar is not None:
            self._tar.__exit__(kind, error, trace)  # half a shard, in a folder that is not committed

    def add(self, entry: ShardSample) -> None:
        """Append a sample."""
        members = _make_members(entry)
        if self._tar is not None and self._is_full(self._tar, members):
            self._close()
        tar = self._tar = self._tar or self._open()
        begin = tar.offset
        for name, data in members.items():
            tar.add(entry.key, name, data)
        row = len(self._index)
        self._index.append(_index_row(entry, row, begin, tar.offset - begin))
        self._lineage.append(_make_lineage_row(entry, row))

    def _is_full(self, tar: TarFile, members: Mapping[str, bytes]) -> bool:
        blocks = sum(1 + -(-len(data) // BLOCK) for data in members.values())
        end = tar.offset + (blocks + 2) * BLOCK
        return len(self._index) == self.most_samples or -(-end // RECORD) * RECORD > self.most_bytes

    def _open(self) -> TarFile:
        self.shards += 1
        return TarFile(self.folder / f"{self.shards - 1:02d}.tar")

    def _close(self) -> None:
        if self._tar is None:
            return
        self._tar.close()
        name = f"{self.shards - 1:02d}"
        index = list(_add_digests(self.folder / f"{name}.tar", self._index))
        write_rows(self.folder / f"{name}{INDEX_SUFFIX}", INDEX, index)
        write_rows(self.folder / f"{name}{LINEAGE_SUFFIX}", LINEAGE, self._lineage)
        self._tar, self._index, self._lineage = None, [], []


def _add_digests(tar: Path, index: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of a shard's index with the sha256 of their spans, read back from the closed file."""
    with tar.open("rb") as file:
        for row in index:
            file.seek(row["offset"])
            span = file.read(row["size"])
            head = span[: find_json_end(span)]
            digests = {"sha256": hashlib.sha256(span), "json_sha256": hashlib.sha256(head)}
            yield {**row, **{name: found.digest() for name, found in digests.items()}}


def read_members(place: ShardStorage, spans: Sequence[ByteRange]) -> Iterator[dict[str, bytes]]:
    """The members of samples by what stands behind their key (`json`, `0.canvas.webp`), in order; one read for each.

    Args:
        place: Where the shards lie.
        spans: Of the samples, from their indices.

    Raises:
        StoreError: a span cannot be read, or is not what the index says.
    """
    for span, data in zip(spans, place.read(spans), strict=True):
        try:
            members = dict(parse_members(data))
        except ValueError:  # a header that is damaged
            members = {}
        if "json" not in members:
            raise place.damage(span, "no sample begins there")
        yield members


def parse_members(span: bytes) -> Iterator[tuple[str, bytes]]:
    """What stands behind the key, and the bytes, of each member in a part of a tar that ShardWriter wrote.

    Ends at the first thing that is no header: the end of the tar, or damage.
    """
    place = 0
    while span[place + 257 : place + 262] == b"ustar":
        name = span[place : place + 100].rstrip(b"\0").decode()
        size, start = int(span[place + 124 : place + 135], 8), place + BLOCK
        yield name.partition(".")[2], span[start : start + size]
        place = start + -(-size // BLOCK) * BLOCK


def find_json_end(span: bytes) -> int:
    """Where the JSON of a sample, its first member, ends in its span; 0 where no sample begins.

    The first block of the span is enough.
    """
    try:
        return BLOCK + int(span[124:135], 8) if span[257:262] == b"ustar" else 0
    except ValueError:  # a header that is damaged
        return 0


def read_nodes(record: Mapping[str, Any]) -> tuple[Node, ...]:
    """The nodes in a sample's JSON. `Node.image` counts the sample's images from 0."""
    images = iter(range(len(record["nodes"])))
    return tuple(
        Node(
            node["kind"],
            node["role"],
            node["turn"],
            node["supervised"],
            node.get("text"),
            next(images) if node["kind"] == "image" else None,
        )
        for node in record["nodes"]
    )


def restore_texts(record: Mapping[str, Any]) -> dict[str, Any]:
    """A sample's JSON whose texts have the coordinates that they had before the image policy moved these. Pure."""
    return {**record, "nodes": [_restore_text(node) if node.get("boxes") else node for node in record["nodes"]]}


def _restore_text(node: Mapping[str, Any]) -> dict[str, Any]:
    text: str = node["text"]
    for region in reversed(node["boxes"]):
        text = text[: region["first"]] + region["before"] + text[region["last"] :]
    return {**node, "text": text}


def _make_members(entry: ShardSample) -> dict[str, bytes]:
    """What stands behind a sample's key in the tar, in order: its JSON, then each part of each image."""
    parts = {
        f"{node}.{part}.{extension}": data
        for node, image in _list_images(entry)
        for part, (extension, data) in image.parts.items()
    }
    return {"json": _make_record(entry), **parts}


def _list_images(entry: ShardSample) -> Iterator[tuple[int, Rendered]]:
    """Each image with its node's place among the nodes that stay."""
    places = (place for place, node in enumerate(entry.kept) if entry.sample.nodes[node].image is not None)
    return zip(places, entry.images, strict=True)


def _make_record(entry: ShardSample) -> bytes:
    images, sample = dict(_list_images(entry)), entry.sample
    nodes: list[dict[str, Any]] = []
    for place, node in enumerate(sample.nodes[index] for index in entry.kept):
        shared: dict[str, Any] = {
            "kind": node.kind,
            "role": node.role,
            "turn": node.turn,
            "supervised": node.supervised,
        }
        if place not in images:
            marked = entry.boxes.get(entry.kept[place])
            nodes.append({**shared, "text": node.text, **({"boxes": list(marked)} if marked else {})})
            continue
        layout, parts = images[place].layout, images[place].parts
        names = [f"{place}.{part}.{extension}" for part, (extension, _) in parts.items()]
        nodes.append({**shared, "parts": names, "width": layout.size[0], "height": layout.size[1]})
    about = {
        "id": str(sample.id),
        "source": sample.id.source,
        "group": sample.group,
        "licence": sample.licence,
        "url": sample.url,
    }
    return json.dumps({**about, "nodes": nodes}, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _index_row(entry: ShardSample, row: int, offset: int, size: int) -> dict[str, Any]:
    sample = entry.sample
    shown: Sequence[dict[str, int]] = [
        {
            "node": place,
            "width": layout.size[0],
            "height": layout.size[1],
            "rows": layout.grid[0],
            "columns": layout.grid[1],
            "tiles": layout.tiles,
            "tokens": layout.tokens,
        }
        for place, layout in ((place, image.layout) for place, image in _list_images(entry))
    ]
    input_file = {
        "id": str(sample.id),
        "file": sample.id.file,
        "input_row": sample.id.row,
        "page": sample.id.page,
    }
    span = {"row": row, "key": entry.key, "offset": offset, "size": size}
    return {
        **span,
        **input_file,
        "group": sample.group,
        "licence": sample.licence,
        "nodes": len(entry.kept),
        "images": shown,
        "written": [
            {"node": place, "origin": sample.nodes[index].origin}
            for place, index in enumerate(entry.kept)
            if sample.nodes[index].origin is not None
        ],
    }


def _make_lineage_row(entry: ShardSample, row: int) -> dict[str, Any]:
    images, sample = dict(_list_images(entry)), entry.sample
    nodes = [
        {
            "node": index,
            "url": sample.nodes[index].url,
            "sha256": images[place].sha256 if place in images else None,
            "origin": sample.nodes[index].origin,
        }
        for place, index in enumerate(entry.kept)
    ]
    named = {"id": str(sample.id), "url": sample.url, "upstream_id": sample.upstream_id, "licence": sample.licence}
    return {"row": row, **named, "nodes": nodes}
