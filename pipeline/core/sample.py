"""The one sample model, and the tables that carry it between steps.

Every source becomes `Sample`s; every later step reads these and writes tables beside them, never into them.
Inside a partition a sample is named by its row in `samples.parquet`, an image by its row in `images.parquet`;
across partitions and for good by its `SampleId`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, cast

import pyarrow as pa
import pyarrow.parquet as pq

from vlmill.pipeline.core.at_work import AT_WORK
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.names import IMAGES_FILE, SUPPLEMENT_FILE
from vlmill.pipeline.core.reasons import Reason

Kind = Literal["text", "image"]
Role = Literal["none", "system", "user", "assistant"]

NO_PAGE = -1
WHOLE_SAMPLE = -1
LEAST_IMAGES = -2
"""In the place of a node: the verdict holds for the sample once it has fewer images left than its score says."""


class SampleId(NamedTuple):
    """Names a sample for good, whatever else the recipe holds. Ordered as a tuple; the smallest id is kept."""

    source: str  # its name in the recipe
    file: str  # relative to the source's declared root, with "/"
    row: int  # in the input file, from 0
    page: int = NO_PAGE  # of a document, from 0

    def __str__(self) -> str:
        """`web/file.parquet#12`, or `papers/file.tar#12.3` for page 3."""
        return f"{self.source}/{self.file}#{self.row}" + ("" if self.page == NO_PAGE else f".{self.page}")

    @classmethod
    def parse(cls, text: str) -> SampleId:
        """The id that `str` gives. Raises ValueError on any other text."""
        name, mark, place = text.rpartition("#")
        source, slash, file = name.partition("/")
        row, dot, page = place.partition(".")
        if not (mark and slash and source and file and row.isdigit() and (page.isdigit() or not dot)):
            raise ValueError(f"{text!r} is no sample id; one looks like source/file.parquet#12 or source/file.tar#12.3")
        return cls(source, file, int(row), int(page) if dot else NO_PAGE)


@dataclass(frozen=True, slots=True)
class Node:
    """One paragraph, turn or image of a sample, in its place."""

    kind: Kind  # text or image
    role: Role = "none"  # "none" in web documents and OCR pages
    turn: int = 0  # a user node and the assistant node that answers it share one number
    supervised: bool = False  # whether its text may count in the loss when only answers do
    text: str | None = None  # of text nodes
    image: int | None = None  # of image nodes: row in images.parquet
    required: bool = False  # losing this image drops the sample
    url: str | None = None  # where the image came from, or the page of the document
    after: int | None = None  # of what a model wrote about a node: that node, behind which it is read
    origin: str | None = None  # of what a model wrote: JSON that names signal, model and prompt


@dataclass(frozen=True, slots=True)
class Sample:
    """A document, a question-answer row, a pair or a page: what is kept, mixed and trained on as one thing."""

    id: SampleId  # its name for good
    nodes: tuple[Node, ...]  # in reading order
    group: str = ""  # of the pages of one document; else empty
    licence: str = ""  # as the recipe or the row says
    url: str = ""  # of the document, where it has one
    upstream_id: str = ""  # of its row in the input file: `id` or the like, or the key in a tar; not always unique
    signals: Mapping[str, float] = field(default_factory=dict)  # ratings and measures of upstream

    @property
    def taken_down(self) -> bool:
        """Whether it was taken down: its nodes still say what they were, and hold nothing."""
        return bool(self.nodes) and all(node.text is None and node.image is None for node in self.nodes)


@dataclass(frozen=True, slots=True)
class ImageStats:
    """What one decode found out about an image. `reason` says why there is nothing else."""

    image: int  # row in images.parquet
    reason: Reason | None  # None where it was decoded
    sha256: str = ""  # of the bytes as they came
    format: str = ""  # of the file, such as JPEG
    mode: str = ""  # as stored, before conversion
    width: int = 0  # after EXIF rotation
    height: int = 0  # in pixels, as width
    frames: int = 1  # of an animation; else 1
    contrast: float = 0.0  # standard deviation of luminance, 0 for one flat colour
    sharpness: float = 0.0  # variance of the Laplacian of luminance at 256 px
    phash: int = 0  # 64-bit DCT hash
    thumbnail: bytes = b""  # a JPEG of 128 x 128 pixels
    content: bytes = b""  # the same of what lies within uniform margins; empty where there are none
    margins: bytes = b""  # their pixels above, below, left and right, each as 4 bytes, the lowest first


@dataclass(frozen=True, slots=True)
class Verdict:
    """A filter's decision to drop a sample or one node of it. There is no verdict for what stays."""

    sample: int  # row in samples.parquet
    node: int  # index into Sample.nodes, WHOLE_SAMPLE or LEAST_IMAGES
    filter: str  # its name
    reason: Reason  # from the closed list
    score: float = 0.0  # quantised to 4 decimals when written
    other: str = ""  # the keeper's or the benchmark item's id


