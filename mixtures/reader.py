"""A stage's mixture as the trainer and the page of statistics read it.

Its lock, the sequences of its plan, and the samples behind them.

Nothing is drawn at random here: sequence n of the plan is the same for every rank, worker and process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlmill.mixtures.steps.lock import LOCK_VERSION, locate_shards
from vlmill.pipeline.chat.encode import WHOLE, ChatFormat, Cut
from vlmill.pipeline.chat.settings import Chat, find_format, parse_chat
from vlmill.pipeline.core.checked import read_checked
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.core.seal import read_sealed_json
from vlmill.pipeline.images import POLICIES, Layout, Policy, Size
from vlmill.pipeline.images.connector import TILE_TOKENS, TileTokens, lay_out_images
from vlmill.pipeline.shards.byte_ranges import ByteRange, ShardStorage
from vlmill.pipeline.shards.writer import BLOCK, find_json_end, read_members, read_nodes, restore_texts

BLOCKS = 4
"""Plan blocks held in memory."""

VISUAL = 256
"""Visual tokens of an image of 448 px a side, four patches of 14 px to each."""

TEXTS, HEAD = 256, 1 << 14
"""Samples whose nodes are asked for at a time, and bytes of each: most have no longer JSON."""

NAMES = ("key", "id", "licence")
"""What an index calls a sample."""

INDICES = 256
"""Shard indices held in memory; a plan stays within a window of shards for each source."""

LEAST = 16
"""Of these, where a plan is read in order; else those of two windows of each source."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Nodes [first, last) of a sample, from token `begin` of the first to token `end` of the last.

    Its fields are columns of the plan.
    """

    source: int  # in the lock
    shard: int  # of the source
    row: int  # of the shard
    first: int = 0
    last: int | None = None  # None: to the end
    tokens: int | None = None  # as planned, with BOS and EOS
    begin: int = 0
    end: int = WHOLE


@dataclass(frozen=True, slots=True)
class Stored:
    """A sample as it lies in a shard. Images are its image nodes, in order."""

    nodes: tuple[Node, ...]
    sizes: tuple[tuple[int, int], ...]  # (width, height) of the originals
    tokens: tuple[int, ...]  # placeholders per image, as the index has them
    parts: tuple[Mapping[str, bytes], ...]  # per image: encoded pictures by part name
    boxes: tuple[Sequence[Mapping[str, Any]], ...] = ()  # per node: what its coordinates mark, as shards have it

    def find(self, segment: Segment) -> Found:
        """What of it a segment holds. A document that goes on behind the segment does not end with it."""
        last = len(self.nodes) if segment.last is None else segment.last
        nodes = self.nodes[segment.first : last]
        before = sum(node.kind == "image" for node in self.nodes[: segment.first])
        goes_on = segment.end != WHOLE or (last < len(self.nodes) and all(node.role == "none" for node in nodes))
        images = slice(before, before + sum(node.kind == "image" for node in nodes))
        return Found(nodes, images, Cut(segment.begin, segment.end, goes_on))


class Found(NamedTuple):
    """Nodes of a segment, which images of its sample are among them, and where it is cut inside a node."""

    nodes: tuple[Node, ...]
    images: slice
    cut: Cut


class _Block(NamedTuple):
    """A block of the plan."""

    starts: np.ndarray  # of the segments of each sequence, and one more
    columns: tuple[np.ndarray, ...]  # the fields of `Segment`, of all segments
    sums: np.ndarray  # of each sequence, as `PlannedMixture.measure` has them


@dataclass(frozen=True, slots=True)
class _Index:
    """What reading a sample wants of a shard's index, by columns."""

    offset: np.ndarray  # per sample
    size: np.ndarray  # per sample
    sha256: np.ndarray  # per sample, of its span: (samples, 32) uint8
    json_sha256: np.ndarray  # the same of its JSON
    first: np.ndarray  # image of each sample, and one more
    width: np.ndarray  # per image
    height: np.ndarray
    tokens: np.ndarray


