"""The index of a run: what is known of its samples as columns, in a folder of the user's cache.

It holds numbers, and names of sources, licences and reasons; no text, picture or address. It is a function of the run's
manifests, whose digest names its folder. Making it reads every table once; after that, and at every later start, its
columns are mapped into memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vlmill.explore.columns import ColumnWriter, open_column, write_column
from vlmill.explore.facts import IMAGE_FACTS, NodeValues, Reasons, read_partition_facts
from vlmill.explore.tables import IndexedPartition, count_sample_tokens, list_indexed_partitions, read_sample_names
from vlmill.pipeline.core.files import write_atomically
from vlmill.pipeline.recipe.schema import Recipe

VERSION = 2
"""Of the columns; a cache of another one is made anew."""
NAMES = "names.json"
BINS = 40
"""Of a histogram, at most: whole numbers in a narrow range have one each."""
NO_BIN = 255
"""Of a sample that has no value."""
SAMPLED = 200_000
"""Values that the edges of a histogram are chosen from."""
LOGARITHMIC = 30.0
"""Where the 99th percentile is so many times the first, bins grow by a factor."""

OF_SAMPLES = ("images", "texts", "characters", "tokens")
OF_EVERY = {
    **dict.fromkeys(OF_SAMPLES, np.int32),
    **dict.fromkeys(("source", "licence", "outcome", "lost.reason"), np.uint16),
    "lost.owner": np.uint32,
}
"""The columns that every index has, and their types."""


@dataclass(frozen=True)
class Dimension:
    """Something that samples, or their images and texts, have a value of."""

    name: str
    of: str  # sample, image, signal, or rating (of upstream)
    number: int  # of values
    edges: list[float] = field(default_factory=list)  # of bins; what lies beyond is in the outer ones
    log: bool = False
    least: float = 0.0
    most: float = 0.0


def find_cache(root: Path) -> Path:
    """Where the indexes of a run lie: `$XDG_CACHE_HOME/vlmill/explore`, or the same under `~/.cache`."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "vlmill/explore" / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]


