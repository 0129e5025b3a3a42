"""The steps of a signal of kind `clusters`: from the vectors of a run to the cluster of each.

    sample      per partition   the vectors that centroids are trained on, chosen by a hash of their content
    centroids   once            k-means over these
    assigned    per partition   the nearest centroid of each vector
    sizes       once            how many vectors are in each cluster
    NAME        per partition   the values: cluster, cosine, size

Come after the embedding is there for every partition, and before quantiles. No step holds more than a partition's
vectors, but for `centroids`, which holds the sample. All but `centroids` are exact (core/vectors.py), so they are the
same bytes wherever they run; k-means adds floats, so its first receipt wins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl

from vlmill.pipeline.core.arrays import read_array
from vlmill.pipeline.core.names import (
    ASSIGNED_SUFFIX,
    CENTROIDS_SUFFIX,
    SAMPLED_SUFFIX,
    SIZES_SUFFIX,
    name_embeddings,
    name_scores,
)
from vlmill.pipeline.core.scores import PLACE, Scores, read_embeddings, read_scores, write_scores
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.core.vectors import measure_lengths, multiply_vectors, quantise_vectors, round_cosines
from vlmill.pipeline.dedupe.hashing import mix_bits
from vlmill.pipeline.signals.clusters import Clusters, train_centroids

PRODUCTS = 1 << 22
"""Cosines that are looked at together, 16 MB of them."""


def name_about(called: str) -> str:
    """The file beside the centroids that says how they were trained."""
    return f"{called}.clusters.json"


def hash_vectors(whole: np.ndarray, seed: int) -> np.ndarray:
    """64 bits that name each quantised vector (n, length) under a seed; pure."""
    places = np.arange(whole.shape[1], dtype=np.uint64) + mix_bits(np.array([seed], np.uint64))
    with np.errstate(over="ignore"):
        sums = (whole.astype(np.int64).view(np.uint64) * (mix_bits(places) | np.uint64(1))).sum(1, dtype=np.uint64)
    return mix_bits(sums)


@dataclass(frozen=True)
class SampleVectors:
    """Step: the vectors of a partition whose hash is below a bound. Pure. Counts `vectors`."""

    called: str  # as the recipe calls the signal of clusters
    of: str  # the embedding
    seed: int
    bound: int  # of 2 ** 64: the share of the run's vectors that are wanted

    name: ClassVar[str] = "sample"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The embeddings."""
        return (name_embeddings(self.of),)

    def made_by(self) -> Mapping[str, str]:
        """What reads and rounds."""
        return {name: version(name) for name in ("numpy", "pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write hash and vector of each, in the order of hashes, equal ones once."""
        whole = quantise_vectors(read_embeddings(inputs[name_embeddings(self.of)], self.of).vectors)
        whole = whole[whole.any(1)]
        hashes, first = np.unique(hash_vectors(whole, self.seed), return_index=True)
        kept = hashes <= np.uint64(min(self.bound, (1 << 64) - 1))
        found = np.zeros(int(kept.sum()), [("hash", "<u8"), ("vector", "<i2", (whole.shape[1],))])
        found["hash"], found["vector"] = hashes[kept], whole[first[kept]]
        np.save(folder / f"{self.called}{SAMPLED_SUFFIX}", found)
        return {"vectors": Count(len(found), len(found))}


@dataclass(frozen=True)
class TrainCentroids:
    """Step: the centroids of a run. Impure: sums of floats differ between machines. Counts `vectors` of the sample."""

    called: str
    settings: Clusters

    name: ClassVar[str] = "centroids"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The sample of every partition."""
        return (f"*/*/{self.called}{SAMPLED_SUFFIX}",)

    def made_by(self) -> Mapping[str, str]:
        """What trains."""
        return {**self.settings.made_by(), "numpy": version("numpy")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write the centroids as quantised vectors. The order of `inputs` does not matter."""
        wanted = self.settings.clusters * self.settings.per_cluster
        hashes, vectors = read_samples_of_vectors([inputs[name] for name in sorted(inputs)], wanted)
        clusters, objective = min(self.settings.clusters, len(hashes)), 0.0
        centroids = np.zeros((0, vectors.shape[1]), np.int16)
        if clusters:
            floats = (vectors / measure_lengths(vectors)[:, None]).astype(np.float32)
            found, objective = train_centroids(floats, clusters, self.settings.iterations, self.settings.seed)
            centroids = quantise_vectors(found)
        np.save(folder / f"{self.called}{CENTROIDS_SUFFIX}", centroids)
        about = {"clusters": clusters, "sampled": len(hashes), "similarity": round(objective / max(len(hashes), 1), 4)}
        (folder / name_about(self.called)).write_text(json.dumps(about, sort_keys=True, indent=1), encoding="utf-8")
        return {"vectors": Count(len(hashes), len(hashes))}


def read_samples_of_vectors(paths: list[Path], wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and vectors (n, length) of the `wanted` smallest hashes of all partitions, each once, in their order."""
    parts = [found for path in paths if len(found := read_array(path))]
    if not parts:
        return np.empty(0, np.uint64), np.empty((0, 1), np.int16)
    hashes, first = np.unique(np.concatenate([part["hash"] for part in parts]), return_index=True)
    chosen = first[:wanted]
    owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[chosen]
    rows = chosen - np.concatenate([[0], np.cumsum([len(part) for part in parts])])[owners]
    vectors = np.empty((len(chosen), parts[0]["vector"].shape[1]), np.int16)
    for number in np.unique(owners):
        mine = owners == number
        vectors[mine] = parts[number]["vector"][rows[mine]]
    return hashes[:wanted], vectors


@dataclass(frozen=True)
class AssignClusters:
    """Step: the nearest centroid of each vector of a partition; of two as near the first. Pure. Counts `vectors`."""

    called: str
    of: str

    name: ClassVar[str] = "assigned"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The embeddings, and the centroids."""
        return (name_embeddings(self.of), f"{self.called}{CENTROIDS_SUFFIX}")

    def made_by(self) -> Mapping[str, str]:
        """What reads and multiplies."""
        return {name: version(name) for name in ("numpy", "polars", "pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write sample, node, `cluster` and `similarity`; a vector of zeros is in no cluster, and left out."""
        found = read_embeddings(inputs[name_embeddings(self.of)], self.of)
        whole = quantise_vectors(found.vectors)
        there = whole.any(1)
        clusters, similarity = find_nearest(whole[there], read_array(inputs[f"{self.called}{CENTROIDS_SUFFIX}"]))
        places = {"sample": found.samples[there], "node": found.nodes[there]}
        table = pl.DataFrame({**places, "cluster": clusters.astype(np.int32), "similarity": similarity})
        table.write_parquet(folder / f"{self.called}{ASSIGNED_SUFFIX}", compression="zstd")
        return {"vectors": Count(table.height, table.height)}


def find_nearest(whole: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of the nearest centroid of each quantised vector, and the cosine with it; pure.

    Args:
        whole: (n, length).
        centroids: (clusters, length), one at least where there are vectors.
    """
    lengths, own = measure_lengths(centroids), measure_lengths(whole)
    inverse, wide = (1 / lengths).astype(np.float32), centroids.astype(np.float32)
    nearest, similarity = np.empty(len(whole), np.int64), np.empty(len(whole))
    rows = max(1, PRODUCTS // max(len(centroids), 1))
    for start in range(0, len(whole), rows):
        part = slice(start, start + rows)
        products = multiply_vectors(whole[part], wide)
        nearest[part] = best = np.argmax(products * inverse, 1)
        similarity[part] = round_cosines(products[np.arange(len(best)), best], own[part] * lengths[best])
    return nearest, similarity


@dataclass(frozen=True)
class CountClusters:
    """Step: how many vectors of the run are in each cluster. Pure. Counts `vectors`."""

    called: str

    name: ClassVar[str] = "sizes"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The centroids, and the clusters of every partition."""
        return (f"{self.called}{CENTROIDS_SUFFIX}", f"*/*/{self.called}{ASSIGNED_SUFFIX}")

    def made_by(self) -> Mapping[str, str]:
        """What reads."""
        return {name: version(name) for name in ("numpy", "polars")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write the numbers, a partition at a time."""
        sizes = np.zeros(len(read_array(inputs[f"{self.called}{CENTROIDS_SUFFIX}"])), np.int64)
        for name, path in sorted(inputs.items()):
            if name.endswith(ASSIGNED_SUFFIX):
                sizes += np.bincount(
                    pl.read_parquet(path, columns=["cluster"], glob=False)["cluster"], minlength=len(sizes)
                )
        np.save(folder / f"{self.called}{SIZES_SUFFIX}", sizes)
        return {"vectors": Count(int(sizes.sum()), int(sizes.sum()))}


@dataclass(frozen=True)
class ValueClusters:
    """Step: the values of a signal of kind `clusters` over a partition, as every signal leaves its own. Pure.

    Counts `scored`: all that the embedding looked at; what has no vector has its reason.
    """

    called: str
    settings: Clusters

    pure: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """As the recipe calls it."""
        return self.called

    @property
    def version(self) -> int:
        """The signal's own."""
        return self.settings.version

    @property
    def reads(self) -> tuple[str, ...]:
        """The embeddings' table, of which the vectors are not read; clusters and their sizes."""
        return (name_embeddings(self.settings.of), f"{self.called}{ASSIGNED_SUFFIX}", f"{self.called}{SIZES_SUFFIX}")

    def made_by(self) -> Mapping[str, str]:
        """What reads and writes."""
        return {name: version(name) for name in ("numpy", "polars", "pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write the table."""
        places = read_scores(inputs[name_embeddings(self.settings.of)], PLACE)
        found = pl.read_parquet(inputs[f"{self.called}{ASSIGNED_SUFFIX}"], glob=False)
        sizes = read_array(inputs[f"{self.called}{SIZES_SUFFIX}"])
        found = found.with_columns(size=sizes[found["cluster"].to_numpy()])
        table = places.join(found, on=["sample", "node"], how="left", maintain_order="left")
        values = table.select(pl.col("cluster", "similarity", "size").cast(pl.Float32)).to_numpy()
        lost = pl.when(pl.col("cluster").is_null()).then(pl.col("reason").fill_null("no_value"))
        reasons = tuple(table.select(lost.alias("reason"))["reason"])
        scores = Scores(table["sample"].to_numpy(), table["node"].to_numpy(), reasons, values)
        write_scores(folder / name_scores(self.called), scores, self.settings.columns(self.called))
        return {"scored": Count(table.height, table.height)}
