"""A source is rendered under the image policies that stages use of it, and is counted all the same where none does."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from tests.helpers.small import RECIPE, vlmill, write_recipe
from vlmill.api.builds import forecast_changes, load_recipe
from vlmill.mixtures.build import read_stage_mixture
from vlmill.mixtures.members import list_members
from vlmill.pipeline.checks.extrapolate import extrapolate_run
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.reports.verify import list_manifests, verify_run

SOURCES = RECIPE["sources"] | {"scans": RECIPE["sources"]["scans"] | {"group": "pages"}}
POLICIES = {name: {"kind": "letterbox", "side": side, "patch": 14} for name, side in (("small", 56), ("large", 84))}
TUNE = {"sequence_length": 512, "entries": [{"source": "qu*", "share": 1}, {"source": "web", "share": 1}]}
STAGES = [
    {"name": "align", "policy": "small", "mixture": {"sequence_length": 512, "shares": {"web": 1, "pages": 1}}},
    {"name": "tune", "policy": "large", "mixture": TUNE},
]
USED = {"web/small", "web/large", "quiz/large", "scans/small"}
COMPLETE = ("idefics2", "idefics3", "smolvlm", "llava_1_5", "llava_next", "llava_onevision", "mantis", "prismatic")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("input files")
    return write_recipe(folder, sources=SOURCES, policies=POLICIES, stages=STAGES, model={})


@pytest.fixture(scope="module")
def built(recipe, tmp_path_factory):
    root = tmp_path_factory.mktemp("built") / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    return root


def list_rendered(root):
    """`<source>/<policy>` of every manifest of shards, each with its token lengths."""
    found = {"/".join(path.parent.relative_to(root / "shards").parts) for path in root.glob("shards/**/manifest.json")}
    pairs = {name for name in found if not name.endswith("/lengths")}
    assert {f"{name}/lengths" for name in pairs} == found - pairs
    return pairs


def list_digests(root, folder):
    return {file.path: file.sha256 for receipt in read_manifest(root, folder) for file in receipt.files}


def test_what_no_stage_uses_is_not_rendered_and_the_rest_is_as_without_stages(recipe, built, tmp_path):
    assert list_rendered(built) == USED
    everything = tmp_path / "run"
    assert vlmill("build", recipe, "--out", everything, "--workers", 0, "--set", "stages=[]") == 0
    assert list_rendered(everything) == {f"{source}/{policy}" for source in SOURCES for policy in POLICIES}
    for pair in sorted(USED):
        for folder in (f"shards/{pair}", f"shards/{pair}/lengths"):
            assert list_digests(built, folder) == list_digests(everything, folder)
    assert read_funnel(built) == read_funnel(everything)
    assert not (built / "steps/web/outcomes").exists()
    assert (built / "steps/papers/outcomes").exists()


def test_a_source_that_no_stage_uses_is_reported_on_like_the_others(built, tmp_path, capsys):
    funnel = read_funnel(built)
    assert funnel["papers"]["samples"]["kept"] == 2
    assert list(verify_run(built)) == []
    capsys.readouterr()
    assert vlmill("report", built, "--json") == 0
    assert json.loads(capsys.readouterr().out)["funnel"]["counts"] == funnel
    assert vlmill("report", built, "--html", tmp_path / "report.html") == 0
    assert vlmill("stats", built, "--html", tmp_path / "stats.html") == 0
    assert "There are no shards yet" not in (tmp_path / "stats.html").read_text()
    capsys.readouterr()
    assert vlmill("trace", built, "papers/papers.tar#0.0") == 0
    assert "kept" in capsys.readouterr().out
    assert vlmill("what-if", built, "--set", "filters.shape.max_ratio=1", "--json") == 0
    answer = json.loads(capsys.readouterr().out)["sources"]
    assert {source: counts["samples"]["now"] for source, counts in answer.items()} == {
        source: counts["samples"]["kept"] for source, counts in funnel.items()
    }
    assert vlmill("takedown", built, "--id", "papers/papers.tar#0.0", "--dry-run") == 0


def test_a_new_stage_renders_what_it_adds_and_keeps_the_rest(recipe, built, tmp_path):
    root, before = shutil.copytree(built, tmp_path / "run"), {}
    for path in list_manifests(built):
        before[str(path.parent.relative_to(built))] = path.read_bytes()
    mixture = {"sequence_length": 512, "shares": {"papers": 1, "scans": 1}}
    stages = [*STAGES, {"name": "read", "policy": "large", "mixture": mixture}]
    loaded = load_recipe(recipe, settings={"stages": stages})
    ran = {found.folder for found in forecast_changes(loaded, root) if found.outcome != "kept"}
    shards = {f"shards/{source}/large{more}" for source in ("papers", "scans") for more in ("", "/lengths")}
    assert {folder for folder in ran if folder.startswith("shards")} == shards
    arguments = ("build", recipe, "--out", root, "--workers", 0, "--accept-changes")
    assert vlmill(*arguments, "--set", f"stages={json.dumps(stages)}") == 0
    assert list_rendered(root) == {*USED, "papers/large", "scans/large"}
    after = {str(path.parent.relative_to(root)): path.read_bytes() for path in list_manifests(root)}
    assert {folder for folder, data in after.items() if data != before.get(folder)} <= ran
    assert list(verify_run(root)) == []
    # and without it again: what it had left is nobody's
    assert vlmill(*arguments, "--set", "filters.language.threshold=0.7") == 0
    assert list(verify_run(root)) == []
    found, again = extrapolate_run(built).sources, extrapolate_run(root).sources
    bytes_ = [sum(of.costs.bytes for of in each if of.source in ("papers", "scans")) for each in (found, again)]
    assert bytes_[1] == pytest.approx(bytes_[0], rel=0.1)
    assert vlmill("takedown", root, "--id", "papers/papers.tar#0.0") == 0
    assert list_rendered(root) == USED


def test_check_measures_what_a_build_renders(recipe, capsys):
    capsys.readouterr()
    assert vlmill("check", recipe, "--json") == 0
    sources = json.loads(capsys.readouterr().out)["sources"]
    assert {f"{one['source']}/{policy}" for one in sources for policy in one["shard_bytes"]} == USED
    assert {f"{one['source']}/{policy}" for one in sources for policy in one["tokens"]} == USED
    timed = {(one["source"], step.partition(".")[2]) for one in sources for step in one["seconds"] if "." in step}
    assert {"/".join(pair) for pair in timed} == USED


def test_a_build_says_what_it_does_not_render(recipe, tmp_path, capsys):
    policies = json.dumps({**POLICIES, "huge": POLICIES["large"]})
    assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0, "--set", f"policies={policies}") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "policies.huge: no stage uses it, so nothing is rendered under it" in said
    assert "sources.papers: no stage's mixture names it, so it is curated and not rendered" in said
    assert "quiz: no stage" not in said


@pytest.mark.parametrize("name", [*COMPLETE, "vlmill_base", "vlmill_base_laptop", "vlmill_base_cluster"])
def test_the_policies_of_a_source_are_those_of_the_mixtures_that_mean_it(name):
    recipe = load_recipe(name).recipe
    used = {source: set() for source in recipe.sources}
    for stage in recipe.stages:
        for sources in list_members(recipe, read_stage_mixture(recipe, stage), stage.name).values():
            for source in sources:
                used[source].add(stage.policy)
    assert {source: {*recipe.list_policies(source)} for source in recipe.sources} == used


def test_a_malformed_mixture_names_no_source(built):
    recipe = read_locked_recipe(built)
    for mixture in ({}, {"shares": 3}, {"entries": [4, {"share": 1}]}, {"shares": None}):
        stage = type(recipe.stages[0])("align", "small", mixture)
        assert stage.list_entry_names() == ()


def test_what_went_as_a_duplicate_of_a_source_that_no_stage_uses_is_said(tmp_path, capsys):
    rows = pq.read_table(write_recipe(tmp_path / "whole").parent / "quiz.parquet")
    sources = {"quiz": RECIPE["sources"]["quiz"], "extra": RECIPE["sources"]["quiz"] | {"files": "extra.parquet"}}
    mixture = {"sequence_length": 512, "shares": {"quiz": 1}}
    stages = [{"name": "tune", "policy": "small", "mixture": mixture}]
    path = write_recipe(tmp_path, sources=sources, policies=POLICIES, stages=stages, model={})
    pq.write_table(rows.slice(0, 4), tmp_path / "extra.parquet")
    ends = []
    for number in (0, -1, 1):  # the smaller name is kept, then that of the lower number
        out = ("--out", tmp_path / f"run{number}", "--workers", 0, "--set", f"sources.extra.priority={number}")
        assert vlmill("build", path, *out, "--set", "expect={kept: 0}") == 0
        ends.append(" ".join(capsys.readouterr().out.split()))
    told = "went as duplicates of extra, which no stage uses"
    assert [told in end for end in ends] == [True, True, False], ends
