"""Pictures that dedupe measured as nearly the same, for mixtures: what is held out, and what of it is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

IMAGE_PAIRS_FILE = "image.pairs.parquet"
"""What the step `pairs` leaves of images: PAIRS."""


def read_near_pairs(paths: Iterable[Path], threshold: float) -> Iterator[np.ndarray]:
    """Pairs of similar pictures, as (n, 2) heads of their sha256 for each file. One file is in memory at a time.

    Args:
        paths: the image pairs that the step `pairs` left.
        threshold: similarity from which two are the same, as the recipe's dedupe has it.
    """
    for path in paths:
        table = pl.read_parquet(path, glob=False).filter(pl.col("similarity") >= threshold)
        yield table.select("one", "other").to_numpy()


def find_near_pictures(paths: Iterable[Path], threshold: float, keys: pl.Series) -> pl.DataFrame:
    """`key` and `like`: the pictures that are similar to one of `keys`, once each. One file is in memory at a time.

    Args:
        paths: as `read_near_pairs` takes them.
        threshold: likewise.
        keys: heads of the sha256 of pictures (uint64), in any order.
    """
    wanted, found = keys.unique().to_frame("key"), [pl.DataFrame(schema={"key": pl.UInt64, "like": pl.UInt64})]
    for path in paths:
        near = pl.read_parquet(path, glob=False).filter(pl.col("similarity") >= threshold)
        for end, other in (("one", "other"), ("other", "one")):
            found.append(near.select(key=end, like=other).join(wanted, on="key", how="semi"))
    return pl.concat(found).unique()
