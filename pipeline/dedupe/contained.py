"""Which documents stand in longer ones, where a recipe wants to know. Part of step `resolve`.

A document goes if one that is kept holds the share of its shingles that the recipe names (containment: Broder, 1997).
Containment has a direction, so it makes no clusters: a notice that stands in two documents does not make these the
same. Priorities have no say: the longer document has what the shorter one says, and not the other way round.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray


def find_contained(texts: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """The documents that go: `order`, the `keeper` that holds them, and the containment as `score`. Pure.

    Documents of one cluster of similar texts are one, as long as the first of them. From the longest to the shortest
    each is kept unless one that is kept holds it, so what holds another is never gone itself.

    Args:
        texts: Documents: `order`, `text`, `shingles` and the `label` of their cluster.
        pairs: `one`, `other`, `similarity`: texts of which one holds enough of the other.
    """
    ranked = texts.sort("order").unique("label", keep="first").sort(["shingles", "order"], descending=[True, False])
    ranked = ranked.select("label", holder="order").with_row_index("rank")
    ranks = texts.select("text", "label").unique().join(ranked, on="label").select("text", "rank")
    for end in ("one", "other"):
        pairs = pairs.join(ranks.rename({"text": end, "rank": f"{end}_rank"}), on=end)
    edges = pairs.select(
        early=pl.min_horizontal("one_rank", "other_rank"),
        late=pl.max_horizontal("one_rank", "other_rank"),
        score="similarity",
    )
    edges = edges.filter(pl.col("early") != pl.col("late")).group_by("early", "late").agg(pl.col("score").max())
    gone = find_gone(ranked.height, edges["early"].to_numpy(), edges["late"].to_numpy())
    kept = ranked.filter(pl.Series(~gone)).select(early="rank", keeper="holder")
    held = edges.join(kept, on="early").sort("late", "early").unique("late", keep="first")
    held = held.join(ranked.select("label", late="rank"), on="late").select("label", "keeper", "score")
    return texts.join(held, on="label").select("order", "keeper", "score").sort("order")


def find_gone(count: int, early: NDArray[Any], late: NDArray[Any]) -> NDArray[np.bool_]:
    """(count,): which go, if each of 0 ... count - 1 in turn is kept unless an edge leads to it from one that is."""
    gone, kept = np.zeros(count, bool), np.zeros(count, bool)
    while not (gone | kept).all():
        waiting = ~(gone | kept)
        waiting[late[~gone[early]]] = False
        kept |= waiting
        gone[late[kept[early]]] = True
    return gone
