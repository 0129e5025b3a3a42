"""Which groups stay if each in turn does, unless one that stays comes before it and is linked to it. Part of `resolve`.

A ranked rule (rule.py) puts what it claims into groups and ranks these; similar contents link their groups. What stays
is the first maximal independent set in the order of ranks. No way to it is known that takes fewer rounds than the
longest chain of links in which nothing can be said before something else (Cook 1985 shows it P-complete); where ranks
are in random order, that is about the logarithm of the groups (Blelloch, Fineman and Shun 2012; Fischer and Noever
2018).

In one task everything is settled at once. In pieces (rounds.py) a bucket settles what can be told from its own links
and from what others told it the round before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

RANK = {"weight": pl.Int64, "order": pl.UInt64, "node": pl.Int32}
"""What comes first: the lowest weight, then the lowest order and node. No two groups have the same."""
CONTENTS = pl.Schema({"content": pl.UInt64, "group": pl.UInt64, **RANK})
"""A content, once, its group, and the rank of that."""
ENDS = pl.Schema({"other": pl.UInt64, "group": pl.UInt64, **RANK, "score": pl.Float64})
"""A pair: its other content; of its first one the group and its rank; and the similarity."""
TELLS = pl.Schema({"early": pl.UInt64, "late": pl.UInt64, **RANK, "score": pl.Float64})
"""A link from a group that nothing is known of to one that comes later, with the rank of the earlier one."""
WAITS = pl.Schema({"late": pl.UInt64, "early": pl.UInt64})
"""The same link, for the later one, as long as nothing is known of that either."""
TOLD = pl.Schema({"late": pl.UInt64, "early": pl.UInt64, **RANK, "score": pl.Float64, "kept": pl.Boolean})
"""A link whose earlier group is settled: whether it stays."""


@dataclass(frozen=True)
class Links:
    """What is left to settle of some groups, and what was settled last.

    Attributes:
        tells: TELLS from these groups.
        waits: WAITS of these groups.
        told: TOLD of the links that `tells` had before.
    """

    tells: pl.DataFrame
    waits: pl.DataFrame
    told: pl.DataFrame


def match_pairs(contents: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """ENDS of the pairs whose first content is among CONTENTS. Pure."""
    ends = pairs.rename({"similarity": "score"}).join(contents, left_on="one", right_on="content")
    return ends.select(ENDS.names())


def link_groups(contents: pl.DataFrame, ends: pl.DataFrame) -> Links:
    """The links that pairs make whose other content is among CONTENTS; each once, the most similar. Pure."""
    both = ends.join(contents, left_on="other", right_on="content", suffix="_other")
    both = both.filter(pl.col("group") != pl.col("group_other")).with_columns(before=_comes_before())
    first, last = ({"group": near, **{name: f"{name}{end}" for name in RANK}} for near, end in _ENDS)
    early = [pl.when("before").then(first[name]).otherwise(last[name]).alias(name) for name in first]
    late = pl.when("before").then("group_other").otherwise("group").alias("late")
    links = both.select(*early, late, "score").rename({"group": "early"})
    links = links.group_by("early", "late", *RANK).agg(pl.col("score").max()).select(TELLS.names())
    return Links(links, links.select(WAITS.names()), TOLD.to_frame())


_ENDS = (("group", ""), ("group_other", "_other"))


def _comes_before() -> pl.Expr:
    """Whether the rank of a pair's first content is lower than that of its other."""
    before = pl.lit(value=False)
    for name in reversed(RANK):
        one, other = pl.col(name), pl.col(f"{name}_other")
        before = (one < other) | ((one == other) & before)
    return before


def settle_links(links: Links) -> Links:
    """What can be told of some groups, from all links from and to them, and what of these was told before. Pure."""
    tells, told = links.tells, links.told
    waits = links.waits.join(told.filter(~pl.col("kept")), on=WAITS.names(), how="anti")
    groups = pl.concat([tells["early"], waits["late"]]).unique().sort().to_numpy()
    early, late, waiting = (
        groups.searchsorted(ends.to_numpy()) for ends in (tells["early"], tells["late"], waits["late"])
    )
    late = late.clip(max=max(0, groups.size - 1))
    inside = groups[late] == tells["late"].to_numpy()
    gone = np.isin(groups, told.filter("kept")["late"].unique().to_numpy())
    ahead = np.bincount(waiting, minlength=groups.size)
    kept, gone = settle_groups(ahead, gone, early[inside], late[inside])
    settled = kept | gone
    telling = tells.with_columns(kept=pl.Series(kept[early], dtype=pl.Boolean)).filter(pl.Series(settled[early]))
    return Links(
        tells.filter(pl.Series(~settled[early])),
        waits.filter(pl.Series(~settled[waiting])),
        telling.select(TOLD.names()),
    )


def settle_groups(
    ahead: NDArray[Any], gone: NDArray[np.bool_], early: NDArray[Any], late: NDArray[Any]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(count,) each: which groups stay and which go, as far as that can be told. Pure.

    Takes time for each link once, however long the chains are.

    Args:
        ahead: (count,): links to each group from earlier ones that are not settled, here or elsewhere.
        gone: (count,): whether it is linked to one that stays.
        early: Of the links among these groups, the earlier one.
        late: The later one.
    """
    order = np.argsort(early, kind="stable")
    late, starts = late[order], early[order].searchsorted(np.arange(gone.size + 1))
    ahead, gone = ahead.copy(), gone.copy()
    kept = (ahead == 0) & ~gone
    new = np.flatnonzero(kept | gone)
    while new.size:
        sizes = starts[new + 1] - starts[new]
        rows = np.arange(sizes.sum()) + np.repeat(starts[new] - sizes.cumsum() + sizes, sizes)
        ends, by_kept = late[rows], np.repeat(kept[new], sizes)
        fallen = np.unique(ends[by_kept])
        fallen = fallen[~gone[fallen]]
        gone[fallen] = True
        freed, times = np.unique(ends[~by_kept], return_counts=True)
        ahead[freed] -= times
        freed = freed[(ahead[freed] == 0) & ~gone[freed]]
        kept[freed] = True
        new = np.concatenate([fallen, freed])
    return kept, gone


def hold_groups(contents: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """TOLD of the links from what stays to what goes for it, where everything is one task's. Pure."""
    links = link_groups(contents, match_pairs(contents, pairs))
    return settle_links(links).told.filter("kept")
