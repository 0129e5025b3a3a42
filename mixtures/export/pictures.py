"""The pictures of records: the originals of a stage's segments, in any order and with flat memory.

A plan goes back and forth between the shards of its window. So originals are gathered for many segments at once: each
row group of a table of images is read once for all of them, into a file from which they are then taken by place.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlmill.mixtures import get_source
from vlmill.mixtures.export.record import ExportPicture
from vlmill.mixtures.lineage import LineageTables
from vlmill.mixtures.reader import PlannedMixture, Segment
from vlmill.pipeline.core.checked import check_hash
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.names import SAMPLES_FILE
from vlmill.pipeline.engine.partition_tables import PartitionTables, list_raw_tables
from vlmill.pipeline.images.decode import open_image
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.steps.image_bytes import Pictures

TABLES = 8
"""Partitions of which it is held in memory which image each node shows: 4 bytes a node."""

EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "JPEG2000": "jp2", "TIFF": "tif"}
"""Of formats that have another than their name."""

MOST_PIXELS = 1 << 40
"""No bound: only the header is read, of an image that was decoded before."""


def make_picture(data: bytes) -> ExportPicture:
    """A picture of its bytes, whose extension says what they are."""
    name = str(open_image(data, MOST_PIXELS).format)
    return ExportPicture(data, hashlib.sha256(data).hexdigest(), EXTENSIONS.get(name, name.lower()))


@dataclass(frozen=True, slots=True)
class ShownImage:
    """An image of a segment: where its bytes are, and what they have to be."""

    source: str
    partition: str
    sample: int  # row of the partition
    node: int  # of the sample as it was read
    sha256: str


class OriginalPictures:
    """The originals of the images of a stage.

    Args:
        recipe: The run's.
        mixture: The stage.
        lineages: Of the mixture.
    """

    def __init__(self, recipe: Recipe, mixture: PlannedMixture, lineages: LineageTables) -> None:
        self._recipe, self._mixture, self._lineages = recipe, mixture, lineages
        self._numbers = lru_cache(TABLES)(self._read_numbers)
        self._tables: dict[str, dict[str, PartitionTables]] = {}
        self._spool: IO[bytes] | None = None
        self._places: dict[str, tuple[int, int]] = {}

    def gather(self, segments: Sequence[Segment], folder: Path) -> None:
        """Read the originals of these segments; `take` then has them, and no others.

        Args:
            segments: In any order.
            folder: Where a file may lie that holds them all, until the next call.

        Raises:
            StoreError: a table is missing or damaged, or holds another image than the shards were made of.
        """
        self.close()
        self._spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        wanted: dict[tuple[str, str], dict[int, str]] = {}
        for segment in segments:
            for image in self._list_shown(segment):
                number = int(self._numbers(image.source, image.partition).find(image.sample, image.node))
                wanted.setdefault((image.source, image.partition), {})[number] = image.sha256
        for (source, partition), numbers in sorted(wanted.items()):
            pictures = Pictures(self._find_tables(source, partition).paths(self._mixture.root))
            for number, sha256 in sorted(numbers.items()):
                if sha256 not in self._places:
                    self._keep(pictures.read(number), sha256, f"image {number} of {source}/{partition}")

    def take(self, segment: Segment) -> Iterator[ExportPicture]:
        """The originals of a segment's images, in order."""
        assert self._spool is not None
        for image in self._list_shown(segment):
            place, size = self._places[image.sha256]
            self._spool.seek(place)
            yield make_picture(self._spool.read(size))

    def close(self) -> None:
        """Let go of what was gathered."""
        if self._spool is not None:
            self._spool.close()
        self._spool, self._places = None, {}

    def _keep(self, data: bytes | None, sha256: str, name: str) -> None:
        assert self._spool is not None
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            raise StoreError(
                f"{self._mixture.root}: {name} is not the one that the shards were made of; vlmill verify "
                f"{self._mixture.root} says what is damaged"
            )
        self._places[sha256] = (self._spool.tell(), len(data))
        self._spool.write(data)

    def _list_shown(self, segment: Segment) -> Iterator[ShownImage]:
        """The images of a segment, in order."""
        shard = self._mixture.lock["sources"][segment.source]["shards"][segment.shard]["path"]
        key = self._mixture.about(segment)["key"]
        partition, row = f"{key[:5]}-{key[5:9]}", int(key[9:])
        for node in self._lineages.find(segment)["nodes"][segment.first : segment.last]:
            if node["sha256"] is not None:
                yield ShownImage(get_source(shard), partition, row, node["node"], node["sha256"])

    def _find_tables(self, source: str, partition: str) -> PartitionTables:
        if source not in self._tables:
            found = list_raw_tables(self._mixture.root, self._recipe, source)
            self._tables[source] = {at.partition: at for at in found}
        return self._tables[source][partition]

    def _read_numbers(self, source: str, partition: str) -> _ImageNumbers:
        file = self._find_tables(source, partition).files[SAMPLES_FILE]
        return _ImageNumbers(check_hash(self._mixture.root / file.path, file.sha256))


class _ImageNumbers:
    """Which image each node of a partition shows."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, sample: int, node: int) -> int:
        """The number of the image of a node that shows one."""
        starts, images = self._columns
        return int(images[int(starts[sample]) + node].as_py())

    @cached_property
    def _columns(self) -> tuple[Any, Any]:
        with pq.ParquetFile(self._path) as file:
            nodes: pa.ListArray = file.read(["nodes.list.element.image"])["nodes"].combine_chunks()
        return nodes.offsets.to_numpy(), nodes.values.field("image")
