"""How often a stage shows each image: in how many of its kept samples an image stands, times the epochs of these.

The last step of a stage, behind `lock`. Shares and epochs are counted per sample (`stats.py`); an image that stands in
many samples is seen more often than they say. An image is its bytes as they came.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmill.mixtures import get_lineage_path
from vlmill.mixtures.report.stats import to_json
from vlmill.pipeline.core.names import LINEAGE_SUFFIX
from vlmill.pipeline.core.step import Count, Counts, Inputs

TOP = 20
"""Images that are named, those seen most often first."""
LEVELS = (1, 2, 3, 5, 9, 17, 33, 65, 129)
"""Where a new class of the distribution begins: seen once, twice, 3-4 times, 5-8 times and so on."""

SEGMENTS = np.dtype([(name, np.int64) for name in ("place", "row", "first", "last", "times")])
"""A segment: the place of its shard among those of the lock, row, first and last node, and how often it is planned."""

IMAGES = np.dtype([("key", np.uint64), ("shown", np.int64), ("samples", np.int64)])
"""An image: the head of its sha256, how often the plan shows it, and in how many planned samples it stands."""

RANGES = 256
"""Of shards, and of images: one of each is in memory at a time."""
HELD = 1 << 16
"""Records that are held in memory before they are written into ranges."""


@dataclass(frozen=True, slots=True)
class Repetition:
    """Adds `repetition` to the statistics of a locked stage.

    Pure. What it counts lies in files, cut into ranges of shards and of images, of which it holds one at a time.
    """

    name: ClassVar[str] = "repetition"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The lock, its statistics, all blocks, and the lineage beside the shards."""
        return ("mixture.lock.json", "stats.json", "plan/*.parquet", f"shards/*{LINEAGE_SUFFIX}")

    def made_by(self) -> Mapping[str, str]:
        """The array library and the table reader."""
        return {"numpy": version("numpy"), "pyarrow": version("pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `stats.json`; counts `images_shown`: the different ones."""
        lock = json.loads(inputs["mixture.lock.json"].read_text(encoding="utf-8"))
        stats = json.loads(inputs["stats.json"].read_text(encoding="utf-8"))
        blocks = [inputs[block["path"]] for block in lock["plan"]["blocks"]]
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            found = measure_repetition(lock, blocks, inputs, Path(scratch))
        (folder / "stats.json").write_text(to_json({**stats, "repetition": found}), encoding="utf-8")
        return {"images_shown": Count(found["images"], found["images"])}


class _Ranges:
    """Records that are cut into RANGES: in files of a folder where they are more than HELD."""

    def __init__(self, folder: Path, kind: np.dtype[Any]) -> None:
        self._folder, self._kind = folder, kind
        self._records, self._numbers, self._size = [np.empty(0, kind)], [np.empty(0, np.int64)], 0

    def add(self, records: np.ndarray, numbers: np.ndarray) -> None:
        """Records with the number of the range of each."""
        self._records.append(records)
        self._numbers.append(numbers)
        self._size += records.size
        if self._size >= HELD:
            self._write()

    def read(self) -> Iterator[np.ndarray]:
        """All records, some ranges at a time."""
        if not self._folder.exists():
            yield np.concatenate(self._records)
            return
        self._write()
        for path in sorted(self._folder.iterdir()):
            yield np.fromfile(path, self._kind)

    def _write(self) -> None:
        self._folder.mkdir(exist_ok=True)
        records, numbers = np.concatenate(self._records), np.concatenate(self._numbers)
        order = np.argsort(numbers, kind="stable")
        found, starts = np.unique(numbers[order], return_index=True)
        for number, part in zip(found.tolist(), np.split(records[order], starts[1:]), strict=False):
            with (self._folder / f"{number:03d}").open("ab") as file:
                part.tofile(file)
        self._records, self._numbers, self._size = self._records[:1], self._numbers[:1], 0


def measure_repetition(
    lock: Mapping[str, Any], plan: Sequence[Path], lineage: Mapping[str, Path], scratch: Path
) -> dict[str, Any]:
    """How often a stage shows its images; pure, and independent of the order of the blocks.

    Returns:
        `images`: the different ones shown; `shown`: how often in all; `mean` and `most` times for one; `distribution`:
            a list of `times` ("3-4"), `images` and the share of everything shown; `top`: `sha256`, `shown`, `samples`,
            `url` and a sample's `id`.

    Args:
        lock: of the stage.
        plan: its blocks.
        lineage: the lineage tables by the path beside their shard.
        scratch: an empty folder.
    """
    paths = [lineage[get_lineage_path(shard["path"])] for listed in lock["sources"] for shard in listed["shards"]]
    images = _Ranges(scratch / "images", IMAGES)
    planned = np.zeros(len(paths), bool)
    for segments in _cut_segments(lock, plan, scratch / "segments").read():
        for same in _split_shards(segments):
            place = int(same["place"][0])
            planned[place] = True
            shown = _add_images(_count_shown(same, paths[place]))
            images.add(shown, (shown["key"] // np.uint64(2**64 // RANGES)).astype(np.int64))
    counts, shows, top, most = np.zeros(len(LEVELS), np.int64), np.zeros(len(LEVELS), np.int64), np.empty(0, IMAGES), 0
    for some in images.read():
        added = _add_images(some)
        level = np.searchsorted(LEVELS, added["shown"], side="right") - 1
        np.add.at(counts, level, 1)
        np.add.at(shows, level, added["shown"])
        top = np.concatenate([top, added])
        top = top[np.lexsort((top["key"], -top["shown"]))[:TOP]]
        most = max(most, int(added["shown"].max(initial=0)))
    number, total = int(counts.sum()), int(shows.sum())
    return {
        "images": number,
        "shown": total,
        "mean": round(total / number, 6) if number else 0.0,
        "most": most,
        "distribution": list(_list_levels(counts, shows)),
        "top": _describe_images(top, [path for path, there in zip(paths, planned, strict=True) if there]),
    }


def summarise_repetition(found: Mapping[str, Any]) -> str:
    """A repetition in a line, for people."""
    if not found["shown"]:
        return "no image is shown"
    words = {"1": "once", "2": "twice"}
    often = ", ".join(
        f"{level['images']:,} of them {words.get(level['times'], level['times'] + ' times')}"
        for level in found["distribution"]
    )
    return (
        f"{found['images']:,} images shown {found['shown']:,} times, {found['mean']:.2f} each and {found['most']} at "
        f"most: {often}"
    )


def _cut_segments(lock: Mapping[str, Any], plan: Sequence[Path], folder: Path) -> _Ranges:
    """SEGMENTS of all blocks, each different one once per block, by ranges of shards."""
    names = ["source", "shard", "row", "first", "last"]
    sizes = [len(listed["shards"]) for listed in lock["sources"]]
    starts = np.cumsum([0, *sizes])
    ranges = _Ranges(folder, SEGMENTS)
    for path in plan:
        column = pq.read_table(path, columns=["segments"])["segments"].combine_chunks().flatten()
        table = pa.table({name: column.field(name) for name in names}).group_by(names).aggregate([([], "count_all")])
        found = np.empty(table.num_rows, SEGMENTS)
        found["place"] = starts[table["source"].to_numpy()] + table["shard"].to_numpy()
        for name in names[2:]:
            found[name] = table[name].to_numpy()
        found["times"] = table["count_all"].to_numpy()
        ranges.add(found, found["place"] * RANGES // max(1, int(starts[-1])))
    return ranges


def _split_shards(segments: np.ndarray) -> list[np.ndarray]:
    """The same segments, each different one once, an array for each shard."""
    names = ["place", "row", "first", "last"]
    order = segments[np.lexsort([segments[name] for name in reversed(names)])]
    new = np.any([order[name][1:] != order[name][:-1] for name in names], axis=0)
    starts = np.concatenate([[0], np.flatnonzero(new) + 1])[: order.size]
    found = order[starts]
    if order.size:
        found["times"] = np.add.reduceat(order["times"], starts)
    parts = np.split(found, np.flatnonzero(found["place"][1:] != found["place"][:-1]) + 1)
    return [part for part in parts if part.size]


def _count_shown(segments: np.ndarray, path: Path) -> np.ndarray:
    """IMAGES that the SEGMENTS of one shard show, an entry per segment and image in it, not yet added up."""
    nodes = pq.read_table(path, columns=["nodes"])["nodes"].combine_chunks()
    offsets, sums = nodes.offsets.to_numpy(), nodes.flatten().field("sha256")
    keys = _parse_keys(sums)
    row, first, last, times = (segments[name] for name in ("row", "first", "last", "times"))
    lengths = last - first
    starts = offsets[row] + first
    places = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    shown = np.zeros(places.size, IMAGES)
    shown["key"], shown["shown"] = keys[places], np.repeat(times, lengths)
    rows = np.repeat(row, lengths)
    _, new = np.unique(np.stack([rows.astype(np.uint64), shown["key"]]), axis=1, return_index=True)
    shown["samples"][new] = 1
    there: np.ndarray = sums.is_valid().to_numpy(zero_copy_only=False)
    left: np.ndarray = shown[there[places]]
    return left


def _parse_keys(sums: pa.Array) -> np.ndarray:
    """The heads of sha256 sums in hexadecimal; 0 where there is none."""
    heads = pc.fill_null(pc.utf8_slice_codeunits(sums, 0, 16), "0" * 16).to_pylist()
    return np.frombuffer(bytes.fromhex("".join(heads)), ">u8").astype(np.uint64)


def _add_images(images: np.ndarray) -> np.ndarray:
    """IMAGES, each image once, sorted by key."""
    keys, owners = np.unique(images["key"], return_inverse=True)
    added = np.zeros(keys.size, IMAGES)
    added["key"] = keys
    for name in ("shown", "samples"):
        np.add.at(added[name], owners, images[name])
    return added


def _list_levels(images: np.ndarray, shown: np.ndarray) -> Iterator[dict[str, Any]]:
    """The classes of LEVELS that are not empty, by the images of each and how often these are shown in all."""
    total = int(shown.sum())
    for low, high, number, times in zip(LEVELS, (*LEVELS[1:], None), images.tolist(), shown.tolist(), strict=True):
        if number:
            named = f"{low}" if high == low + 1 else f"{low}-{high - 1}" if high else f"{low}+"
            yield {"times": named, "images": number, "share": round(times / total, 6)}


def _describe_images(top: np.ndarray, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The most shown images with what their first lineage says of them."""
    wanted, found = set(top["key"].tolist()), defaultdict[int, dict[str, str]](dict)
    for path in paths:
        if len(found) == len(wanted):
            break
        table = pq.read_table(path, columns=["id", "nodes"])
        nodes = table["nodes"].combine_chunks()
        entries, parents = nodes.flatten(), nodes.value_parent_indices().to_numpy()
        keys = _parse_keys(entries.field("sha256"))
        for place in np.flatnonzero(np.isin(keys, top["key"])).tolist():
            key = int(keys[place])
            if key in wanted and entries.field("sha256")[place].is_valid and key not in found:
                node = entries[place].as_py()
                found[key] = {
                    "sha256": node["sha256"],
                    "url": node["url"] or "",
                    "id": table["id"][int(parents[place])].as_py(),
                }
    return [
        {**found[int(image["key"])], "shown": int(image["shown"]), "samples": int(image["samples"])} for image in top
    ]
