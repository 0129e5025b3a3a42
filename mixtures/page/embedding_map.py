"""The map of an embedding: vectors of a run in two dimensions, coloured by source, and what its largest clusters hold.

Part of the page of statistics, one for each signal of clusters. Partitions and points are chosen by hash, so that the
map is a function of the run, and bounded: it reads some partitions of each source and shows some thousand points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vlmill.mixtures.algorithms.order import make_order_key
from vlmill.pipeline.core.names import SAMPLES_FILE, name_embeddings, name_scores
from vlmill.pipeline.core.sample import SampleId
from vlmill.pipeline.core.scores import read_embeddings
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.partition_tables import list_raw_tables
from vlmill.pipeline.images.decode import decode_image
from vlmill.pipeline.page import make_data_url
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.steps.image_bytes import Pictures
from vlmill.pipeline.steps.score import MOST_PIXELS

POINTS, PARTITIONS = 2000, 8
"""Points of a map, and partitions of a source that they are chosen from."""
SHOWN, EXAMPLES = 12, 5
"""Clusters whose examples are shown, the largest, and how many of each."""
LONGEST, LETTERS = 96, 120
"""Pixels of a thumbnail; characters of a text."""


@dataclass(frozen=True)
class EmbeddingMap:
    """What the page shows of the clusters of a signal."""

    name: str
    points: list[dict[str, Any]]  # x, y, source, cluster, size, similarity, id
    clusters: list[dict[str, Any]] = field(default_factory=list)  # number, size, examples: picture or text, id


def read_maps(root: Path, recipe: Recipe) -> list[EmbeddingMap]:
    """The map of each signal of clusters whose values are complete."""
    done = [
        name
        for name in recipe.clusters
        if all((root / f"steps/{source}/{name}/manifest.json").exists() for source in recipe.sources)
    ]
    return [found for name in done if (found := _read_map(root, recipe, name)).points]


def _read_map(root: Path, recipe: Recipe, name: str) -> EmbeddingMap:
    table, vectors = pl.DataFrame(), np.empty((0, 0), np.float16)
    for part, found in (part for source in recipe.sources for part in _read_partitions(root, recipe, name, source)):
        table, vectors = (
            pl.concat([table, part], how="diagonal"),
            np.concatenate([vectors.reshape(-1, found.shape[1]), found]),
        )
        order = np.argsort(table["key"].to_numpy(), kind="stable")[:POINTS]
        table, vectors = table[order], vectors[order]
    if not table.height:
        return EmbeddingMap(name, [])
    table = table.with_columns(pl.Series("place", project_vectors(vectors.astype(np.float64))))
    tables = {
        (at.source, at.partition): at.paths(root)
        for source in recipe.sources
        for at in list_raw_tables(root, recipe, source)
    }
    table = table.with_columns(id=pl.Series(list(_name_samples(table, tables)), dtype=pl.String))
    points = [
        {"x": x, "y": y, "source": source, "cluster": int(cluster), "size": int(size), "similarity": cosine, "id": name}
        for (x, y), source, cluster, size, cosine, name in table.select(
            "place", "source", "cluster", "size", "similarity", "id"
        ).iter_rows()
    ]
    return EmbeddingMap(name, points, list(_show_clusters(table, tables)))


def _read_partitions(root: Path, recipe: Recipe, name: str, source: str) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
    """Places, values and vectors of some partitions of a source."""
    settings = recipe.clusters[name]
    values, vectors = (
        {
            receipt.partition: root / file.path
            for receipt in read_manifest(root, f"steps/{source}/{signal}")
            for file in receipt.files
            if file.name in (name_scores(signal), name_embeddings(signal))
        }
        for signal in (name, settings.of)
    )
    near = sorted(values, key=lambda partition: make_order_key(recipe.seed, "map", source, partition))[:PARTITIONS]
    for partition in near:
        columns = {"cluster": name, "similarity": f"{name}_similarity", "size": f"{name}_size"}
        table = pl.read_parquet(values[partition], glob=False).rename({old: new for new, old in columns.items()})
        found = read_embeddings(vectors[partition], settings.of)
        rows = pl.DataFrame({"sample": found.samples, "node": found.nodes, "row": np.arange(len(found.samples))})
        table = rows.join(table.drop_nulls("cluster"), on=["sample", "node"], maintain_order="left")
        places = table.select("sample", "node").iter_rows()
        keys = [make_order_key(recipe.seed, "map", source, partition, *place) for place in places]
        table = table.with_columns(pl.Series("key", keys, pl.UInt64), source=pl.lit(source), part=pl.lit(partition))
        table = table.sort("key")[:POINTS]
        yield table.drop("row", "reason"), found.vectors[table["row"].to_numpy()]


def project_vectors(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, length) on their two principal components (n, 2), to 3 decimals; pure.

    Of each component that side is positive on which its largest weight lies, so that no library turns the map over.
    """
    centred = vectors - vectors.mean(0)
    _, components = np.linalg.eigh(centred.T @ centred)
    first = components[:, ::-1][:, :2]
    first = first * np.sign(first[np.argmax(np.abs(first), axis=0), np.arange(first.shape[1])])
    places = np.zeros((len(vectors), 2))
    places[:, : first.shape[1]] = centred @ first
    rounded: np.ndarray = np.round(places, 3) + 0.0
    return rounded


def _name_samples(table: pl.DataFrame, tables: Mapping[tuple[str, str], Mapping[str, Path]]) -> Iterator[str]:
    """The id of each point's sample."""
    read = dict[tuple[str, str], pl.DataFrame]()
    for source, part, sample in table.select("source", "part", "sample").iter_rows():
        if (source, part) not in read:
            columns = list(SampleId._fields)
            read[source, part] = pl.read_parquet(tables[source, part][SAMPLES_FILE], columns=columns, glob=False)
        yield str(SampleId(*read[source, part].row(sample)))


def _show_clusters(
    table: pl.DataFrame, tables: Mapping[tuple[str, str], Mapping[str, Path]]
) -> Iterator[dict[str, Any]]:
    """The largest clusters, and those of their points that are nearest to the centroid."""
    largest = table.unique("cluster").sort(["size", "cluster"], descending=[True, False])[:SHOWN]
    for cluster, size in largest.select("cluster", "size").iter_rows():
        near = table.filter(pl.col("cluster") == cluster).sort(["similarity", "id"], descending=[True, False])
        rows = near[:EXAMPLES].select("source", "part", "sample", "node", "id").iter_rows()
        examples = [
            {"id": name, **_show_node(tables[source, part], sample, node)} for source, part, sample, node, name in rows
        ]
        yield {"number": int(cluster), "size": int(size), "examples": examples}


def _show_node(tables: Mapping[str, Path], sample: int, node: int) -> dict[str, str]:
    """A thumbnail of an image, or the beginning of a text."""
    rows = pl.scan_parquet(tables[SAMPLES_FILE], glob=False).select("nodes").slice(sample, 1).collect()
    nodes: Sequence[Mapping[str, Any]] = rows["nodes"][0].to_list()
    shown = nodes[node]
    if shown["image"] is None:
        return {"text": (shown["text"] or "")[:LETTERS]}
    picture = decode_image(Pictures(tables).read(shown["image"]), MOST_PIXELS)
    return {"picture": make_data_url(picture, LONGEST)}
