"""Step `resolve` of a run that one task could not hold: over blocks of partitions, and buckets of what they share.

The rules are those of a small run, and so are the bytes of the verdicts. Between two steps lie tables that are read by
range (exchange.py): from blocks to buckets by what is compared, and back by the order of the samples.

    find      per block    what the filters left, and the keys of its contents
    ...       per bucket   connected components (stars.py)
    label     per block    what is left, with the component of each content
    claim     per block    what the rules of a stage look at                         } for each stage
    ...       per bucket   what a ranked rule settles (rounds.py)                    }
    decide    per bucket   which of it goes; beside the first, the overlap of sources }
    drop      per block    what that comes to, and the keepers that are to be named
    name      per block    their ids
    resolve   per block    verdicts by partition; and once, the overlap

No task holds more than a block or a bucket. A bucket holds whole groups, as large as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlmill.pipeline.core.names import OUTLINE_FILE, name_verdicts
from vlmill.pipeline.core.sample import SampleId
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.dedupe.candidates import BUCKET_BITS, split_range
from vlmill.pipeline.dedupe.exchange import find_paths, read_range, write_sorted
from vlmill.pipeline.dedupe.left import BLOCK_BITS, DROPS, LABELS, Left
from vlmill.pipeline.dedupe.overlap import add_overlaps, list_things, measure_overlap
from vlmill.pipeline.dedupe.ranked import TOLD
from vlmill.pipeline.dedupe.resolve import count_drops, write_drops, write_overlap
from vlmill.pipeline.dedupe.rule import RankedRule, Rule
from vlmill.pipeline.dedupe.stars import KINDS
from vlmill.pipeline.dedupe.survivors import read_survivors

Stages = tuple[tuple[Rule, ...], ...]
THINGS = ("images", "texts")


def find_orders(block: int) -> tuple[int, int]:
    """The first and the last order of a block."""
    return block << BLOCK_BITS, (block + 1 << BLOCK_BITS) - 1


@dataclass(frozen=True)
class PolarsStep:
    """What the steps here have in common. Pure."""

    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    def made_by(self) -> Mapping[str, str]:
        """The libraries that calculate and write."""
        return {library: version(library) for library in ("numpy", "polars", "pyarrow")}


@dataclass(frozen=True)
class FindLeft(PolarsStep):
    """Step: what the filters left of a block. Counts `samples_left`."""

    block: int
    partitions: tuple[str, ...]
    priority: Mapping[str, int]
    filters: tuple[str, ...]
    paragraphs: int | None
    all_texts: bool

    name: ClassVar[str] = "find_left"

    @property
    def reads(self) -> tuple[str, ...]:
        """Outlines, and verdicts of the filters; where lines count, those of the block and those that are repeated."""
        wanted = (OUTLINE_FILE, *(name_verdicts(filter_) for filter_ in self.filters))
        lines = () if self.paragraphs is None else ("line.places.parquet",)
        repeats = () if self.paragraphs is None else ("*/line.repeats.parquet",)
        return (*(f"{at}/{name}" for at in self.partitions for name in (*wanted, *lines)), *repeats)

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `left.parquet` and `left.nodes.parquet`, and for texts and images `<kind>.keys.parquet`.

        These have `key`, the first order of the block (`to`), and whether it is `compared` with similar ones.
        """
        samples, nodes = read_survivors(
            inputs,
            self.partitions,
            self.filters,
            self.priority,
            self._find_repeats(inputs),
            all_texts=self.all_texts,
            block=self.block,
        )
        images = nodes.filter(pl.col("kind") == "image").select("key", compared=True)
        to = pl.lit(find_orders(self.block)[0], pl.UInt64)
        for kind, keys in (("text", samples.select(key="text", compared="long")), ("image", images)):
            found = keys.group_by("key").agg(pl.col("compared").any()).select("key", to.alias("to"), "compared")
            write_sorted(folder / f"{kind}.keys.parquet", found)
        samples.write_parquet(folder / "left.parquet")
        nodes.write_parquet(folder / "left.nodes.parquet")
        return {"samples_left": Count(samples.height, samples.height)}

    def _find_repeats(self, inputs: Inputs) -> NDArray[np.uint64]:
        """Places of the lines of the block that are repeated often enough, sorted."""
        if self.paragraphs is None:
            return np.empty(0, np.uint64)
        own = [pl.read_parquet(inputs[f"{at}/line.places.parquet"], glob=False)["place"] for at in self.partitions]
        lines = pl.concat(own).unique().to_frame()
        repeated = (
            pl.scan_parquet(path, glob=False).filter(pl.col("documents") >= self.paragraphs).select("place").collect()
            for path in find_paths(inputs, "*/line.repeats.parquet")
        )
        found = [lines.join(each, on="place", how="semi")["place"] for each in repeated]
        return pl.concat([lines["place"].clear(), *found]).unique().sort().to_numpy()


