"""Numbers of samples to what a page shows of them: a line each with its first picture, and pictures by their place.

Rows are read from the run's own tables, some row groups in memory. Pictures are decoded as a build decodes them, drawn
small, and sent as WebP: no byte of a run goes to the browser as it came.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlmill.explore.index import OF_SAMPLES, Index
from vlmill.explore.tables import IndexedPartition, list_indexed_partitions
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.names import SAMPLES_FILE
from vlmill.pipeline.core.sample import Sample, row_to_sample
from vlmill.pipeline.images.decode import Undecodable, decode_image
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.steps.image_bytes import Pictures

GROUPS = 48
"""Row groups of samples in memory."""
OPENED = 16
"""Tables of images that are open."""
EXCERPT = 280
"""Characters of a text in a line."""
SIDES = (96, 160, 240, 360, 720)
"""Pixels that a picture may be asked for at, on its longer side."""


class SampleReader:
    """Reads samples and pictures of an indexed run."""

    def __init__(self, root: Path, recipe: Recipe, index: Index) -> None:
        self.root, self.recipe, self.index = root, recipe, index
        self.partitions = {(one.source, one.name): one for one in list_indexed_partitions(root, recipe)}
        self._groups = OrderedDict[tuple[str, str, int], pa.Table]()
        self._files = dict[tuple[str, str], tuple[pq.ParquetFile, list[int]]]()
        self._pictures = OrderedDict[tuple[str, str], Pictures]()
        self._lock, self._picture_lock = Lock(), Lock()

    def find_partition(self, source: str, name: str) -> IndexedPartition:
        """A partition of the run.

        Raises:
            StoreError: there is no such partition.
        """
        if (source, name) not in self.partitions:
            raise StoreError(f"this run has no partition {source}/{name}")
        return self.partitions[source, name]

    def read_sample(self, number: int) -> Sample:
        """A sample by its number."""
        source, partition, row = self.index.find_place(number)
        with self._lock:
            file, starts = self._open_table(source, partition)
            group = bisect_right(starts, row) - 1
            key = (source, partition, group)
            if key not in self._groups:
                self._groups[key] = file.read_row_group(group, use_threads=False)
                if len(self._groups) > GROUPS:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(key)
            (found,) = self._groups[key].slice(row - starts[group], 1).to_pylist()
        return row_to_sample(found)

    def _open_table(self, source: str, partition: str) -> tuple[pq.ParquetFile, list[int]]:
        if (source, partition) not in self._files:
            file = pq.ParquetFile(self.find_partition(source, partition).tables[SAMPLES_FILE])
            sizes = (file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
            self._files[source, partition] = file, list(accumulate(sizes, initial=0))
        return self._files[source, partition]

    def describe_samples(self, numbers: Sequence[int], values: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Some samples, a line each, in their order; `values` are dimensions to be told along."""
        return [self._describe_sample(number, values) for number in numbers]

    def _describe_sample(self, number: int, values: Sequence[str]) -> dict[str, Any]:
        sample, index = self.read_sample(number), self.index
        source, partition, _ = index.find_place(number)
        text = "\n".join(node.text for node in sample.nodes if node.text)
        image = next((node.image for node in sample.nodes if node.image is not None), None)
        return {
            "number": number,
            "id": str(sample.id),
            "source": source,
            "outcome": index.outcomes[int(index.column("outcome")[number])],
            "images": int(index.column("images")[number]),
            "text": _shorten(text),
            "picture": None if image is None else {"source": source, "partition": partition, "image": image},
            "values": {name: self.list_values(number, name) for name in values},
        }

    def describe_nodes(self, found: Sequence[tuple[int, int, float]]) -> list[dict[str, Any]]:
        """Samples by what a value is of: a line each, with that picture or text, and the value."""
        lines = []
        for number, node, value in found:
            line, sample = self._describe_sample(number, ()), self.read_sample(number)
            if node >= 0 and sample.nodes[node].image is not None:
                source, partition, _ = self.index.find_place(number)
                line["picture"] = {"source": source, "partition": partition, "image": sample.nodes[node].image}
            elif node >= 0 and sample.nodes[node].text:
                line |= {"picture": None, "text": _shorten(sample.nodes[node].text or "")}
            lines.append({**line, "node": node, "value": float(f"{value:.6g}")})
        return lines

    def list_values(self, number: int, name: str) -> list[float]:
        """The values of a dimension that a sample has, in the order of its nodes."""
        column = self.index.column(name)
        if name in OF_SAMPLES:
            return [float(column[number])] if column[number] >= 0 else []
        first, last = self.find_owned(number, name)
        return [float(value) for value in column[first:last]]

    def find_owned(self, number: int, name: str) -> tuple[int, int]:
        """The places of a sample's values in a dimension's columns; values stand in the order of their samples."""
        owners = self.index.column(f"{name}.owner")
        return tuple(int(place) for place in owners.searchsorted([number, number + 1]))  # type: ignore[return-value]

    def draw_picture(self, source: str, partition: str, image: int, side: int) -> bytes:
        """An image as WebP, at most `side` pixels long.

        Raises:
            StoreError: there is no such image, it has no bytes, or they cannot be decoded.
        """
        where = f"image {image} of {source}/{partition}"
        tables = self.find_partition(source, partition).tables
        try:
            picture = decode_image(self._read_bytes(source, partition, tables, image), self._most_pixels)
        except (Undecodable, LookupError, TypeError, ValueError) as error:  # no such row, table or bytes
            raise StoreError(f"{where} cannot be drawn: {error}") from error
        picture = picture.convert("RGB")
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=78)
        return buffer.getvalue()

    def _read_bytes(self, source: str, partition: str, tables: Mapping[str, Path], image: int) -> bytes:
        if image < 0:
            raise IndexError("its number is negative")
        with self._picture_lock:
            key = (source, partition)
            if key not in self._pictures:
                self._pictures[key] = Pictures(tables)
                if len(self._pictures) > OPENED:
                    self._pictures.popitem(last=False)
            self._pictures.move_to_end(key)
            return self._pictures[key].read(image)

    @property
    def _most_pixels(self) -> int:
        return self.recipe.image_stats.max_pixels


def _shorten(text: str) -> str:
    return text[:EXCERPT] + ("..." if len(text) > EXCERPT else "")
