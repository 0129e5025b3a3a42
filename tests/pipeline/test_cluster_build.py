"""Builds with clusters: the same bytes with any workers and after kills, columns, semantic duplicates, balance."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter

import numpy as np
import polars as pl
import pytest

from tests.helpers import models
from tests.helpers.killing import killed_at
from tests.helpers.shapes import SHAPES
from tests.helpers.small import RECIPE, product, prose, vlmill, write_recipe
from tests.helpers.upstream import picture
from vlmill.api.builds import forecast_changes, load_recipe
from vlmill.mixtures.page.embedding_map import read_maps
from vlmill.pipeline.checks.estimate import RunEstimate
from vlmill.pipeline.checks.estimate_table import list_signal_costs
from vlmill.pipeline.checks.signal_costs import estimate_clusters
from vlmill.pipeline.core.scores import read_embeddings
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.reports.status import read_progress
from vlmill.pipeline.reports.verify import verify_run
from vlmill.pipeline.reports.what_if import answer_what_if
from vlmill.pipeline.signals.worker import SignalWorker
from vlmill.pipeline.steps import image_bytes

pytest.importorskip("faiss")

MIN = 0.95
ROWS = 24
WHERE = "topic_size < 25 and topic_similarity > -1 and (topic is null or topic >= 0)"


def recipe_blocks():
    stage = RECIPE["stages"][0]
    entries = {"web": 0.5, "pages": {"share": 0.5, "where": WHERE, "balance": {"by": "topic", "cap": 1}}}
    mixture = {"entries": entries, "epochs": 1, "sequence_length": 512}
    return {
        "sources": {
            "web": RECIPE["sources"]["web"],
            "pages": {"kind": "websight", "files": "pages.parquet", "licence": "CC0-1.0"},
        },
        "partition": {"rows": 9},
        "signals": {
            "looks": {"kind": "image_embedding", "model": "siglip", "batch": 8},
            "topic": {"kind": "clusters", "of": "looks", "clusters": 4, "seed": 17},
        },
        "filters": [
            {"language": {"drop": ["zh"]}},
            {"threshold": {"any": {"topic_size": {"max": 1000}, "topic_similarity": {"min_quantile": 0.02}}}},
        ],
        "dedupe": {"semantic": {"of": "looks", "min": MIN, "floor": 0.9}, "buckets": 3},
        "stages": [{**stage, "mixture": mixture}],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clusters")
    forms = [{"form": "PNG"}, {"form": "JPEG", "quality": 80}, {"form": "JPEG", "quality": 30}]
    shown = [picture(row // 3, **forms[row % 3]) for row in range(ROWS)]
    rows = [
        {"image": {"bytes": data, "path": "a.png"}, "text": f"<html>{prose(400 + row)}</html>"}
        for row, data in enumerate(shown)
    ]
    SHAPES["websight"].write(folder / "pages.parquet", rows)
    models.save_siglip(folder / "siglip")
    write_recipe(folder, **recipe_blocks())
    assert build(folder, "run", 0) == 0
    return folder


def build(folder, out, workers, *more):
    return vlmill("build", folder / "recipe.yaml", "--out", folder / out, "--workers", workers, *more)


def hash_clusters(root):
    """What the run knows of clusters and vectors."""
    found = (path for name in ("topic", "semantic") for path in root.glob(f"steps/**/{name}/**/*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(found)}


def read_places(root):
    """Every image of a page in its order: id of its sample, vector, cluster."""
    places = []
    for receipt in read_manifest(root, "steps/pages/looks"):
        tables = {
            file.name: root / file.path
            for step in ("looks", "topic", "read")
            for other in read_manifest(root, f"steps/pages/{step}")
            if other.partition == receipt.partition
            for file in other.files
        }
        ids = pl.read_parquet(tables["samples.parquet"], columns=["row"])["row"]
        found = read_embeddings(tables["looks.embeddings.parquet"], "looks")
        topics = pl.read_parquet(tables["topic.scores.parquet"])["topic"]
        for sample, vector, topic in zip(found.samples, found.vectors, topics, strict=True):
            places.append((f"pages/pages.parquet#{ids[int(sample)]}", vector.astype(np.float64), topic))
    return places


def drop_by_hand(places, least):
    """The semantic duplicates among pages, one by one: id -> (keeper, cosine)."""
    kept, gone = [], {}
    for name, vector, topic in sorted(places, key=lambda place: int(place[0].rpartition("#")[2])):
        cosines = [
            (vector @ other / np.linalg.norm(vector) / np.linalg.norm(other), keeper)
            for keeper, other, there in kept
            if there == topic
        ]
        best = max(cosines, default=(0, ""))
        if round(best[0], 4) >= least:
            gone[name] = best[1], best[0]
        else:
            kept.append((name, vector, topic))
    return gone


def read_verdicts(root, source="pages"):
    paths = sorted(root.glob(f"steps/dedupe/resolve/*{source}.*dedupe.verdicts.parquet"))
    return pl.concat(pl.read_parquet(path) for path in paths)


def test_clusters_and_pairs_are_the_same_bytes_with_two_workers_in_whatever_order_they_come(folder):
    assert build(folder, "workers", 2, "--until", "dedupe") == 0
    assert hash_clusters(folder / "workers") == hash_clusters(folder / "run")


def test_the_values_are_cluster_cosine_and_size_in_the_run(folder):
    tables = [pl.read_parquet(path) for path in sorted((folder / "run").glob("steps/*/topic/*.topic.scores.parquet"))]
    values = pl.concat(tables).drop_nulls("topic")
    sizes = Counter(values["topic"].to_list())
    assert len(sizes) == 4
    assert all(sizes[topic] == size for topic, size in values.select("topic", "topic_size").iter_rows())
    assert list(verify_run(folder / "run")) == []


def test_semantic_duplicates_are_those_of_a_comparison_one_by_one(folder):
    root = folder / "run"
    expected = drop_by_hand(read_places(root), MIN)
    assert 2 < len(expected) < ROWS - 2
    verdicts = read_verdicts(root).filter(pl.col("reason") == "semantic_image")
    assert verdicts.height == len(expected)
    for other, score in verdicts.select("other", "score").iter_rows():
        assert (other, pytest.approx(score, abs=3e-4)) in [*expected.values()]
    dropped = read_funnel(root)["pages"]["samples"]["dropped"]
    assert dropped["semantic_image"] == len(expected)


def test_a_check_says_what_clusters_take(folder):
    recipe = read_locked_recipe(folder / "run")
    (found,) = estimate_clusters(recipe, {"looks": 1_000_000})
    assert (found.vectors, found.trained) == (1_000_000, 4 * 100)
    assert found.seconds == pytest.approx(25 * 400 * 4 / 1e8 + 1_000_000 * 4 / 3e7)
    (line,) = list_signal_costs(RunEstimate((), 1, clusters=(found,)))
    assert line.startswith("signal topic: 4 clusters of 1,000,000 vectors of looks, trained on 400; about 0.1 s of one")
    (unknown,) = estimate_clusters(recipe, {"looks": None})
    assert (unknown.trained, unknown.seconds) == (None, None)
    assert "of ? vectors of looks" in next(list_signal_costs(RunEstimate((), 1, clusters=(unknown,))))


def test_a_report_and_a_trace_name_the_keeper(folder, capsys):
    root = folder / "run"
    gone, (keeper, _) = next(iter(drop_by_hand(read_places(root), MIN).items()))
    assert vlmill("trace", root, gone) == 0
    said = capsys.readouterr().out
    assert "dedupe drops the sample: semantic_image (score 0.9" in said
    assert f"because of {keeper}" in said
    assert vlmill("report", root, "--reason", "semantic_image") == 0
    assert gone in capsys.readouterr().out
    assert vlmill("report", root, "--section", "signals") == 0
    said = capsys.readouterr().out
    assert "topic_size" in said
    assert "topic_similarity" in said


def forbid_models(monkeypatch):
    def refuse(*_):
        raise AssertionError("a model or a picture was touched")

    monkeypatch.setattr(SignalWorker, "score_chunk", refuse)
    monkeypatch.setattr(image_bytes.Pictures, "read", refuse)


@pytest.mark.parametrize(
    "changed",
    [
        {"dedupe.semantic.min": "0.9"},
        {"dedupe.semantic": "null"},
        {"dedupe.semantic.sources": "[web]"},
        {"threshold.any.topic_size.max": "8"},
    ],
)
def test_what_if_says_what_a_build_comes_to_and_touches_no_model_and_no_picture(folder, monkeypatch, changed):
    with monkeypatch.context() as patch:
        forbid_models(patch)
        _, answer = answer_what_if(str(folder / "run"), None, changed, [])
    assert answer.changes
    root = shutil.copytree(folder / "run", folder / "-".join(*changed.items()).replace("[web]", "web"))
    monkeypatch.setattr(SignalWorker, "score_chunk", None)
    (set_,) = (f"{key}={value}" for key, value in changed.items())
    assert build(folder, root.name, 0, "--accept-changes", "--set", set_) == 0
    funnel = read_funnel(root)
    for source, levels in answer.sources.items():
        for level, kept in levels.items():
            assert kept.then == funnel[source][level]["kept"]


@pytest.mark.parametrize(
    "changed", ["dedupe.semantic.floor=0.8", "signals.topic.clusters=3", "dedupe.semantic.of=topic"]
)
def test_what_has_to_be_compared_anew_is_no_question_of_what_if(folder, changed):
    key, _, value = changed.partition("=")
    with pytest.raises(Exception, match="--accept-changes|has to be built|no signal 'topic' of kind"):
        answer_what_if(str(folder / "run"), None, {key: value}, [])


def test_a_mixture_sees_the_topic_of_a_sample_and_plans_so_many_of_each(folder):
    root = folder / "run"
    tables = [pl.read_parquet(path) for path in sorted(root.glob("shards/pages/small/signals/*.signals.parquet"))]
    table = pl.concat(tables)
    ends = ("", "_min", "_max")
    values = [f"topic_{name}{end}" for name in ("similarity", "size") for end in ends]
    assert table.columns == ["row", "topic", *values]
    left = table.filter(pl.col("topic_size") < 25)
    expected = sum(min(1, number) for number in Counter(left["topic"].to_list()).values())
    stats = json.loads((root / "mixtures/align/stats.json").read_text())
    (pages,) = (source for source in stats["sources"] if source["name"] == "pages")
    assert pages["available"]["samples"] == expected == pages["balance"]["kept"]
    assert pages["lost"]["samples"]["over_cap"] == left.height - expected > 0


def test_what_is_missing_is_made_again_with_the_same_bytes(folder, monkeypatch):
    root = shutil.copytree(folder / "run", folder / "again")
    receipts = [*root.glob("steps/**/topic/**/*.receipt.json"), *root.glob("steps/dedupe/semantic/*.receipt.json")]
    for path in (*receipts[::2], *root.glob("steps/signals/topic/*/*.receipt.json")):
        path.unlink(missing_ok=True)
    monkeypatch.setattr(SignalWorker, "score_chunk", None)
    assert build(folder, "again", 0) == 0
    assert hash_clusters(root) == hash_clusters(folder / "run")
    assert product(root) == product(folder / "run")


def test_killed_at_commit_points_it_ends_with_the_same_bytes(folder):
    """From the vectors on: centroids, clusters, sizes, pairs."""
    start = shutil.copytree(
        folder / "run", folder / "start", ignore=shutil.ignore_patterns("topic", "shards", "mixtures")
    )
    for name in ("semantic", "threshold", "dedupe", "signals"):
        for path in start.glob(f"steps/**/{name}"):
            shutil.rmtree(path)
    deaths, point, root = 0, 3, folder / "killed"
    shutil.copytree(start, root)
    command = ("build", folder / "recipe.yaml", "--out", root, "--workers", 0, "--until", "dedupe")
    while killed_at(point, vlmill, *command):
        deaths += 1
        point += 37
    assert deaths > 2
    assert hash_clusters(root) == hash_clusters(folder / "run")
    assert not list(root.glob("**/.tmp-*"))


def test_a_takedown_leaves_nothing_of_a_picture_in_clusters_and_vectors(folder):
    root = shutil.copytree(folder / "run", folder / "taken")
    before = {path.name for path in root.glob("steps/**/*.npy")}
    assert vlmill("takedown", root, "--id", "pages/pages.parquet#1", "--workers", 0) == 0
    assert list(verify_run(root)) == []
    tables = [pl.read_parquet(path) for path in sorted(root.glob("steps/pages/topic/*.topic.scores.parquet"))]
    assert sum(table.height for table in tables) == ROWS - 1
    (centroids,) = root.glob("steps/signals/topic/centroids/*.centroids.npy")
    assert centroids.name not in before
    evidence = [np.load(path) for path in sorted(root.glob("steps/pages/semantic/*.evidence.npy"))]
    assert sum(map(len, evidence)) == ROWS - 1


def test_a_forecast_knows_what_other_clusters_touch(folder):
    root = folder / "run"
    for changed, again in (
        (
            {"signals.topic.clusters": 3},
            {
                "steps/signals/topic/centroids",
                "steps/signals/topic/sizes",
                "steps/web/topic",
                "steps/web/topic/assigned",
            }
            | {"steps/pages/semantic", "steps/dedupe/semantic", "steps/dedupe/resolve", "steps/web/threshold"},
        ),
        ({"dedupe.semantic.min": 0.98}, {"steps/dedupe/resolve"}),
        ({"dedupe.semantic.floor": 0.8}, {"steps/dedupe/semantic", "steps/dedupe/resolve"}),
    ):
        found = forecast_changes(load_recipe(folder / "recipe.yaml", settings=changed), root)
        ran = {step.folder for step in found if step.outcome in ("run", "run again")}
        assert again <= ran
        assert not {"steps/web/looks", "steps/web/read", "steps/dedupe/pairs", "steps/web/image_stats"} & ran
    steady = forecast_changes(load_recipe(folder / "recipe.yaml"), root)
    assert {step.outcome for step in steady} == {"kept"}


def test_the_page_draws_a_map_of_vectors_and_shows_examples_of_clusters(folder):
    root, page = folder / "run", folder / "page.html"
    (found,) = read_maps(root, read_locked_recipe(root))
    assert read_maps(root, read_locked_recipe(root)) == [found]
    values = [pl.read_parquet(path) for path in root.glob("steps/*/topic/*.topic.scores.parquet")]
    assert len(found.points) == pl.concat(values).drop_nulls("topic").height
    assert {point["source"] for point in found.points} == {"web", "pages"}
    assert {point["id"] for point in found.points} >= {name for name, _, _ in read_places(root)}
    sizes = [cluster["size"] for cluster in found.clusters]
    assert sizes == sorted(sizes, reverse=True)
    pictures = [example["picture"] for cluster in found.clusters for example in cluster["examples"]]
    assert all(picture.startswith("data:image/webp") for picture in pictures)
    assert vlmill("stats", root, "--html", page) == 0
    assert "Map of topic" in page.read_text()
    assert pictures[0] in page.read_text()


def test_a_map_has_a_bounded_number_of_points_that_are_chosen_by_hash(folder, monkeypatch):
    root = folder / "run"
    (every,) = read_maps(root, read_locked_recipe(root))
    monkeypatch.setattr("vlmill.mixtures.page.embedding_map.POINTS", 5)
    (few,) = read_maps(root, read_locked_recipe(root))
    assert len(few.points) == 5
    assert [point["id"] for point in few.points] == [point["id"] for point in every.points[:5]]


def test_status_shows_the_steps_of_clusters(folder):
    steps = list(dict.fromkeys((step.phase, step.step) for step in read_progress(folder / "run")))
    mine = ["looks", "topic sample", "topic centroids", "topic assigned", "topic sizes", "topic", "quantiles"]
    assert [step for phase, step in steps if phase == "signals"] == [*mine, "semantic", "threshold"]
    assert ("dedupe", "semantic") in steps
    assert read_locked_recipe(folder / "run").clusters["topic"].clusters == 4
