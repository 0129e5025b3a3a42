"""Clusters of embeddings: exact cosines, a sample and centroids that no partition has a say in, values with sizes."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.small import RECIPE
from tests.helpers.vectors import make_vectors, run_step, write_vectors
from vlmill.pipeline.core.arrays import read_array
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.scores import Scores, write_scores
from vlmill.pipeline.core.vectors import (
    LONGEST,
    SCALE,
    measure_lengths,
    multiply_vectors,
    quantise_vectors,
    round_cosines,
)
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.signals.clusters import Clusters, train_centroids
from vlmill.pipeline.steps.clusters import (
    AssignClusters,
    CountClusters,
    SampleVectors,
    TrainCentroids,
    ValueClusters,
    find_nearest,
    read_samples_of_vectors,
)
from vlmill.pipeline.steps.signal_columns import AddSignalColumns

faiss = pytest.importorskip("faiss")

EVERY = (1 << 64) - 1
SETTINGS = Clusters("looks", clusters=5, per_cluster=20, iterations=8, seed=17)
VECTORS = make_vectors(240, seed=3)


# -- exact cosines -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 300), st.integers(0, 99))
def test_products_are_exact_in_any_order_of_the_sum(number, length, seed):
    random = np.random.default_rng(seed)
    whole = quantise_vectors(random.normal(size=(number, length)).astype(np.float16))
    products, order = multiply_vectors(whole, whole), random.permutation(length)
    assert np.array_equal(products, whole.astype(np.int64) @ whole.astype(np.int64).T)
    assert np.array_equal(products, multiply_vectors(whole[:, order], whole[:, order]))


def test_the_longest_vectors_and_those_of_one_component_stay_exact():
    for vectors in (np.ones((2, LONGEST), np.float16), np.eye(4, dtype=np.float16), -np.eye(4, dtype=np.float16)):
        whole = quantise_vectors(vectors)
        assert np.abs(multiply_vectors(whole, whole)).max() < 1 << 24
    assert np.abs(quantise_vectors(np.eye(4, dtype=np.float16))).max() == SCALE
    with pytest.raises(ValueError, match=f"{LONGEST} at most"):
        quantise_vectors(np.ones((1, LONGEST + 1), np.float16))


@given(st.integers(2, 600), st.integers(0, 99))
def test_cosines_are_those_of_floats_to_the_fourth_decimal(length, seed):
    vectors = np.random.default_rng(seed).normal(size=(8, length)).astype(np.float16).astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = quantise_vectors(vectors)
    lengths = measure_lengths(whole)
    found = round_cosines(multiply_vectors(whole, whole), lengths[:, None] * lengths)
    assert np.abs(found - unit @ unit.T).max() < 7e-4
    assert (found.diagonal() == 1).all()
    assert (found <= 1).all()


# -- the steps ---------------------------------------------------------------------------------------------------------


def sample(folder, parts, bound=EVERY, seed=17):
    step = SampleVectors("topic", "looks", seed, bound)
    return {
        f"web/{number}/topic.sampled.npy": run_step(
            step, write_vectors(folder / f"in{number}", "looks", part), folder / f"out{number}"
        )["topic.sampled.npy"]
        for number, part in enumerate(parts)
    }


def train(folder, parts, **changes):
    step = TrainCentroids("topic", parse_block(Clusters, {**vars(SETTINGS), **changes}, "topic"))
    return run_step(step, sample(folder / "sample", parts), folder / "centroids")["topic.centroids.npy"]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@settings(max_examples=20)
@given(st.permutations(range(60)), st.integers(1, 59), st.integers(1, 70))
def test_the_sample_is_the_same_however_vectors_are_cut_and_ordered(tmp_path_factory, order, cut, wanted):
    vectors = np.concatenate([VECTORS[:40], VECTORS[:20]])  # some come twice
    one = sample(tmp_path_factory.mktemp("one"), [vectors])
    two = sample(tmp_path_factory.mktemp("two"), [vectors[list(order[:cut])], vectors[list(order[cut:])]])
    expected, found = (read_samples_of_vectors(list(paths.values()), wanted) for paths in (one, two))
    assert np.array_equal(expected[0], found[0])
    assert np.array_equal(expected[1], found[1])
    assert len(found[0]) == min(wanted, 40)
    backwards = read_samples_of_vectors(list(two.values())[::-1], wanted)
    assert np.array_equal(backwards[1], found[1])


def test_a_bound_leaves_its_share_and_a_seed_chooses_others(tmp_path):
    (path,) = sample(tmp_path / "half", [VECTORS], bound=EVERY // 2).values()
    assert 80 < len(read_array(path)) < 160
    assert (read_array(path)["hash"] <= EVERY // 2).all()
    (other,) = sample(tmp_path / "other", [VECTORS], bound=EVERY // 2, seed=18).values()
    one, two = ({row.tobytes() for row in read_array(at)["vector"]} for at in (path, other))
    assert one & two
    assert one - two


def test_centroids_are_the_same_bytes_for_any_partitions_and_threads(tmp_path):
    expected = digest(train(tmp_path / "whole", [VECTORS]))
    assert digest(train(tmp_path / "cut", [VECTORS[100:], VECTORS[:100]])) == expected
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        many = make_vectors(6000, seed=1, length=64, spread=1.0).astype(np.float32)
        found = [train_centroids(many, 40, 6, 17)[0].tobytes()]
        faiss.omp_set_num_threads(1)
        assert found == [train_centroids(many, 40, 6, 17)[0].tobytes()]
        faiss.omp_set_num_threads(2)
        assert digest(train(tmp_path / "threads", [VECTORS])) == expected
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)
    assert digest(train(tmp_path / "seed", [VECTORS], seed=18)) != expected


def test_the_clusters_of_data_around_centres_are_these(tmp_path):
    centres = np.eye(5, 16, dtype=np.float64)
    noise = 0.05 * np.random.default_rng(0).normal(size=(200, 16))
    vectors = (centres[np.arange(200) % 5] + noise).astype(np.float16)
    centroids = read_array(train(tmp_path, [vectors], iterations=20))
    nearest, similarity = find_nearest(quantise_vectors(vectors), centroids)
    assert len({(int(label), number % 5) for number, label in enumerate(nearest)}) == 5
    assert similarity.min() > 0.9


def test_fewer_different_vectors_than_clusters_make_fewer_clusters(tmp_path):
    centroids = read_array(train(tmp_path, [np.repeat(VECTORS[:3], 4, axis=0)]))
    assert len(centroids) == 3
    nothing = read_array(train(tmp_path / "nothing", [VECTORS[:0]]))
    assert len(nothing) == 0


@given(st.integers(1, 9), st.integers(0, 99))
def test_the_nearest_centroid_is_that_of_a_comparison_with_all(number, seed):
    whole, centroids = quantise_vectors(VECTORS[:50]), quantise_vectors(make_vectors(number, seed))
    nearest, similarity = find_nearest(whole, centroids)
    floats = [found / measure_lengths(found)[:, None] for found in (whole, centroids)]
    cosines = floats[0] @ floats[1].T
    assert np.abs(cosines.max(1) - cosines[np.arange(50), nearest]).max() < 1e-6
    assert np.abs(similarity - cosines.max(1)).max() < 1e-4


def test_many_centroids_are_looked_at_in_blocks(monkeypatch):
    whole, centroids = quantise_vectors(VECTORS), quantise_vectors(make_vectors(30, 1))
    expected = find_nearest(whole, centroids)
    monkeypatch.setattr("vlmill.pipeline.steps.clusters.PRODUCTS", 7)
    for one, other in zip(find_nearest(whole, centroids), expected, strict=True):
        assert np.array_equal(one, other)


def test_values_are_cluster_cosine_and_size_and_what_has_no_vector_says_why(tmp_path):
    vectors = VECTORS.copy()
    vectors[7] = 0
    parts = {0: write_vectors(tmp_path / "p0", "looks", vectors[:100], lost=[3])}
    parts[1] = write_vectors(tmp_path / "p1", "looks", vectors[100:])
    centroids = train(tmp_path / "train", [VECTORS])
    assigned = {
        number: run_step(
            AssignClusters("topic", "looks"), {**files, centroids.name: centroids}, tmp_path / f"a{number}"
        )
        for number, files in parts.items()
    }
    tables = {f"web/{number}/{name}": path for number, found in assigned.items() for name, path in found.items()}
    sizes = run_step(CountClusters("topic"), {**tables, centroids.name: centroids}, tmp_path / "sizes")
    values = pl.concat(
        pl.read_parquet(
            run_step(ValueClusters("topic", SETTINGS), {**files, **assigned[number], **sizes}, tmp_path / f"v{number}")[
                "topic.scores.parquet"
            ]
        )
        for number, files in parts.items()
    )
    assert values.columns == ["sample", "node", "reason", "topic", "topic_similarity", "topic_size"]
    assert values["reason"].to_list()[:8] == [None, None, None, "undecodable", None, None, None, "no_value"]
    known = values.drop_nulls("topic")
    assert known.height == 238
    counted = known.group_by("topic").agg(pl.len(), pl.col("topic_size").unique())
    assert all([number] == found for number, found in counted.select("len", "topic_size").iter_rows())
    assert known["topic_similarity"].is_between(0, 1).all()


# -- recipes -----------------------------------------------------------------------------------------------------------


LOOKS = {"kind": "image_embedding", "model": "siglip"}
TOPIC = {"kind": "clusters", "of": "looks", "clusters": 50}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signals": {"topic": TOPIC}}, "signals.topic.of: the recipe has no signal 'looks' of kind image_embedding"),
        ({"signals": {"looks": LOOKS, "topic": {**TOPIC, "of": "look"}}}, "'look'.*did you mean 'looks'"),
        ({"signals": {"looks": LOOKS, "topic": {**TOPIC, "clusters": 0}}}, "signals.topic.clusters.*1"),
        (
            {
                "signals": {"looks": LOOKS, "topic": TOPIC},
                "filters": [{"threshold": {"any": {"topic": {"max": 3}}}}],
            },
            "'topic' is the number of a cluster, not an amount; bound topic_size or topic_similarity",
        ),
        (
            {"signals": {"looks": LOOKS}, "dedupe": {"semantic": {"of": "looks", "min": 0.95}}},
            "0 signals group 'looks'; add one to `signals`: topic: {kind: clusters, of: looks, clusters: 1000}",
        ),
        (
            {
                "signals": {"looks": LOOKS, "topic": TOPIC, "theme": TOPIC},
                "dedupe": {"semantic": {"of": "looks", "min": 0.95}},
            },
            "2 signals group 'looks'; say which with `within`: theme, topic",
        ),
        (
            {
                "signals": {"looks": LOOKS, "topic": TOPIC},
                "dedupe": {"semantic": {"of": "looks", "min": 0.95, "within": "topik"}},
            },
            "dedupe.semantic.within: .*did you mean 'topic'",
        ),
        (
            {
                "signals": {"looks": LOOKS, "topic": TOPIC},
                "dedupe": {"semantic": {"of": "looks", "min": 0.95, "sources": ["wbe"]}},
            },
            "dedupe.semantic.sources: the recipe has no source 'wbe'; did you mean 'web'",
        ),
        ({"dedupe": {"semantic": {"of": "looks", "min": 0.8}}}, "floor 0.9 is above min 0.8"),
    ],
)
def test_what_a_recipe_cannot_mean_is_said_before_any_work(tmp_path, changes, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "stages": [], **changes}))
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(path))


# -- columns beside shards ---------------------------------------------------------------------------------------------


def test_a_sample_has_the_most_frequent_cluster_of_its_nodes_and_of_several_the_first(tmp_path):
    topics = {0: [3, 1, 1], 1: [7, 2], 2: [None, 5], 3: [None]}
    index = pl.DataFrame({"row": [0, 1, 2, 3], "key": [f"web-{sample:06d}" for sample in topics]})
    lineage = pl.DataFrame(
        {"row": [0, 1, 2, 3], "nodes": [[{"node": node} for node in range(len(found))] for found in topics.values()]}
    )
    rows = [(sample, node, topic) for sample, found in topics.items() for node, topic in enumerate(found)]
    reasons = tuple("undecodable" if topic is None else None for _, _, topic in rows)
    places = [np.array([row[column] for row in rows], np.int32) for column in (0, 1)]
    values = np.array([[topic or 0, 0.5, topic or 0] for _, _, topic in rows], np.float32)
    paths = {name: tmp_path / name for name in ("00.index.parquet", "00.lineage.parquet", "topic.scores.parquet")}
    index.write_parquet(paths["00.index.parquet"])
    lineage.with_columns(pl.col("nodes").cast(pl.List(pl.Struct({"node": pl.Int32})))).write_parquet(
        paths["00.lineage.parquet"]
    )
    write_scores(paths["topic.scores.parquet"], Scores(*places, reasons, values), SETTINGS.columns("topic"))
    left = run_step(AddSignalColumns(SETTINGS.columns("topic"), ("topic",)), paths, tmp_path / "out")
    table = pl.read_parquet(left["00.signals.parquet"])
    assert table["topic"].to_list() == [1, 7, 5, None]
    assert "topic_min" not in table.columns
    assert table["topic_size_max"].to_list() == [3, 7, 5, None]
