"""Signal `clusters`: which group of similar vectors an image or text is in.

It asks no model: its values follow from those of another signal, an embedding, over the whole run.

Spherical k-means by faiss, as SemDeDup (Abbas et al. 2023, arXiv:2303.09540) groups before it compares. The steps are
in pipeline/steps/clusters.py, their order in pipeline/engine/clustering.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, Amount, Seed
from vlmill.pipeline.signals.published import list_versions

MOST = 1 << 24
"""Clusters at most: their numbers are written as float32, as other values are."""


@dataclass(frozen=True, config=STRICT)
class Clusters:
    """The cluster of each vector of an embedding, by spherical k-means over the run.

    `NAME` is its number, `NAME_similarity` the cosine with its centroid, `NAME_size` the vectors of the run in it.
    """

    kind: ClassVar[str] = "clusters"
    version: ClassVar[int] = 1

    of: str  # the signal of kind image_embedding or text_embedding whose vectors are grouped
    clusters: Annotated[int, Field(ge=1, le=MOST)] = 1000  # fewer where fewer different vectors are sampled
    per_cluster: Amount = 100  # vectors that centroids are trained on, for each cluster
    iterations: Amount = 25  # of k-means over the sample
    seed: Seed = 0  # of the sample that centroids are trained on, and of where these start

    def columns(self, name: str) -> tuple[str, ...]:
        """The number of the cluster, the cosine with its centroid, and its size."""
        return (name, f"{name}_similarity", f"{name}_size")

    def labels(self, name: str) -> tuple[str, ...]:
        """Those of its columns that are names of groups, not amounts."""
        return (name,)

    def made_by(self) -> Mapping[str, str]:
        """What trains centroids."""
        return list_versions("faiss-cpu")


def train_centroids(vectors: Any, clusters: int, iterations: int, seed: int) -> tuple[Any, float]:
    """Centroids (clusters, length) of vectors of length 1, float32, and the sum of the cosines with them.

    By faiss on one thread: several would add in another order.

    Args:
        vectors: (n, length) float32, n at least `clusters`.
        clusters: 1 and more.
        iterations: of k-means.
        seed: of where centroids start.
    """
    import faiss  # noqa: PLC0415 - takes a second, and only those need it who train

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        found = faiss.Kmeans(
            vectors.shape[1],
            clusters,
            niter=iterations,
            seed=seed % (1 << 31),
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=len(vectors),
        )
        found.train(vectors)
    finally:
        faiss.omp_set_num_threads(threads)
    return found.centroids, float(np.asarray(found.obj)[-1])