@dataclass(frozen=True)
class LabelBlock(PolarsStep):
    """Step: what is left of a block, with the components of its contents. Counts `samples_left`."""

    block: int

    name: ClassVar[str] = "label_block"

    @property
    def reads(self) -> tuple[str, ...]:
        """What is left of the block, and the labels of all buckets."""
        return (
            f"*/{self.block:05d}/left.parquet",
            f"*/{self.block:05d}/left.nodes.parquet",
            *(f"*/{kind}.labels.parquet" for kind in KINDS),
        )

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write a table for each of Left's, and `<things>.things.parquet`, whose overlap is measured."""
        samples, nodes = (_read_table(inputs, name) for name in ("left", "left.nodes"))
        texts, images = (
            read_range(find_paths(inputs, f"*/{kind}.labels.parquet"), *find_orders(self.block)).select(LABELS.names())
            for kind in KINDS
        )
        left = Left.begin(samples, nodes, texts, images)
        for name, frame in (("samples", left.samples), ("nodes", left.nodes), ("images", left.images)):
            frame.write_parquet(folder / f"labelled.{name}.parquet")
        for name, things in list_things(left.samples, left.images).items():
            write_sorted(folder / f"{name}.things.parquet", things)
        return {"samples_left": Count(samples.height, samples.height)}


@dataclass(frozen=True)
class _OfBlock(PolarsStep):
    """A step over what is left of a block behind some stages."""

    block: int
    stages: Stages  # all whose answers are there

    @property
    def reads(self) -> tuple[str, ...]:
        """What is left of the block, and all answers so far."""
        tables = (f"*/{self.block:05d}/labelled.{name}.parquet" for name in ("samples", "nodes", "images"))
        return (*tables, *(f"*/{rule.kind}.decided.parquet" for stage in self.stages for rule in stage))

    def read_left(self, inputs: Inputs) -> Left:
        """What these stages left."""
        samples, nodes, images = (_read_table(inputs, f"labelled.{name}") for name in ("samples", "nodes", "images"))
        left, orders = Left(samples, nodes, images, DROPS.to_frame()), find_orders(self.block)
        for stage in self.stages:
            drops = [
                rule.drop(left, read_range(find_paths(inputs, f"*/{rule.kind}.decided.parquet"), *orders))
                for rule in stage
            ]
            left = left.without(pl.concat(drops))
        return left


@dataclass(frozen=True)
class ClaimThings(_OfBlock):
    """Step: what the rules of a stage look at in a block. Counts `things_claimed`."""

    rules: tuple[Rule, ...]  # of the stage behind `stages`

    name: ClassVar[str] = "claim_things"
    version: ClassVar[int] = 2

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<rule>.claims.parquet`."""
        left, count = self.read_left(inputs), Count()
        for rule in self.rules:
            claims = rule.claim(left)
            write_sorted(folder / f"{rule.kind}.claims.parquet", claims)
            count.keep(claims.height)
        return {"things_claimed": count}


@dataclass(frozen=True)
class DecideClaims(PolarsStep):
    """Step: which claims of a bucket go. Counts `claims_decided`."""

    bucket: int
    buckets: int
    rules: tuple[Rule, ...]

    name: ClassVar[str] = "decide_claims"

    @property
    def reads(self) -> tuple[str, ...]:
        """The claims, and what ranked rules settled of their groups."""
        ranked = (rule.kind for rule in self.rules if isinstance(rule, RankedRule))
        return (
            *(f"*/{rule.kind}.claims.parquet" for rule in self.rules),
            *(f"*/{kind}.told.parquet" for kind in ranked),
        )

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<rule>.decided.parquet`."""
        count, span = Count(), split_range(self.bucket, self.buckets, BUCKET_BITS)
        for rule in self.rules:
            claims = read_range(find_paths(inputs, f"*/{rule.kind}.claims.parquet"), *span)
            told = find_paths(inputs, f"*/{rule.kind}.told.parquet")
            held = read_range(told, *span).filter("kept") if told else TOLD.to_frame()
            write_sorted(folder / f"{rule.kind}.decided.parquet", rule.decide(claims, held))
            count.keep(claims.height)
        return {"claims_decided": count}


@dataclass(frozen=True)
class MeasureOverlap(PolarsStep):
    """Step: what sources have in common of the contents of a bucket. Counts `things_compared`."""

    bucket: int
    buckets: int

    name: ClassVar[str] = "measure_overlap"

    @property
    def reads(self) -> tuple[str, ...]:
        """The contents of all blocks."""
        return tuple(f"*/{name}.things.parquet" for name in THINGS)

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `overlap.part.json`."""
        found, count = {}, Count()
        for name in THINGS:
            span = split_range(self.bucket, self.buckets, BUCKET_BITS)
            things = read_range(find_paths(inputs, f"*/{name}.things.parquet"), *span)
            found[name] = measure_overlap(things)
            count.keep(things.height)
        (folder / "overlap.part.json").write_text(json.dumps(found, sort_keys=True), encoding="utf-8")
        return {"things_compared": count}


