"""Regions: coordinates that stand in a text, as a table beside the samples of a partition.

Left by step `boxes`, read by render. A region is a span of a node's text and what it marks: a box, points or a polygon
in pixels of an image of the same sample, as it is decoded (upright).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmill.pipeline.core.sample import read_rows, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from vlmill.pipeline.boxes.forms import Corners

MOST_REGIONS = 1_000
"""In one text; a text with more is none that a person wrote."""

REGIONS = pa.schema(
    [
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("node", pa.int32(), nullable=False),
        pa.field("first", pa.int32(), nullable=False),  # character of the node's text
        pa.field("last", pa.int32(), nullable=False),  # the one behind the region
        pa.field("image", pa.int32(), nullable=False),  # node of the image
        pa.field("corners", pa.list_(pa.float64()), nullable=False),  # x y x y in pixels
    ]
)


@dataclass(frozen=True, slots=True)
class Region:
    """A region of a node's text: characters [first, last)."""

    node: int
    first: int
    last: int
    image: int  # the node of the image
    corners: Corners  # in pixels of the image


def find_spans(texts: Sequence[str], pattern: str) -> list[list[tuple[int, int]]]:
    """Where a pattern's group `region` matches, by text: characters [first, last), in order and apart. Pure.

    RE2 searches, in time linear in the text, whatever the pattern; a text is searched anew behind each match. Of one
    with more than MOST_REGIONS, that many and one are found.
    """
    found: list[list[tuple[int, int]]] = [[] for _ in texts]
    asked = {number: text.encode() for number, text in enumerate(texts) if text}
    begun = dict.fromkeys(asked, 0)  # in bytes
    while asked:
        rest = pa.array([data[begun[number] :] for number, data in asked.items()], pa.large_string())
        spans = pc.extract_regex_span(rest, pattern).to_pylist()
        left = dict[int, bytes]()
        for (number, data), match in zip(asked.items(), spans, strict=True):
            if match is None or match["region"] is None:
                continue
            start, length = match["region"]
            first = begun[number] + start
            found[number].append((len(data[:first].decode()), len(data[: first + length].decode())))
            begun[number] = first + max(length, 1)
            if len(found[number]) <= MOST_REGIONS and begun[number] < len(data):
                left[number] = data
        asked = left
    return found


def write_regions(path: Path, rows: Iterable[tuple[int, Region]]) -> None:
    """Write regions with the row of their sample, in order."""
    write_rows(path, REGIONS, (_region_to_row(sample, region) for sample, region in rows))


def read_regions(path: Path) -> dict[int, list[Region]]:
    """The regions of a partition by sample, in the order of their texts."""
    found = defaultdict[int, list[Region]](list)
    for row in read_rows(path):
        corners = tuple(zip(row["corners"][::2], row["corners"][1::2], strict=True))
        found[row["sample"]].append(Region(row["node"], row["first"], row["last"], row["image"], corners))
    return dict(found)


def _region_to_row(sample: int, region: Region) -> dict[str, Any]:
    return {
        "sample": sample,
        "node": region.node,
        "first": region.first,
        "last": region.last,
        "image": region.image,
        "corners": [place for corner in region.corners for place in corner],
    }
