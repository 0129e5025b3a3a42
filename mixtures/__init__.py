"""Mixtures: shards and their lengths -> which samples a stage trains on, in which order, packed into which sequences.

    select   per entry: held-out split, `where`, `take`, cutting of what is too long     -> 8 bytes per sample
    mix      declared shares, budget, caps -> samples per source, start counts per block  -> mix.json, starts.npy
    plan     one task per block: order across sources, packing                            -> 00000.parquet
    lock     what was decided, over which bytes, and the result                      -> mixture.lock.json, stats.json

Everything is a function of (mixture, seed, shards). The settings are in `config.py`, the order, the packer and the
solver in `algorithms/`, one YAML per published mixture in `published/`.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmill.pipeline.core.names import LINEAGE_SUFFIX


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar of a source and the tables beside it.

    Paths are relative to the run's folder and name the step's inputs.
    """

    source: str
    policy: str
    path: str  # the tar
    sha256: str  # of the tar
    samples: int
    index: str  # <nn>.index.parquet
    index_sha256: str
    lengths: str  # <nn>.lengths.parquet
    signals: str = ""  # <nn>.signals.parquet, where the recipe has signals

    @property
    def lineage(self) -> str:
        """<nn>.lineage.parquet."""
        return get_lineage_path(self.path)


def get_lineage_path(shard: str) -> str:
    """The path of the lineage beside a shard's tar."""
    return shard.removesuffix(".tar") + LINEAGE_SUFFIX


def get_source(path: str) -> str:
    """The source whose shard lies at a path of a run, `shards/SOURCE/POLICY/...`: of a group's entry one of several."""
    return path.split("/")[1]
