"""Which documents stand in longer ones, where a recipe wants to know. Part of step `resolve`.

A document goes if one that is kept holds the share of its shingles that the recipe names (containment: Broder, 1997).
Containment has a direction, so it makes no clusters: a notice that stands in two documents does not make these the
same. Priorities have no say: the longer document has what the shorter one says, and not the other way round.

Documents of one cluster of similar texts are one, as long as the first of them. From the longest to the shortest each
is kept unless one that is kept holds it (ranked.py), so what holds another is never gone itself.
"""

from __future__ import annotations

import polars as pl

from vlmill.pipeline.core.sample import WHOLE_SAMPLE
from vlmill.pipeline.dedupe.ranked import CONTENTS


def rank_texts(texts: pl.DataFrame) -> pl.DataFrame:
    """CONTENTS of documents: `order`, `text`, `shingles`, and the label of their cluster as `group`. Pure."""
    first = texts.sort("order").unique("group", keep="first")
    ranks = first.select("group", "order", weight=-pl.col("shingles").cast(pl.Int64), node=pl.lit(WHOLE_SAMPLE))
    ranked = texts.select("group", content="text").unique().join(ranks, on="group")
    return ranked.select(CONTENTS.names()).cast(CONTENTS)


def find_contained(texts: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
    """The documents that go: `order`, the `keeper` that holds them, and the containment as `score`. Pure.

    Of several keepers it is the longest, of these the first.

    Args:
        texts: As `rank_texts` takes them.
        held: TOLD of the links from what stays to their groups.
    """
    longest = held.sort("late", "weight", "order", "score", descending=[False, False, False, True])
    longest = longest.unique("late", keep="first").select("score", group="late", keeper="order")
    return texts.join(longest, on="group").select("order", "keeper", "score").sort("order")
