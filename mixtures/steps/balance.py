"""Balance: of each group of an entry's samples at most a number. Part of the step `select`.

MetaCLIP (Xu et al. 2023, arXiv:2309.16671) keeps each sample of an entry of its metadata with the probability
min(1, t / n) of n matches, so that the head is flattened and the tail is kept. Here a group of n samples keeps exactly
min(n, t): those whose ids have the smallest keyed hashes, which depends on no order of shards or rows. A sample without
a group stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from vlmill.mixtures.algorithms.order import make_order_key
from vlmill.mixtures.config import Balance

MOST = 1 << 20
"""Samples beyond what is kept that are remembered before the largest hashes are forgotten."""

Groups = pl.Series
"""The group of each row of a shard; null or empty where it has none."""


def hash_ids(ids: Iterable[str], key: int) -> np.ndarray:
    """64 bits that depend on the key and each id (uint64); pure."""
    salt = key.to_bytes(8, "little")
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8, key=salt).digest() for name in ids)
    return np.frombuffer(digests, "<u8")


@dataclass
class GroupCaps:
    """Decides which samples of each group stay, from all shards seen once; memory grows with what stays.

    `bounds` holds, for each group of more samples than the cap, the largest hash that stays.
    """

    balance: Balance
    seed: int
    sizes: dict[Any, int] = field(default_factory=dict)
    without: int = 0  # samples in no group
    hashes: list[pl.DataFrame] = field(default_factory=list)

    @property
    def key(self) -> int:
        """Of the hash: it knows no cap, so a lower one keeps a part of what a higher one keeps."""
        return make_order_key(self.seed, "balance", self.balance.by)

    def add(self, ids: Sequence[str], groups: Groups) -> None:
        """Look at the eligible samples of a shard."""
        table = pl.DataFrame({"group": _clear_empty(groups), "hash": hash_ids(ids, self.key)})
        self.without += table["group"].null_count()
        table = table.drop_nulls("group")
        for group, number in table["group"].value_counts().iter_rows():
            self.sizes[group] = self.sizes.get(group, 0) + number
        self.hashes.append(table)
        if sum(found.height for found in self.hashes) > self._count_kept() + MOST:
            self.hashes = [self._forget_largest()]

    def find_bounds(self) -> pl.DataFrame:
        """`group` and `bound`: the largest hash that stays of each group that has more samples than the cap."""
        large = [group for group, size in self.sizes.items() if size > self.balance.cap]
        if not large:
            return pl.DataFrame(schema={"group": pl.Null, "bound": pl.UInt64})
        kept = self._forget_largest()
        wanted = pl.DataFrame({"group": pl.Series(large, dtype=kept["group"].dtype)})
        return kept.join(wanted, on="group", how="semi").group_by("group").agg(bound=pl.col("hash").max())

    def _count_kept(self) -> int:
        return sum(min(size, self.balance.cap) for size in self.sizes.values())

    def _forget_largest(self) -> pl.DataFrame:
        """The smallest hashes of each group, as many as stay."""
        ranked = pl.concat(self.hashes).sort("group", "hash")
        return ranked.filter(pl.int_range(pl.len()).over("group") < self.balance.cap)

    def report(self) -> dict[str, Any]:
        """What balancing came to: groups, those over the cap, samples before and after, and by size of group."""
        sizes = np.array([*self.sizes.values()], np.int64)
        kept = np.minimum(sizes, self.balance.cap)
        bins = np.floor(np.log2(np.maximum(sizes, 1))).astype(np.int64)
        rows = [
            {
                "from": 1 << int(number),
                "groups": int((bins == number).sum()),
                "samples": int(sizes[bins == number].sum()),
                "kept": int(kept[bins == number].sum()),
            }
            for number in np.unique(bins)
        ]
        return {
            "by": self.balance.by,
            "cap": self.balance.cap,
            "groups": int(sizes.size),
            "capped": int((sizes > self.balance.cap).sum()),
            "samples": int(sizes.sum()),
            "kept": int(kept.sum()),
            "without": self.without,
            "sizes": rows,
        }


def _clear_empty(groups: Groups) -> Groups:
    """Null in the place of empty names."""
    if groups.dtype != pl.String:
        return groups
    return groups.to_frame("group").select(pl.when(pl.col("group") != "").then("group"))["group"]


def find_capped(ids: Sequence[str], groups: Groups, bounds: pl.DataFrame, key: int) -> np.ndarray:
    """Which samples of a shard are beyond the cap of their group (bool)."""
    if not bounds.height:
        return np.zeros(len(groups), bool)
    table = pl.DataFrame({"group": groups.cast(bounds["group"].dtype)}).join(
        bounds, on="group", how="left", maintain_order="left"
    )
    rows = np.flatnonzero(table["bound"].is_not_null().to_numpy())
    capped = np.zeros(len(groups), bool)
    capped[rows] = hash_ids([ids[row] for row in rows.tolist()], key) > table["bound"].to_numpy()[rows]
    return capped