class PlannedMixture:
    """The locked mixture of one stage. Reading from several threads is safe.

    Args:
        root: The run's folder.
        stage: Whose mixture.
        shards: Where copies of the run's shards lie, under the same paths as in its folder; None for there.
        in_order: Whether samples are read along the plan, or shard by shard: then fewer shard indices are held.
    """

    def __init__(self, root: Path, stage: str, shards: str | None = None, *, in_order: bool = False) -> None:
        self.root, self.stage, self.folder = root, stage, root / "mixtures" / stage
        path = self.folder / "mixture.lock.json"
        if not path.exists():
            raise StoreError(
                f"{root} has no mixture for stage {stage!r}; make it with: vlmill build RECIPE --out {root}"
            )
        cure = "It has changed, or is of an earlier version; run the build again: vlmill build RECIPE --out DIR"
        self.lock: dict[str, Any] = read_sealed_json(path, cure)
        if self.lock["version"] != LOCK_VERSION:
            raise StoreError(f"{path} is of another version of vlmill. {cure}")
        self.sha256 = hash_file(path)
        self.sequences: int = self.lock["plan"]["sequences"]
        self.sources: tuple[str, ...] = tuple(source["label"] for source in self.lock["sources"])
        self._place = ShardStorage(str(root) if shards is None else shards)
        self.held_shards = INDICES
        if in_order:
            self.held_shards = min(max(2 * int(self.lock["shard_window"]) * len(self.sources), LEAST), INDICES)
        self._block = lru_cache(BLOCKS)(self._read_block)
        self._index = lru_cache(self.held_shards)(self._read_index)
        self._names = lru_cache(self.held_shards)(self._read_names)

    @cached_property
    def chat(self) -> ChatFormat:
        """The chat format that lengths were measured in."""
        return find_format(self.chat_settings)

    @cached_property
    def chat_settings(self) -> Chat:
        """That format as a recipe names it."""
        return parse_chat(self.lock["chat"], f"{self.folder}: chat")

    @cached_property
    def policy(self) -> Policy:
        """The image policy that the shards were rendered under."""
        values = dict(self.lock["policy"])
        values.pop(TILE_TOKENS, None)
        return parse_block(POLICIES[values.pop("kind")], values, f"{self.folder}: policy")

    @cached_property
    def tile_tokens(self) -> TileTokens | None:
        """What the connector that lengths were measured for makes of a tile; None: what the policy counts."""
        values = self.lock["policy"].get(TILE_TOKENS)
        return None if values is None else parse_block(TileTokens, values, f"{self.folder}: {TILE_TOKENS}")

    def lay_out(self, sizes: Sequence[Size]) -> tuple[Layout, ...]:
        """Layouts of the images of one sample, with the tokens that the plan has of them."""
        return lay_out_images(self.policy, self.tile_tokens, sizes)

    @property
    def tokenizer(self) -> Path:
        """The tokenizer that lengths were measured with.

        Raises:
            StoreError: the file is another one.
        """
        path = self.root / str(self.lock["tokenizer"]["path"])
        if not path.exists() or hash_file(path) != self.lock["tokenizer"]["sha256"]:
            raise StoreError(
                f"{path} is not the tokenizer that stage {self.stage!r} was measured with; run the build again: "
                f"vlmill build RECIPE --out {self.root}"
            )
        return path

    def sequence(self, number: int) -> tuple[Segment, ...]:
        """The segments of packed sequence `number`, in order. Raises IndexError where the plan has no such sequence."""
        block, place = locate_shards(self.lock, number)
        starts, columns, _ = self._block(block)
        here = slice(starts[place], starts[place + 1])
        return tuple(Segment(*values) for values in zip(*(column[here].tolist() for column in columns), strict=True))

    def measure(self, numbers: Sequence[int]) -> np.ndarray:
        """Tokens, pairs of tokens that attend to each other, and tiles of sequences of the plan: (sequences, 3).

        Where tiles differ in size, and the plan therefore bounds visual tokens, VISUAL of these count as a tile.
        """
        places = (locate_shards(self.lock, number) for number in numbers)
        return np.array([self._block(block).sums[place] for block, place in places]).reshape(-1, 3)

    def held_out(self) -> tuple[Segment, ...]:
        """The samples that no sequence of the plan holds, whole, in order."""
        return tuple(self.iterate_held_out())

    def iterate_held_out(self) -> Iterator[Segment]:
        """The same one after the other, 10 bytes of each in memory."""
        file, names = self.lock["held_out"], ["source", "shard", "row"]
        table = read_columns(self.folder / file["path"], file["sha256"], names)
        columns = [_convert_column(table[name].combine_chunks()) for name in names]
        return (Segment(*(int(column[place]) for column in columns)) for place in range(table.num_rows))

    def samples(self, source: int) -> Iterator[Segment]:
        """All samples of a source, whole, in the order of its shards."""
        for shard, file in enumerate(self.lock["sources"][source]["shards"]):
            yield from (Segment(source, shard, row) for row in range(file["samples"]))

    def read(self, segments: Sequence[Segment]) -> Iterator[Stored]:
        """The whole samples that segments are of, in order, each by one read of its span in the tar.

        Raises:
            StoreError: a shard cannot be read, or is not the one that its index describes.
        """
        members = read_members(self._place, [self._span(segment) for segment in segments])
        return (self._stored(*found) for found in zip(segments, members, strict=True))

    def _stored(self, segment: Segment, members: Mapping[str, bytes]) -> Stored:
        index = self._index(segment.source, segment.shard)
        here = slice(index.first[segment.row], index.first[segment.row + 1])
        with self._sound(self._span(segment)):
            record = json.loads(members["json"])
            named = [node["parts"] for node in record["nodes"] if node["kind"] == "image"]
            nodes = read_nodes(record)
            parts = tuple({name.split(".")[1]: members[name] for name in names} for names in named)
            boxes = tuple(node.get("boxes", ()) for node in record["nodes"])
        return Stored(
            nodes=nodes,
            sizes=tuple(zip(index.width[here].tolist(), index.height[here].tolist(), strict=True)),
            tokens=tuple(index.tokens[here].tolist()),
            parts=parts,
            boxes=boxes,
        )

    @contextmanager
    def _sound(self, span: ByteRange) -> Iterator[None]:
        """Raises StoreError in place of what a sample raises whose JSON is none, or that lacks a member."""
        try:
            yield
        except (ValueError, KeyError, TypeError) as error:
            raise self._place.damage(span, f"the sample there is damaged ({type(error).__name__}: {error})") from error

    def about(self, segment: Segment) -> dict[str, Any]:
        """The key, id and licence of the sample that a segment is of."""
        shard = self.lock["sources"][segment.source]["shards"][segment.shard]
        table = self._names(shard["index"], shard["index_sha256"])
        return {name: table[name][segment.row].as_py() for name in NAMES}

    def sizes(self, segment: Segment) -> tuple[tuple[int, int], ...]:
        """(width, height) of the originals of all images of the sample that a segment is of."""
        index = self._index(segment.source, segment.shard)
        here = slice(index.first[segment.row], index.first[segment.row + 1])
        return tuple(zip(index.width[here].tolist(), index.height[here].tolist(), strict=True))

    def columns(self, block: int) -> dict[str, np.ndarray]:
        """All segments of a block of the plan, by the fields of `Segment`."""
        return dict(zip((field.name for field in fields(Segment)), self._block(block).columns, strict=True))

    def nodes(self, segments: Iterable[Segment], *, restored: bool = False) -> Iterator[tuple[Node, ...]]:
        """The nodes alone of the samples that segments are of, in order; images are not asked for.

        `restored`: with coordinates as upstream has them, of the original image.

        Raises:
            StoreError: as `read`.
        """
        coming = iter(segments)
        while some := list(islice(coming, TEXTS)):
            spans = [self._span(segment) for segment in some]
            heads = self._place.read([replace(span, size=min(span.size, HEAD), sha256=None) for span in spans])
            for segment, span, head in zip(some, spans, heads, strict=True):
                data = self._json(segment, span, head)
                with self._sound(span):
                    record = json.loads(data)
                    nodes = read_nodes(restore_texts(record) if restored else record)
                yield nodes

    def _json(self, segment: Segment, span: ByteRange, head: bytes) -> bytes:
        """The JSON of a sample, its first member, from the beginning of its span.

        The rest is read if that is too short.
        """
        end = find_json_end(head)
        if not BLOCK < end <= span.size:
            raise self._place.damage(span, "no sample begins there")
        sha256 = self._index(segment.source, segment.shard).json_sha256[segment.row].tobytes()
        if end > len(head):
            (head,) = self._place.read([replace(span, size=end, sha256=None)])
        if hashlib.sha256(head[:end]).digest() != sha256:
            raise self._place.damage(span, "the sha256 of its JSON is not the one in the shard's index")
        return head[BLOCK:end]

    def _span(self, segment: Segment) -> ByteRange:
        index = self._index(segment.source, segment.shard)
        shard = self.lock["sources"][segment.source]["shards"][segment.shard]
        place, size = int(index.offset[segment.row]), int(index.size[segment.row])
        return ByteRange(shard["path"], place, size, index.sha256[segment.row].tobytes())

    def _read_block(self, number: int) -> _Block:
        block = self.lock["plan"]["blocks"][number]
        table = read_columns(self.folder / block["path"], block["sha256"], ["visual", "segments"])
        rows = table["segments"].combine_chunks()
        columns = {field.name: _convert_column(rows.values.field(field.name)) for field in fields(Segment)}
        starts, tokens = _convert_column(rows.offsets), columns["tokens"].astype(np.float64)
        tiles = _convert_column(rows.values.field("tiles")).astype(np.float64)
        held = np.stack(
            [tokens, tokens * (tokens + 1) / 2, tiles], axis=1
        )  # every token looks at itself and those before
        sums = np.diff(np.concatenate([np.zeros((1, 3)), held.cumsum(axis=0)])[starts], axis=0)
        if "visual" in table.column_names:
            sums[:, 2] = _convert_column(table["visual"].combine_chunks()) / VISUAL
        return _Block(starts, tuple(columns.values()), sums)

    def _read_index(self, source: int, shard: int) -> _Index:
        file = self.lock["sources"][source]["shards"][shard]
        columns = ["offset", "size", "sha256", "json_sha256", "images"]
        table = read_columns(self.root / file["index"], file["index_sha256"], columns)
        offset, size, sha256, json_sha256, images = (table[name].combine_chunks() for name in columns)
        return _Index(
            _convert_column(offset),
            _convert_column(size),
            _convert_digests(sha256),
            _convert_digests(json_sha256),
            _convert_column(images.offsets),
            *(_convert_column(images.values.field(name)) for name in ("width", "height", "tokens")),
        )

    def _read_names(self, index: str, sha256: str) -> Any:
        return read_columns(self.root / index, sha256, list(NAMES))


def read_columns(path: Path, sha256: str, columns: list[str]) -> Any:
    """Columns of a table of a run, of the bytes that were hashed.

    Not by `read_table`, whose first call imports what scans data sets.

    Raises:
        StoreError: it is missing, or not the one that has this sha256 in a lock or receipt.
    """
    with pq.ParquetFile(pa.BufferReader(read_checked(path, sha256))) as file:
        return file.read(columns, use_threads=False)


def _convert_digests(column: Any) -> np.ndarray:
    """A column of sha256 as (rows, 32) uint8."""
    return np.frombuffer(column.buffers()[1], np.uint8)[32 * column.offset :][: 32 * len(column)].reshape(-1, 32)


def _convert_column(column: Any) -> np.ndarray:
    """A column without nulls.

    Not by `to_numpy`, whose first call imports pandas: with the other half a second of a first batch.
    """
    return np.from_dlpack(column)
