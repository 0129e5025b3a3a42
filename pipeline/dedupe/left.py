"""What the filters and the rules so far have left, of all partitions or of a block of them: what rules.py works on.

Tables of `resolve`, in the order of preference: `order` numbers samples, the lower one is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from vlmill.pipeline.core.sample import WHOLE_SAMPLE

DROPS = pl.Schema({"order": pl.UInt64, "node": pl.Int32, "reason": pl.String, "score": pl.Float64, "keeper": pl.UInt64})
"""Samples (`node` WHOLE_SAMPLE) and nodes that go. `order` and `keeper` are places in the order of preference."""

BLOCK_BITS = 32
"""Last bits of an `order`: the place of a sample in its block; those before them number the block."""

LABELS = pl.Schema({"key": pl.UInt64, "label": pl.UInt64, "best": pl.Float64})
"""A content, its cluster, and its best similarity to another content of it; null where it is alone."""


@dataclass(frozen=True)
class Left:
    """What is left.

    Attributes:
        samples: as `read_survivors` gives them, with `label` and `best` of their texts, null of short ones.
        nodes: as there.
        images: those of the nodes that are images, with `label` and `best`.
        drops: DROPS: what went so far.
    """

    samples: pl.DataFrame
    nodes: pl.DataFrame
    images: pl.DataFrame
    drops: pl.DataFrame

    @classmethod
    def begin(cls, samples: pl.DataFrame, nodes: pl.DataFrame, texts: pl.DataFrame, images: pl.DataFrame) -> Left:
        """Before any rule.

        Args:
            samples: As `read_survivors` gives them.
            nodes: As there.
            texts: LABELS of the texts that are long enough.
            images: LABELS of all images.
        """
        samples = samples.join(texts, left_on="text", right_on="key", how="left").sort("order")
        shown = nodes.filter(pl.col("kind") == "image").join(images, on="key").sort("order", "node")
        return cls(samples, nodes, shown, DROPS.to_frame())

    def without(self, drops: pl.DataFrame) -> Left:
        """What is left when these go as well. Of a sample that goes as a whole, no node goes for itself."""
        drops = pl.concat([self.drops, drops])
        whole = drops.filter(pl.col("node") == WHOLE_SAMPLE)
        nodes = drops.filter(pl.col("node") != WHOLE_SAMPLE).join(whole, on="order", how="anti")
        samples, every, images = (
            frame.join(whole, on="order", how="anti") for frame in (self.samples, self.nodes, self.images)
        )
        every, images = (frame.join(nodes, on=["order", "node"], how="anti") for frame in (every, images))
        return Left(samples.sort("order"), every, images.sort("order", "node"), pl.concat([whole, nodes]))
