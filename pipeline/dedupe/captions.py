"""Which pair of an image and a caption is kept for each picture, where a recipe wants one. Part of step `resolve`.

LAION-2B holds many pictures under several captions (Webster, Rabin, Simon and Jurie, 2023). Which caption is the best
is no matter of order: a source's priority decides first, then what a caption says. That longer captions say more is
ours; of captions that say as much, a hash of their text decides.
"""

from __future__ import annotations

import polars as pl


def rank_captions(samples: pl.DataFrame, nodes: pl.DataFrame) -> pl.DataFrame:
    """The pairs with the number of different `words` that the filters left them; pure.

    Args:
        samples: Pairs: `order`, and the different `words` of their text.
        nodes: What the filters left of samples: `order`, `kind`. A pair without its caption is the last choice.
    """
    said = nodes.filter(pl.col("kind") == "text").select("order").unique().with_columns(said=pl.lit(1))
    return samples.join(said, on="order", how="left").with_columns(words=pl.col("words") * pl.col("said").fill_null(0))


def keep_best_captions(samples: pl.DataFrame) -> pl.DataFrame:
    """The pairs with the `keeper` of their picture, and whether both show the `same_files`; pure.

    Args:
        samples: Pairs: `order`, `priority`, `text` and its different `words`; what they show by cluster (`shows`) and
            content (`files`).
    """
    ranked = samples.sort("priority", "words", "text", "order", descending=[False, True, False, False])
    return ranked.with_columns(
        keeper=pl.col("order").first().over("shows"),
        same_files=pl.col("files") == pl.col("files").first().over("shows"),
    ).sort("order")
