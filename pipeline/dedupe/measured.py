"""What the step `pairs` has measured before: pictures that were added to a run are compared, those before them are not.

How alike two pictures are depends on these alone, and their keys name their bytes. So what an earlier task of the same
version measured is what this one would, and a task leaves the same bytes with it as without.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlmill.pipeline.core.checked import check_hash
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.run_path import find_local_paths
from vlmill.pipeline.dedupe.candidates import read_span

MEASURED_FILE = "image.measured.parquet"
MEASURED = pa.schema([("one", pa.uint64()), ("other", pa.uint64()), ("similarity", pa.float64())])
"""All pairs of pictures that were measured, sorted by keys; 0 below the floor."""
RULE = b"vlmill.rule"
"""Metadata that say by what they were measured: as it is written, so it has to be."""


@dataclass(frozen=True)
class EarlierFile:
    """What an earlier task left, with the sha256 that its receipt has of it."""

    path: Path
    sha256: str


def write_measured(path: Path, pairs: Sequence[NDArray[np.generic]], rule: object) -> None:
    """Write the columns of MEASURED."""
    schema = MEASURED.with_metadata({RULE: json.dumps(rule, sort_keys=True).encode()})
    table = pa.Table.from_arrays([pa.array(column) for column in pairs], schema=schema)
    pq.write_table(table, path, compression="zstd", row_group_size=1 << 16)


def find_measured(
    earlier: Sequence[EarlierFile], one: NDArray[np.uint64], other: NDArray[np.uint64], rule: object
) -> NDArray[np.float64]:
    """(n,): similarity of pairs as it was measured, NaN where it was not.

    Args:
        earlier: Files of MEASURED; one that is gone, damaged, or measured by another rule says nothing.
        one: (n,) keys, sorted.
        other: The second ones, sorted within these.
        rule: By what is measured now, for JSON.
    """
    known = np.full(one.size, np.nan)
    for file in earlier if one.size else ():
        try:
            path = check_hash(find_local_paths({"measured": file.path})["measured"], file.sha256)
        except (StoreError, OSError):
            continue
        if (pq.read_schema(path).metadata or {}).get(RULE) != json.dumps(rule, sort_keys=True).encode():
            continue
        columns = read_span(path, tuple(MEASURED.names), int(one[0]), int(one[-1]))
        _fill_known(known, one, other, *columns)
    return known


def _fill_known(
    known: NDArray[np.float64],
    one: NDArray[np.uint64],
    other: NDArray[np.uint64],
    first: NDArray[np.uint64],
    second: NDArray[np.uint64],
    similarity: NDArray[np.float64],
) -> None:
    """Enter what was measured of the pairs asked for. Both are sorted by keys."""
    ends = np.stack([np.concatenate([one, first]), np.concatenate([other, second])])
    order = np.lexsort((ends[1], ends[0]))  # stable: of one pair, what is asked for stands before what was measured
    same = (ends[:, order[1:]] == ends[:, order[:-1]]).all(axis=0)
    known[order[:-1][same]] = similarity[order[1:][same] - one.size]
