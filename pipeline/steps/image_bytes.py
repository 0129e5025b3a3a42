"""The bytes of a partition's images by their numbers: for render, and for whoever shows what was dropped."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlmill.pipeline.core.names import IMAGES_FILE, SUPPLEMENT_FILE
from vlmill.pipeline.core.sample import read_rows

ROW_GROUPS = 4  # of images.parquet in memory, about 8 MB each


class Pictures:
    """The bytes of images by number, a few row groups in memory.

    What a retry fetched replaces what was fetched first.
    """

    def __init__(self, inputs: Mapping[str, Path]) -> None:
        self.first = _Column(inputs[IMAGES_FILE])
        self.retried, self.places = None, dict[int, int]()
        if SUPPLEMENT_FILE in inputs:
            self.retried = _Column(inputs[SUPPLEMENT_FILE])
            self.places = {
                row["image"]: place for place, row in enumerate(read_rows(inputs[SUPPLEMENT_FILE], ["image"]))
            }

    def read(self, number: int) -> bytes:
        """The bytes of an image that image stats could decode."""
        if self.retried is not None and number in self.places:
            return self.retried.read(self.places[number])
        return self.first.read(number)


class _Column:
    """The column `bytes` of a Parquet file by row."""

    def __init__(self, path: Path) -> None:
        self.file = pq.ParquetFile(path)
        sizes = (self.file.metadata.row_group(group).num_rows for group in range(self.file.num_row_groups))
        self.starts = [0, *accumulate(sizes)]
        # Not an lru_cache over a method: it would hold itself, and with it the images, until the next garbage
        # collection
        self.recent = OrderedDict[int, pa.ChunkedArray]()

    def read(self, row: int) -> bytes:
        group = bisect_right(self.starts, row) - 1
        if group in self.recent:
            self.recent.move_to_end(group)
        else:
            self.recent[group] = self.file.read_row_group(group, columns=["bytes"])["bytes"]
            if len(self.recent) > ROW_GROUPS:
                self.recent.popitem(last=False)
        data: bytes = self.recent[group][row - self.starts[group]].as_py()
        return data