def digest_manifests(root: Path) -> str:
    """The sha256 over all manifests of a run, by which a change of its tables is noticed."""
    digest = hashlib.sha256(str(VERSION).encode())
    for path in sorted((*root.glob("steps/**/manifest.json"), *root.glob("shards/**/manifest.json"))):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Index:
    """The index of a run, opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = json.loads((folder / NAMES).read_text(encoding="utf-8"))
        self.size: int = names["samples"]
        self.sources: list[str] = names["sources"]
        self.licences: list[str] = names["licences"]
        self.outcomes: list[str] = names["outcomes"]
        self.partitions: list[tuple[str, str, int]] = [tuple(item) for item in names["partitions"]]
        self.dimensions = {one["name"]: Dimension(**one) for one in names["dimensions"]}

    @cached_property
    def starts(self) -> np.ndarray:
        """The number of the first sample of each partition."""
        return np.array([start for *_, start in self.partitions], np.int64)

    def column(self, name: str) -> np.ndarray:
        """A column, mapped into memory once."""
        known: dict[str, np.ndarray] = self.__dict__.setdefault("_columns", {})
        if name not in known:
            known[name] = open_column(self.folder, name)
        return known[name]

    def list_owners(self, name: str) -> np.ndarray | None:
        """The sample of each value of a dimension; None where every sample has one, in order."""
        if name in OF_SAMPLES:
            return None
        known: dict[str, bool] = self.__dict__.setdefault("_plain", {})
        owners = self.column(f"{name}.owner")
        if name not in known:
            known[name] = len(owners) == self.size and bool((owners == np.arange(self.size, dtype=np.uint32)).all())
        return None if known[name] else owners

    def find_place(self, number: int) -> tuple[str, str, int]:
        """Source, partition and row of a sample."""
        at = int(np.searchsorted(self.starts, number, "right")) - 1
        source, partition, start = self.partitions[at]
        return source, partition, number - start

    def find_number(self, source: str, partition: str, row: int) -> int | None:
        """The number of the sample in a row of a partition."""
        for name, part, start in self.partitions:
            if (name, part) == (source, partition):
                return start + row
        return None


def open_index(root: Path, recipe: Recipe, tell: Callable[[int, int], None] = lambda *_: None) -> Index:
    """The index of a run as it stands, made where it is not there; older ones of the same run are removed.

    Args:
        root: the run's folder.
        recipe: the run's.
        tell: is told how many partitions are done, and of how many.
    """
    cache, digest = find_cache(root), digest_manifests(root)
    folder = cache / digest[:24]
    if not (folder / NAMES).exists():
        making = cache / f"{digest[:24]}.{os.getpid()}"
        shutil.rmtree(making, ignore_errors=True)
        make_index(list_indexed_partitions(root, recipe), making, tell)
        shutil.rmtree(folder, ignore_errors=True)
        making.rename(folder)
        for other in cache.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
    return Index(folder)


def make_index(partitions: list[IndexedPartition], folder: Path, tell: Callable[[int, int], None]) -> None:
    """Write the columns of all partitions and their names into a folder."""
    writer, reasons, start = ColumnWriter(folder), Reasons(), 0
    sources = list(dict.fromkeys(partition.source for partition in partitions))
    for name, kind in OF_EVERY.items():  # also of a run that has read nothing yet
        writer.append(name, np.empty(0, kind))
    licences, kinds, places = dict[str, int](), dict[str, str](), list[tuple[str, str, int]]()
    for done, partition in enumerate(partitions):
        tell(done, len(partitions))
        facts = read_partition_facts(partition.tables, partition.verdicts, reasons)
        number = len(facts.licences)
        for name, column in facts.columns.items():
            writer.append(name, column)
        writer.append("tokens", _list_tokens(partition, number))
        writer.append("source", np.full(number, sources.index(partition.source), np.uint16))
        codes = [licences.setdefault(licence, len(licences)) for licence in facts.licences]
        writer.append("licence", np.array(codes, np.uint16))
        writer.append("lost.owner", facts.lost_rows.astype(np.uint32) + np.uint32(start))
        writer.append("lost.reason", facts.lost_reasons.astype(np.uint16))
        for name, values in _name_values(facts.values, facts.ratings, kinds):
            writer.append(f"{name}.owner", values.rows.astype(np.uint32) + np.uint32(start))
            writer.append(f"{name}.node", values.nodes)
            writer.append(name, values.values)
        places.append((partition.source, partition.name, start))
        start += number
    writer.close()
    kinds = dict.fromkeys(OF_SAMPLES, "sample") | kinds
    dimensions = [_bin_values(folder, name, of) for name, of in kinds.items()]
    names = {
        "samples": start,
        "sources": sources,
        "licences": list(licences),
        "outcomes": list(reasons.numbers),
        "partitions": places,
        "dimensions": [one.__dict__ for one in dimensions if one.number],
    }
    write_atomically(folder / NAMES, json.dumps(names))
    tell(len(partitions), len(partitions))


def _name_values(
    values: dict[str, NodeValues], ratings: dict[str, NodeValues], kinds: dict[str, str]
) -> list[tuple[str, NodeValues]]:
    """Values by the name of their dimension; `kinds` learns what each is of. A rating of a taken name has a prefix."""
    found = list(values.items())
    for name, _ in found:
        kinds.setdefault(name, "image" if name in IMAGE_FACTS else "signal")
    for name, rating in ratings.items():
        plain = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in name)
        kinds.setdefault(f"upstream.{plain}", "rating")
        found.append((f"upstream.{plain}", rating))
    return found


def _list_tokens(partition: IndexedPartition, number: int) -> np.ndarray:
    """The tokens of each sample, -1 of those that are in no shard."""
    counted = count_sample_tokens(partition)
    if not len(counted):
        return np.full(number, -1, np.int32)
    keys = ["file", "row", "page"]
    typed = counted.cast({"row": pl.Int64, "page": pl.Int32})
    joined = read_sample_names(partition).join(typed, on=keys, how="left", maintain_order="left")
    return joined["tokens"].fill_null(-1).cast(pl.Int32).to_numpy()


def _bin_values(folder: Path, name: str, of: str) -> Dimension:
    """Choose the bins of a dimension, and write the bin of each value as a column."""
    values = open_column(folder, name)
    known = values[values >= 0] if name == "tokens" else values
    if not known.size:
        return Dimension(name, of, 0)
    edges, log = choose_edges(known)
    inner = np.array(edges[1:-1])
    bins = np.searchsorted(inner, values, "right").astype(np.uint8)
    if name == "tokens":
        bins[values < 0] = NO_BIN
    write_column(folder, f"{name}.bin", bins)
    return Dimension(name, of, int(known.size), edges, log, float(known.min()), float(known.max()))


def choose_edges(values: np.ndarray) -> tuple[list[float], bool]:
    """The edges of at most BINS bins, and whether they grow by a factor; what lies far out is in the outer bins."""
    least, most = float(values.min()), float(values.max())
    some = values[:: max(1, values.size // SAMPLED)]
    if most - least < BINS and not (values % 1).any():
        return [float(edge) for edge in range(int(least), int(most) + 2)], False
    low, high = (float(edge) for edge in np.quantile(some, (0.01, 0.99)))
    if least > 0 and high / max(low, 1e-12) > LOGARITHMIC:
        return _spread(np.geomspace(low, high, BINS + 1)), True
    if high > low and most - least > 3 * (high - low):
        margin = (high - low) / 2
        least, most = max(least, low - margin), min(most, high + margin)
    return _spread(np.linspace(least, most if most > least else least + 1, BINS + 1)), False


def _spread(edges: Any) -> list[float]:
    return [float(f"{edge:.6g}") for edge in edges]