@dataclass(frozen=True)
class DropThings(_OfBlock):
    """Step: what goes of a block, and for what. Counts `things_dropped`."""

    name: ClassVar[str] = "drop_things"
    version: ClassVar[int] = 2

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `block.drops.parquet`: DROPS; and `keepers.parquet`: each `keeper`, and the first order here (`to`)."""
        drops, to = self.read_left(inputs).drops, pl.lit(find_orders(self.block)[0], pl.UInt64)
        write_sorted(folder / "block.drops.parquet", drops)
        write_sorted(folder / "keepers.parquet", drops.select("keeper", to.alias("to")).drop_nulls().unique())
        return {"things_dropped": Count(drops.height, drops.height)}


@dataclass(frozen=True)
class NameKeepers(PolarsStep):
    """Step: the ids of the samples of a block for which others go, once for each block that asks.

    Counts `keepers_named`.
    """

    block: int

    name: ClassVar[str] = "name_keepers"
    version: ClassVar[int] = 2

    @property
    def reads(self) -> tuple[str, ...]:
        """The keepers of all blocks, and the samples of this one."""
        return ("*/keepers.parquet", f"*/{self.block:05d}/left.parquet")

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `names.parquet`: the first order of the block that asks (`to`), `keeper`, its id as `keeper_...`."""
        keepers = read_range(find_paths(inputs, "*/keepers.parquet"), *find_orders(self.block))
        ids = _read_table(inputs, "left", ["order", *SampleId._fields])
        ids = ids.rename({"order": "keeper", **{name: f"keeper_{name}" for name in SampleId._fields}})
        named = keepers.join(ids, on="keeper").select("to", *ids.columns)
        write_sorted(folder / "names.parquet", named)
        return {"keepers_named": Count(named.height, named.height)}


@dataclass(frozen=True)
class ResolveBlock(PolarsStep):
    """Step: the verdicts on the partitions of a block. Counts and leaves what `Resolve` does of these."""

    block: int
    partitions: tuple[str, ...]

    name: ClassVar[str] = "resolve_block"

    @property
    def reads(self) -> tuple[str, ...]:
        """What goes of the block, the names of the keepers, and the samples."""
        own = (f"*/{self.block:05d}/{name}.parquet" for name in ("block.drops", "left"))
        return (*own, "*/names.parquet")

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write the verdicts of each partition."""
        drops = _read_table(inputs, "block.drops")
        names = read_range(find_paths(inputs, "*/names.parquet"), *find_orders(self.block))
        samples = _read_table(inputs, "left", ["order", "partition", "sample", "left"])
        write_drops(folder, self.partitions, samples, drops.join(names, on="keeper", how="left"))
        return count_drops(samples, drops)


@dataclass(frozen=True)
class AddOverlaps(PolarsStep):
    """Step: `overlap.json` of the run, as `Resolve` leaves it. Counts nothing."""

    name: ClassVar[str] = "add_overlaps"

    @property
    def reads(self) -> tuple[str, ...]:
        """The overlaps of all buckets."""
        return ("*/overlap.part.json",)

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write it."""
        whole = add_overlaps([])
        for path in find_paths(inputs, *self.reads):  # one at a time: each has a number for every two sources
            whole = add_overlaps([whole, json.loads(path.read_bytes())])
        write_overlap(folder, whole)
        return {}


def _read_table(inputs: Inputs, name: str, columns: list[str] | None = None) -> pl.DataFrame:
    """The only table of this name."""
    (path,) = find_paths(inputs, f"*/{name}.parquet")
    return pl.read_parquet(path, columns=columns, glob=False)
