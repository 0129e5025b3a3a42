"""What ranked rules settle (ranked.py) of more groups than one task could hold: rounds over buckets on disk.

    rank     per bucket of groups     the rank of each group, sent to its contents
    match    per bucket of contents   pairs from the least similarity on whose first content is claimed
    link     per bucket of contents   those of them whose other one is, as links between groups
    settle   per bucket of groups     one round: which groups stay and which go, as far as that can be told; told to
                                      those that come later

Rounds go on until nothing waits. The fewer links are left, the fewer buckets they are put into, and one bucket settles
all. So what is settled one after the other, such as a chain of which each link hangs on the one before, takes as many
rounds as it has links at most, and only while more is left than one task holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.dedupe.blocks import PolarsStep
from vlmill.pipeline.dedupe.candidates import BUCKET_BITS, split_range
from vlmill.pipeline.dedupe.exchange import find_paths, read_range, write_sorted
from vlmill.pipeline.dedupe.ranked import Links, link_groups, match_pairs, settle_links
from vlmill.pipeline.dedupe.rule import RankedRule

TABLES = ("tells", "waits", "told")


@dataclass(frozen=True)
class _OfBucket(PolarsStep):
    """A step over the rows of one bucket of tables."""

    bucket: int
    buckets: int

    @property
    def reads(self) -> tuple[str, ...]:
        """The tables."""
        raise NotImplementedError

    def read_tables(self, inputs: Inputs) -> list[pl.DataFrame]:
        """The rows of each table that lie in the bucket."""
        span = split_range(self.bucket, self.buckets, BUCKET_BITS)
        return [read_range(find_paths(inputs, name), *span) for name in self.reads]


@dataclass(frozen=True)
class RankGroups(_OfBucket):
    """Step: the groups of a bucket. Counts `contents_ranked`."""

    rule: RankedRule

    name: ClassVar[str] = "rank_groups"

    @property
    def reads(self) -> tuple[str, ...]:
        """The claims of all blocks."""
        return (f"*/{self.rule.kind}.claims.parquet",)

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<rule>.contents.parquet`: CONTENTS."""
        (claims,) = self.read_tables(inputs)
        contents = self.rule.rank(claims)
        write_sorted(folder / f"{self.rule.kind}.contents.parquet", contents)
        return {"contents_ranked": Count(contents.height, contents.height)}


@dataclass(frozen=True)
class MatchPairs(_OfBucket):
    """Step: the pairs whose first content lies in a bucket. Counts `pairs_matched`."""

    rule: RankedRule

    name: ClassVar[str] = "match_pairs"

    @property
    def reads(self) -> tuple[str, ...]:
        """The contents that are claimed, and the pairs."""
        return (f"*/{self.rule.kind}.contents.parquet", f"*/{self.rule.pairs}.pairs.parquet")

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<rule>.ends.parquet`: ENDS."""
        contents, pairs = self.read_tables(inputs)
        ends = match_pairs(contents, pairs.filter(pl.col("similarity") >= self.rule.least).unique())
        write_sorted(folder / f"{self.rule.kind}.ends.parquet", ends)
        return {"pairs_matched": Count(ends.height, ends.height)}


@dataclass(frozen=True)
class LinkGroups(_OfBucket):
    """Step: the links of pairs whose other content lies in a bucket. Counts `links_waiting`."""

    kind: str  # of the rule

    name: ClassVar[str] = "link_groups"

    @property
    def reads(self) -> tuple[str, ...]:
        """The contents that are claimed, and the pairs whose first content is."""
        return (f"*/{self.kind}.contents.parquet", f"*/{self.kind}.ends.parquet")

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<rule>.<table>.parquet` of Links."""
        return _write_links(folder, self.kind, link_groups(*self.read_tables(inputs)))


@dataclass(frozen=True)
class SettleGroups(_OfBucket):
    """Step: one round over the groups of a bucket. Counts `links_waiting`: those that are left to the next."""

    kind: str  # of the rule

    name: ClassVar[str] = "settle_groups"

    @property
    def reads(self) -> tuple[str, ...]:
        """What the round before left."""
        return tuple(f"*/{self.kind}.{table}.parquet" for table in TABLES)

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<rule>.<table>.parquet` of Links."""
        return _write_links(folder, self.kind, settle_links(Links(*self.read_tables(inputs))))


def _write_links(folder: Path, kind: str, links: Links) -> Counts:
    for table in TABLES:
        write_sorted(folder / f"{kind}.{table}.parquet", getattr(links, table))
    waiting = links.tells.height + links.waits.height
    return {"links_waiting": Count(waiting, waiting)}
