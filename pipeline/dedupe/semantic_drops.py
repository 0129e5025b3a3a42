"""Which semantic duplicates go, among what the filters and the other rules left. Part of step `resolve`.

In the order of preference each content is kept unless a kept one before it is similar enough (ranked.py), so that every
one that goes has a keeper that stays. What is decided does not depend on the order in which anything arrived.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import polars as pl

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE
from vlmill.pipeline.dedupe.left import DROPS
from vlmill.pipeline.dedupe.ranked import CONTENTS
from vlmill.pipeline.dedupe.semantic import SemanticRule
from vlmill.pipeline.dedupe.signature import DOCUMENT, PAGE

REASONS = {"image": Reason.SEMANTIC_IMAGE, "text": Reason.SEMANTIC_TEXT}


def rank_things(things: pl.DataFrame) -> pl.DataFrame:
    """CONTENTS of things: `order`, `node`, and their content as `group`, ranked by where it comes first. Pure."""
    first = things.sort("order", "node").unique("group", keep="first")
    return first.select("order", "node", "group", content="group", weight=0).select(CONTENTS.names()).cast(CONTENTS)


def find_copies(things: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
    """Those of things that come again, or go for another: `order`, `node`, `score` and `keeper`. Pure.

    Of several keepers it is the most similar, of these the first.

    Args:
        things: As `rank_things` takes them.
        held: TOLD of the links from contents that stay to others.
    """
    nearest = held.sort("late", "score", "order", "node", descending=[False, True, False, False])
    nearest = nearest.unique("late", keep="first").select("score", group="late", keeper="order")
    things = things.sort("order", "node").join(nearest, on="group", how="left", maintain_order="left")
    place = pl.struct("order", "node")
    again = pl.col("keeper").is_not_null() | (place != place.first().over("group"))
    things = things.with_columns(again=again, first=pl.col("order").first().over("group"))
    copies = things.filter("again").with_columns(keeper=pl.coalesce("keeper", "first"))
    return copies.select("order", "node", "keeper", score=pl.col("score").fill_null(1.0))


def drop_copies(things: pl.DataFrame, copies: pl.DataFrame, rule: SemanticRule) -> pl.DataFrame:
    """DROPS: pages all of whose things are copies, and of documents the copies. Pure.

    Args:
        things: As `select_things` gives them, of whole samples.
        copies: See `find_copies`; of these things.
        rule: The recipe's.
    """
    things = things.join(copies, on=["order", "node"], how="left").sort("order", "node")
    things = things.with_columns(again=pl.col("keeper").is_not_null(), reason=pl.lit(REASONS[rule.thing].value))
    pages = things.filter(pl.col("unit") == PAGE).group_by("order", maintain_order=True)
    whole = pages.agg(
        pl.col("again").all(), pl.col("reason").first(), pl.col("score").min(), pl.col("keeper").first()
    ).filter("again")
    whole = whole.with_columns(node=pl.lit(WHOLE_SAMPLE, pl.Int32))
    parts = things.filter((pl.col("unit") == DOCUMENT) & pl.col("again"))
    return pl.concat([frame.select(DROPS.names()).cast(DROPS) for frame in (whole, parts)])


def select_things(nodes: pl.DataFrame, samples: pl.DataFrame, rule: SemanticRule) -> pl.DataFrame:
    """The nodes that are compared, in the order of preference: `order`, `node`, `unit`, `key`.

    Images of pages, pairs and documents; texts of documents, where they are no part of a conversation.

    Args:
        nodes: what is left: `order`, `node`, `kind`, `role`, `unit`, `key`.
        samples: `order` and `source`.
        rule: the recipe's.
    """
    sources = [name for name in samples["source"].unique() if _is_asked(name, rule.sources)]
    asked = samples.filter(pl.col("source").is_in(sources)).select("order")
    units = [PAGE, DOCUMENT] if rule.thing == "image" else [DOCUMENT]
    things = nodes.filter((pl.col("kind") == rule.thing) & pl.col("unit").is_in(units) & pl.col("key").is_not_null())
    if rule.thing == "text":
        things = things.filter(pl.col("role") == "none")
    return things.join(asked, on="order", how="semi").select("order", "node", "unit", "key").sort("order", "node")


def _is_asked(source: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatchcase(source, pattern) for pattern in patterns)
