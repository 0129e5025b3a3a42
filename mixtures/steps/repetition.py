"""How often a stage shows each image: in how many of its kept samples an image stands, times the epochs of these.

The last step of a stage, behind `lock`. Shares and epochs are counted per sample (`stats.py`); an image that stands in
many samples is seen more often than they say. An image is its bytes as they came.
"""

from __future__ import annotations

import json
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

IMAGES = np.dtype([("key", np.uint64), ("shown", np.int64), ("samples", np.int64)])
"""An image: the head of its sha256, how often the plan shows it, and in how many planned samples it stands."""


@dataclass(frozen=True, slots=True)
class Repetition:
    """Adds `repetition` to the statistics of a locked stage.

    Pure; holds 24 bytes per image and the plan of a shard at a time.
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
        found = measure_repetition(lock, blocks, inputs)
        (folder / "stats.json").write_text(to_json({**stats, "repetition": found}), encoding="utf-8")
        return {"images_shown": Count(found["images"], found["images"])}


def measure_repetition(lock: Mapping[str, Any], plan: Sequence[Path], lineage: Mapping[str, Path]) -> dict[str, Any]:
    """How often a stage shows its images; pure, and independent of the order of the blocks.

    Returns:
        `images`: the different ones shown; `shown`: how often in all; `mean` and `most` times for one; `distribution`:
            a list of `times` ("3-4"), `images` and the share of everything shown; `top`: `sha256`, `shown`, `samples`,
            `url` and a sample's `id`.

    Args:
        lock: of the stage.
        plan: its blocks.
        lineage: the lineage tables by the path beside their shard.
    """
    planned = _count_segments(plan)
    tables = [
        (planned[source, shard], lineage[get_lineage_path(entry["path"])])
        for source, listed in enumerate(lock["sources"])
        for shard, entry in enumerate(listed["shards"])
        if (source, shard) in planned
    ]
    images = np.empty(0, IMAGES)
    for segments, path in tables:
        images = _add_images(images, _count_shown(segments, path))
    order = np.lexsort((images["key"], -images["shown"]))[:TOP]
    total = int(images["shown"].sum())
    return {
        "images": images.size,
        "shown": total,
        "mean": round(total / images.size, 6) if images.size else 0.0,
        "most": int(images["shown"].max(initial=0)),
        "distribution": list(_list_levels(images["shown"], total)),
        "top": _describe_images(images[order], [path for _, path in tables]),
    }


def summarise_repetition(found: Mapping[str, Any]) -> str:
    """A repetition in a line, for people."""
    words = {"1": "once", "2": "twice"}
    often = ", ".join(
        f"{words.get(level['times'], level['times'] + ' times')} {level['images']:,}" for level in found["distribution"]
    )
    return (
        f"{found['images']:,} images shown {found['shown']:,} times, {found['mean']:.2f} each and {found['most']} at "
        f"most: {often}"
    )


def _count_segments(plan: Sequence[Path]) -> dict[tuple[int, int], np.ndarray]:
    """(source, shard) -> (n, 4): row, first and last node of each different segment, and how often it is planned."""
    names = ["source", "shard", "row", "first", "last"]
    counted = []
    for path in plan:
        segments = pq.read_table(path, columns=["segments"])["segments"].combine_chunks().flatten()
        table = pa.table({name: segments.field(name) for name in names})
        counted.append(table.group_by(names).aggregate([([], "count_all")]))
    found = pa.concat_tables(counted).group_by(names).aggregate([("count_all", "sum")])
    columns = np.stack([found[name].to_numpy() for name in (*names, "count_all_sum")], axis=1).astype(np.int64)
    columns = columns[np.lexsort(columns[:, ::-1].T)]
    starts = np.flatnonzero((columns[1:, :2] != columns[:-1, :2]).any(axis=1)) + 1
    return {(int(same[0, 0]), int(same[0, 1])): same[:, 2:] for same in np.split(columns, starts) if len(same)}


def _count_shown(segments: np.ndarray, path: Path) -> np.ndarray:
    """IMAGES that the segments of one shard show, an entry per segment and image in it, not yet added up."""
    nodes = pq.read_table(path, columns=["nodes"])["nodes"].combine_chunks()
    offsets, sums = nodes.offsets.to_numpy(), nodes.flatten().field("sha256")
    keys = _parse_keys(sums)
    row, first, last, times = segments.T
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


def _add_images(images: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Two lots of IMAGES as one, each image once, sorted by key."""
    keys, owners = np.unique(np.concatenate([images["key"], more["key"]]), return_inverse=True)
    added = np.zeros(keys.size, IMAGES)
    added["key"] = keys
    for name in ("shown", "samples"):
        np.add.at(added[name], owners, np.concatenate([images[name], more[name]]))
    return added


def _list_levels(shown: np.ndarray, total: int) -> Iterator[dict[str, Any]]:
    """The classes of LEVELS that are not empty."""
    for low, high in zip(LEVELS, (*LEVELS[1:], None), strict=True):
        inside = shown[(shown >= low) & (shown < (high or np.iinfo(np.int64).max))]
        if inside.size:
            times = f"{low}" if high == low + 1 else f"{low}-{high - 1}" if high else f"{low}+"
            yield {"times": times, "images": inside.size, "share": round(int(inside.sum()) / total, 6)}


def _describe_images(top: np.ndarray, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The most shown images with what their first lineage says of them."""
    wanted, found = set(top["key"].tolist()), defaultdict[int, dict[str, str]](dict)
    for path in paths:
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
