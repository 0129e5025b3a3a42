"""Which semantic duplicates go, among what the filters and the other rules left. Part of step `resolve`.

In the order of preference each content is kept unless a kept one before it is similar enough, so that every one that
goes has a keeper that stays. What is decided does not depend on the order in which anything arrived.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import polars as pl

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE
from vlmill.pipeline.dedupe.contained import find_gone
from vlmill.pipeline.dedupe.semantic import SemanticRule
from vlmill.pipeline.dedupe.signature import DOCUMENT, PAGE

REASONS = {"image": Reason.SEMANTIC_IMAGE, "text": Reason.SEMANTIC_TEXT}


def find_semantic_drops(things: pl.DataFrame, pairs: pl.DataFrame, rule: SemanticRule) -> pl.DataFrame:
    """`order`, `node`, `reason`, `score` and `keeper` of what goes; pure.

    Args:
        things: what is compared, in the order of preference: `order`, `node`, `unit`, `key`.
        pairs: `one`, `other`, `similarity` of contents.
        rule: the recipe's.
    """
    first = things.unique("key", keep="first", maintain_order=True).with_row_index("rank")
    held = _find_keepers(first, pairs.filter(pl.col("similarity") >= rule.min))
    copies = (
        things.join(first.select("key", first_order="order", first_node="node"), on="key")
        .join(held, on="key", how="left")
        .with_columns(
            again=pl.col("keeper").is_not_null()
            | (pl.col("order") != pl.col("first_order"))
            | (pl.col("node") != pl.col("first_node")),
            keeper=pl.coalesce("keeper", "first_order"),
            score=pl.col("score").fill_null(1.0),
            reason=pl.lit(REASONS[rule.thing].value),
        )
        .sort("order", "node")
    )
    pages = copies.filter(pl.col("unit") == PAGE).group_by("order", maintain_order=True)
    whole = pages.agg(
        pl.col("again").all(), pl.col("reason").first(), pl.col("score").min(), pl.col("keeper").first()
    ).filter("again")
    whole = whole.with_columns(node=pl.lit(WHOLE_SAMPLE, pl.Int32))
    parts = copies.filter((pl.col("unit") == DOCUMENT) & pl.col("again"))
    columns = ("order", "node", "reason", "score", "keeper")
    return pl.concat([whole.select(columns), parts.select(columns)])


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


def _find_keepers(first: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """The contents that go: `key`, the sample of the most similar content that stays (`keeper`), and the cosine."""
    ranks = first.select("key", "rank")
    for end in ("one", "other"):
        pairs = pairs.join(ranks.rename({"key": end, "rank": f"{end}_rank"}), on=end)
    edges = pairs.select(
        early=pl.min_horizontal("one_rank", "other_rank"),
        late=pl.max_horizontal("one_rank", "other_rank"),
        score="similarity",
    )
    gone = pl.Series(find_gone(first.height, edges["early"].to_numpy(), edges["late"].to_numpy()))
    at = first.select("rank", "key", "order", gone=gone)
    edges = edges.join(at.filter(~pl.col("gone")).select(early="rank", keeper="order"), on="early")
    edges = edges.join(at.filter("gone").select(late="rank", key="key"), on="late")
    best = edges.sort("late", "score", "early", descending=[False, True, False]).unique("late", keep="first")
    return best.select("key", "keeper", "score")