class ImageRow(TypedDict):
    """A row of IMAGES: an image as it came, or why there is none."""

    image: int
    url: str | None
    reason: str | None
    detail: str | None
    media_type: str | None
    bytes: bytes | None


class RefusedRow(TypedDict):
    """A row of REFUSED: a row or page of which no sample was made, and why."""

    source: str
    file: str
    row: int
    page: int
    upstream_id: str
    reason: str
    detail: str
    excerpt: str


NODE_TYPE = pa.struct(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("turn", pa.int32(), nullable=False),
        pa.field("supervised", pa.bool_(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("image", pa.int32()),
        pa.field("required", pa.bool_(), nullable=False),
        pa.field("url", pa.string()),
    ]
)
WRITTEN_NODE_TYPE = pa.struct([*NODE_TYPE, pa.field("after", pa.int32()), pa.field("origin", pa.string())])
SAMPLES = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("page", pa.int32(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("upstream_id", pa.string(), nullable=False),
        pa.field("signals", pa.string(), nullable=False),  # JSON with sorted keys
        pa.field("nodes", pa.list_(NODE_TYPE), nullable=False),
    ]
)
WRITTEN_SAMPLES = SAMPLES.set(
    SAMPLES.get_field_index("nodes"), pa.field("nodes", pa.list_(WRITTEN_NODE_TYPE), nullable=False)
)
"""Of a partition with texts that models wrote."""
IMAGES = pa.schema(
    [
        pa.field("image", pa.int32(), nullable=False),  # the row number
        pa.field("url", pa.string()),  # or the path of a file that was not had; None where the bytes came with the rows
        pa.field("reason", pa.string()),  # a Reason, or None where bytes are there or still to be fetched
        pa.field("detail", pa.string()),  # of the reason: "HTTP 404", "resolves to 10.0.0.1"
        pa.field("media_type", pa.string()),  # as the server declared it
        pa.field("bytes", pa.large_binary()),  # exactly as they came
    ]
)
REFUSED = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("page", pa.int32(), nullable=False),  # NO_PAGE for a row of which nothing came
        pa.field("upstream_id", pa.string(), nullable=False),  # of the row
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),  # a message: what was expected, what was found
        pa.field("excerpt", pa.string(), nullable=False),  # how the row begins; see pipeline/core/excerpt.py
    ]
)
IMAGE_STATS = pa.schema(
    [
        pa.field("image", pa.int32(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("mode", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("frames", pa.int32(), nullable=False),
        pa.field("contrast", pa.float32(), nullable=False),
        pa.field("sharpness", pa.float32(), nullable=False),
        pa.field("phash", pa.uint64(), nullable=False),
        pa.field("thumbnail", pa.binary(), nullable=False),
        pa.field("content", pa.binary(), nullable=False),
        pa.field("margins", pa.binary(), nullable=False),
    ]
)
VERDICTS = pa.schema(
    [
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("node", pa.int32(), nullable=False),
        pa.field("filter", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("other", pa.string(), nullable=False),
    ]
)


def sample_to_row(sample: Sample) -> dict[str, Any]:
    """The row of SAMPLES that holds `sample`."""
    nodes = [{name: getattr(node, name) for name in Node.__slots__} for node in sample.nodes]
    return {
        **sample.id._asdict(),
        "group": sample.group,
        "licence": sample.licence,
        "url": sample.url,
        "upstream_id": sample.upstream_id,
        "signals": json.dumps(dict(sample.signals), sort_keys=True),
        "nodes": nodes,
    }


def row_to_sample(row: Mapping[str, Any]) -> Sample:
    """The sample that a row of SAMPLES holds; tables of earlier versions of `read` have no `upstream_id`."""
    return Sample(
        id=SampleId(row["source"], row["file"], row["row"], row["page"]),
        nodes=tuple(Node(**node) for node in row["nodes"]),
        group=row["group"],
        licence=row["licence"],
        url=row["url"],
        upstream_id=row.get("upstream_id", ""),
        signals=json.loads(row["signals"]),
    )


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write samples.parquet. Their order becomes their row numbers."""
    write_rows(path, SAMPLES, (sample_to_row(sample) for sample in samples))


def write_written_samples(path: Path, samples: Iterable[Sample]) -> None:
    """The same of samples with texts that models wrote."""
    write_rows(path, WRITTEN_SAMPLES, (sample_to_row(sample) for sample in samples))


def order_nodes(nodes: Sequence[Node], kept: Iterable[int]) -> tuple[int, ...]:
    """Nodes in the order in which they are read: what a model wrote stands behind what it is about. Pure."""

    def place(index: int) -> tuple[int, int]:
        after = nodes[index].after
        return (index, -1) if after is None else (after, index)

    return tuple(sorted(kept, key=place))


def read_samples(path: Path) -> Iterator[Sample]:
    """All samples of a partition in row order, a batch in memory at a time."""
    for row in read_rows(path):
        sample = row_to_sample(row)
        AT_WORK.note(sample.id)
        yield sample


def write_image_stats(path: Path, image_stats: Iterable[ImageStats]) -> None:
    """Write image_stats.parquet, one row per image in image order."""
    write_rows(
        path, IMAGE_STATS, ({name: getattr(stats, name) for name in ImageStats.__slots__} for stats in image_stats)
    )


def read_image_stats(path: Path, columns: Collection[str] | None = None) -> list[ImageStats]:
    """The image stats of a partition's images; the list index is the image number.

    Args:
        path: image_stats.parquet.
        columns: The fields that are asked for besides `image` and `reason`; the others have their defaults. None for
            all. Thumbnails take ten times the memory of the rest.
    """
    wanted = None if columns is None else [name for name in IMAGE_STATS.names if name in {"image", "reason", *columns}]
    rows = read_rows(path, wanted)
    return [ImageStats(**{**row, "reason": Reason(row["reason"]) if row["reason"] else None}) for row in rows]


def read_refused(path: Path) -> Iterator[RefusedRow]:
    """The rows and pages of which no sample was made, in the order of the input file."""
    return cast("Iterator[RefusedRow]", ({"upstream_id": "", **row} for row in read_rows(path)))


def write_verdicts(path: Path, verdicts: Iterable[Verdict]) -> None:
    """Write a filter's verdicts, ordered by sample and node; scores keep 4 decimals."""
    ordered = sorted(verdicts, key=lambda verdict: (verdict.sample, verdict.node))
    rows = (
        {**{name: getattr(v, name) for name in Verdict.__slots__}, "score": round(float(v.score), 4)} for v in ordered
    )
    write_rows(path, VERDICTS, rows)


def read_verdicts(path: Path) -> Iterator[Verdict]:
    """A filter's verdicts, ordered by sample and node."""
    reasons = dict[str, Reason]()  # to look one up by name takes a microsecond, and as much again for a custom one
    for row in read_rows(path):
        reason = reasons.get(row["reason"]) or reasons.setdefault(row["reason"], Reason(row["reason"]))
        yield Verdict(**{**row, "reason": reason})


def write_rows(
    path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]], group: int = 4096, group_bytes: int = 8 << 20
) -> int:
    """Write rows as Parquet in row groups of at most `group` rows and about `group_bytes`, so that memory stays flat.

    The bytes depend on the rows and the version of pyarrow alone. Returns the number of rows.
    """
    count, pending, weight = 0, list[Mapping[str, Any]](), 0
    with pq.ParquetWriter(path, schema, **_choose_coding(schema)) as writer:
        for row in rows:
            pending.append(row)
            weight += len(row.get("bytes") or b"") + 64
            if len(pending) >= group or weight >= group_bytes:
                writer.write_table(pa.Table.from_pylist(pending, schema=schema))
                count, pending, weight = count + len(pending), [], 0
        if pending or not count:
            writer.write_table(pa.Table.from_pylist(pending, schema=schema))
    return count + len(pending)


def _choose_coding(schema: pa.Schema) -> dict[str, Any]:
    """zstd, but for the bytes of images: those come compressed, and a dictionary of them would be a second copy."""
    if "bytes" not in schema.names:
        return {"compression": "zstd"}
    return {
        "compression": {name: "none" if name == "bytes" else "zstd" for name in schema.names},
        "use_dictionary": [name for name in schema.names if name != "bytes"],
    }


DAMAGED_TABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises over a Parquet file: a name or text that is no UTF-8 gets past its own checks."""


def read_rows(path: Path, columns: Sequence[str] | None = None, batch: int = 256) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file in order, one batch in memory at a time.

    Raises:
        StoreError: the file is not there, or damaged.
    """
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:  # buffering ahead would hold the bytes of all row groups
            for part in file.iter_batches(batch_size=batch, columns=list(columns) if columns else None):
                yield from part.to_pylist()
    except DAMAGED_TABLE as error:
        raise StoreError(
            f"{path} cannot be read ({error}); `vlmill verify` says what else is damaged, and the way out"
        ) from error


def read_images(inputs: Mapping[str, Path], batch: int = 32) -> Iterator[ImageRow]:
    """Rows of `images.parquet` in order, each replaced by its row in `supplement.parquet` where a retry fetched it."""
    retried = inputs.get(SUPPLEMENT_FILE)
    later = cast("Iterator[ImageRow]", read_rows(retried, batch=batch) if retried else iter(()))
    waiting = next(later, None)
    for row in cast("Iterator[ImageRow]", read_rows(inputs[IMAGES_FILE], batch=batch)):
        if waiting is not None and waiting["image"] == row["image"]:
            yield waiting
            waiting = next(later, None)
        else:
            yield row
