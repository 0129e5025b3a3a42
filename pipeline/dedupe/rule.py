"""What a rule of `resolve` is: it drops things in three parts, so that it can be applied to any number of pieces.

    claim    per block    what of a block the rule looks at, under the group of which one is kept
    decide   per bucket   which of the claims of whole groups go
    drop     per block    what that comes to

A small run is one block and one bucket (resolve.py), a large one has many of both, with files in between (blocks.py).
The rules of one stage look at the same things; those of the next look at what these left.

Where a claim goes for one of another group that stays (a ranked rule), the groups are settled between the first part
and the second (ranked.py).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import polars as pl

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE
from vlmill.pipeline.dedupe.left import BLOCK_BITS, DROPS, Left


class Rule(Protocol):
    """A frozen dataclass of settings."""

    @property
    def kind(self) -> str:
        """What files call it."""
        ...

    def claim(self, left: Left) -> pl.DataFrame:
        """What of a block is compared. The first column, `group` (uint64), is the same where one is to be kept.

        `order` says whose it is.
        """
        ...

    def decide(self, claims: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
        """What the claims of whole groups come to, in any order.

        The first column, `to`, is an order of the block that is told.

        Args:
            claims: Of whole groups.
            held: Of a ranked rule, TOLD (ranked.py) of the links from what stays to these groups; else nothing.
        """
        ...

    def drop(self, left: Left, answers: pl.DataFrame) -> pl.DataFrame:
        """DROPS of a block, from the answers that are for it."""
        ...


@runtime_checkable
class RankedRule(Rule, Protocol):
    """A rule by which a group goes where a similar one stays that comes before it. It is the only one of its stage."""

    @property
    def pairs(self) -> str:
        """The kind of pairs of contents that link groups."""
        ...

    @property
    def least(self) -> float:
        """Similarity from which they do."""
        ...

    def rank(self, claims: pl.DataFrame) -> pl.DataFrame:
        """CONTENTS (ranked.py) of the claims of whole groups, in any order."""
        ...


class DropsAnswers:
    """A rule whose answers are DROPS, each sent to the block of its sample."""

    def drop(self, left: Left, answers: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        del left
        return answers.select(DROPS.names())


def name_reason(reason: Reason) -> pl.Expr:
    """A reason, as drops have it."""
    return pl.lit(reason.value)


def make_group(*columns: str | pl.Expr) -> pl.Expr:
    """A hash of what makes things the same. Rules compare the things themselves; it only brings them together."""
    named = [pl.col(column) if isinstance(column, str) else column for column in columns]
    return pl.concat_str([column.cast(pl.String) for column in named], separator="|").hash(17).alias("group")


def find_block() -> pl.Expr:
    """The first order of the block of each `order`."""
    return (pl.col("order") // (1 << BLOCK_BITS) * (1 << BLOCK_BITS)).alias("to")


def address_drops(drops: pl.DataFrame) -> pl.DataFrame:
    """DROPS, under the order of their sample."""
    drops = drops.select(DROPS.names()).cast(DROPS)
    return drops.select(pl.col("order").alias("to"), *DROPS.names())


def drop_samples(samples: pl.DataFrame, reason: pl.Expr, score: pl.Expr) -> pl.DataFrame:
    """Drops of the whole samples that are not their own keepers, addressed."""
    drops = samples.filter(pl.col("order") != pl.col("keeper"))
    node = pl.lit(WHOLE_SAMPLE, pl.Int32)
    return address_drops(drops.select("order", "keeper", node=node, reason=reason, score=score))
