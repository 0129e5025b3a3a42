"""What share of a stage's loss each source has, counted over its plan before it is trained; for `vlmill stats`.

A mixture's shares are of samples or tokens. What a step minimises is a mean over supervised tokens under the recipe's
`loss_weights`, so the two differ. Tables of lengths say what is supervised, and no text is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vlmill.mixtures.build import read_stats
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.chat.encode import WHOLE, Loss
from vlmill.pipeline.core.checked import check_hash
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.train.loss_weights import POWERS, weigh_answers
from vlmill.train.settings import LossWeights, read_training_settings

BLOCKS = 16
"""Of a plan, that are read at most: of 65,536 samples each under the default settings."""


def read_weighted_stats(root: Path, stage: str | None) -> dict[str, Any]:
    """The statistics of one stage or all, with `loss_share` of every source where the recipe weighs the loss.

    Raises:
        RecipeError: the recipe has no such stage.
        StoreError: a stage has no statistics yet.
    """
    found = read_stats(root, stage)
    for name, shares in list_loss_shares(root, [*found]).items():
        for source in found[name]["sources"]:
            source["loss_share"] = round(shares[source["name"]], 6)
    return found


def list_loss_shares(root: Path, stages: list[str]) -> dict[str, dict[str, float]]:
    """Stage -> entry -> its share, of those of `stages` whose recipe weighs the loss."""
    recipe = read_locked_recipe(root)
    trained = [stage for stage in recipe.stages if stage.name in stages and stage.train]
    training = {stage.name: read_training_settings(stage, recipe.scale) for stage in trained}
    return {
        name: count_loss_shares(PlannedMixture(root, name), settings.loss_weights, settings.loss)
        for name, settings in training.items()
        if settings.loss_weights
    }


def count_loss_shares(mixture: PlannedMixture, weights: LossWeights, loss: Loss = "answers") -> dict[str, float]:
    """The share of the loss's weight that each entry has, by its label.

    Of a plan of more blocks than `BLOCKS`, so many are read, evenly apart. With `loss: text` the marks of the chat
    format around images are not told from text.

    Raises:
        StoreError: a table is not the one that was planned over.
    """
    blocks = mixture.lock["plan"]["blocks"]
    chosen = sorted({int(place) for place in np.linspace(0, len(blocks) - 1, min(BLOCKS, len(blocks)))})
    paths = [check_hash(mixture.folder / blocks[at]["path"], blocks[at]["sha256"]) for at in chosen]
    segments = pl.concat([pl.read_parquet(path, columns=["segments"], glob=False) for path in paths])
    segments = segments.explode("segments").unnest("segments").with_row_index("segment")
    held = np.zeros(len(mixture.sources))
    for (source, shard), here in segments.group_by("source", "shard", maintain_order=True):
        entry = mixture.lock["sources"][source]
        lengths = _read_lengths(mixture.root, entry["shards"][shard]["lengths"])
        held[source] += _weigh_segments(_count_supervised(here, lengths, loss), weights, entry["name"])
    return dict(zip(mixture.sources, (held / (held.sum() or 1.0)).tolist(), strict=True))


def _read_lengths(root: Path, path: str) -> pl.DataFrame:
    """Row, node, and the node's lengths, of all samples of a shard."""
    listed = (file for receipt in read_manifest(root, path.rpartition("/")[0]) for file in receipt.files)
    sha256 = next(file.sha256 for file in listed if file.path == path)
    samples = pl.read_parquet(check_hash(root / path, sha256), columns=["row", "nodes"], glob=False)
    numbered = samples.with_columns(
        node=pl.int_ranges(pl.col("nodes").list.len()), nodes_there=pl.col("nodes").list.len()
    )
    return numbered.explode("nodes", "node").unnest("nodes")


def _count_supervised(segments: pl.DataFrame, lengths: pl.DataFrame, loss: Loss) -> pl.DataFrame:
    """Supervised tokens of each answer of each segment, in order; the `answer` of documents is -1."""
    nodes = segments.join(lengths, on="row").filter(pl.col("node").is_between("first", "last", closed="left"))
    tokens = pl.col("text") + pl.col("visual")
    begin = pl.when(pl.col("node") == pl.col("first")).then("begin").otherwise(0)
    cut = (pl.col("node") == pl.col("last") - 1) & (pl.col("end") != WHOLE)
    end = pl.when(cut).then("end").otherwise(tokens)
    if loss == "text":  # all of it, and EOS where the document ends
        ends = (pl.col("node") == pl.col("nodes_there") - 1) & ~cut
        taught = pl.when("image").then(0).otherwise(end - begin) + ends
    else:
        low = pl.max_horizontal(begin, "lead")
        taught = (pl.min_horizontal(end, pl.col("lead") + pl.col("supervised")) - low).clip(0)
    answer = pl.when(pl.col("role") == "none").then(-1).otherwise("turn")
    counted = nodes.with_columns(taught=taught, answer=answer).filter(pl.col("taught") > 0)
    return (
        counted.group_by("segment", "answer")
        .agg(pl.col("taught").sum())
        .sort("segment", "answer")
        .select("taught", "segment", "answer")
    )


def _weigh_segments(counted: pl.DataFrame, weights: LossWeights, source: str) -> float:
    """The weight that segments of one entry have in the loss."""
    taught, segment, answer = (counted[name].to_numpy().astype(np.int64) for name in counted.columns)
    starts = np.flatnonzero(np.diff(segment, prepend=-1))
    sizes = np.diff(starts, append=taught.size)
    numbers = np.arange(taught.size) - np.repeat(starts, sizes)
    turns = np.where(answer < 0, 1.0, weigh_answers(weights, numbers, np.repeat(sizes - 1, sizes)))
    lengths = np.bincount(np.repeat(np.arange(starts.size), sizes), turns * taught, starts.size)
    held = lengths[lengths > 0] ** (1 - POWERS[weights.average])
    return float(held.sum() * weights.sources.get(source, 1.0))
