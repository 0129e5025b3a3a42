"""Dedupe of a run that is cut into blocks and buckets: the build, what dies in it, and what reads it."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.helpers.killing import killed_at
from tests.helpers.small import RECIPE, vlmill, write_recipe
from vlmill.pipeline.dedupe import Dedupe
from vlmill.pipeline.dedupe.candidates import BUCKET_BITS
from vlmill.pipeline.dedupe.pieces import cut_blocks
from vlmill.pipeline.engine import deduping
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.reports import what_if_verdicts
from vlmill.pipeline.reports.funnel import read_funnel, total_funnel

DEDUPE = {"paragraphs": 2, "containment": 0.6, "host_images": 0.9, "across_documents": True, "boilerplate": 3}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("input files")
    sources = {name: RECIPE["sources"][name] for name in ("web", "quiz")}
    return write_recipe(folder, sources=sources, dedupe=DEDUPE, partition={"rows": 3}, stages=[])


@pytest.fixture(scope="module")
def curated(recipe, tmp_path_factory):
    """What every run here begins with."""
    root = tmp_path_factory.mktemp("curated") / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--until", "signals") == 0
    return root


@pytest.fixture(scope="module")
def whole(recipe, curated, tmp_path_factory):
    """A run that is resolved by one task."""
    root = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(curated, root)
    build(recipe, root)
    assert [receipt.partition for receipt in read_manifest(root, "steps/dedupe/resolve")] == ["all"]
    return root


def build(recipe, root, workers=0):
    assert vlmill("build", recipe, "--out", root, "--workers", workers, "--until", "dedupe") == 0


def cut_small(sizes, priority):
    return cut_blocks(sizes, priority, 10)


def patch_sizes(patch):
    """Blocks of 10 things and places of 3 partitions, as a large run has them of more."""
    patch.setattr(deduping, "cut_blocks", cut_small)
    patch.setattr(what_if_verdicts, "cut_blocks", cut_small)
    patch.setattr("vlmill.pipeline.dedupe.gather.FEW", 3)
    patch.setattr("vlmill.pipeline.dedupe.pieces.LINKS", 4)


def build_in_pieces(recipe, root, workers=0):
    with pytest.MonkeyPatch.context() as patch:
        patch_sizes(patch)
        build(recipe, root, workers)


def read_resolved(root):
    """The bytes that dedupe left, by name."""
    files = [file for receipt in read_manifest(root, "steps/dedupe/resolve") for file in receipt.files]
    return {file.name: (root / file.path).read_bytes() for file in files}


def read_steps(root):
    """The bytes of all files of all steps of dedupe."""
    paths = [path for path in sorted((root / "steps/dedupe").rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def pieces(recipe, curated, tmp_path_factory):
    """A run that is resolved in pieces."""
    root = tmp_path_factory.mktemp("pieces") / "run"
    shutil.copytree(curated, root)
    build_in_pieces(recipe, root)
    assert len(read_manifest(root, "steps/dedupe/resolve")) > 2, "two blocks at least, and the overlap"
    assert len(read_manifest(root, "steps/dedupe/places")) > 1
    return root


def test_pieces_leave_the_bytes_and_counts_of_one_task(whole, pieces):
    assert read_resolved(pieces) == read_resolved(whole)
    total = total_funnel(read_funnel(pieces))
    assert total == total_funnel(read_funnel(whole))
    assert total["samples"].lost["exact_text"] == 1


def test_the_bytes_do_not_depend_on_the_workers(recipe, curated, pieces, tmp_path):
    shutil.copytree(curated, tmp_path / "run")
    build_in_pieces(recipe, tmp_path / "run", workers=2)
    assert read_steps(tmp_path / "run") == read_steps(pieces)


def test_killed_in_the_middle_it_ends_with_the_same_bytes(recipe, curated, pieces, tmp_path):
    """Killed again and again, each time some commit points further on."""
    root, deaths = tmp_path / "run", 0
    shutil.copytree(curated, root)
    while killed_at(90, build_in_pieces, recipe, root):
        deaths += 1
        assert deaths < 100, "no progress"
    assert deaths > 2
    assert read_steps(root) == read_steps(pieces)
    assert not list(root.glob("**/.tmp-*"))


def test_readers_know_runs_in_pieces(whole, pieces, capsys):
    assert vlmill("verify", pieces) == 0
    said = {}
    for root in (whole, pieces):
        capsys.readouterr()
        assert vlmill("report", root, "--json") == 0
        said[root] = json.loads(capsys.readouterr().out.replace(str(root), "run"))
    assert said[whole] == said[pieces]
    assert vlmill("status", pieces) == 0
    steps = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    expected = ["left", "large_star_0", "claims_0", "linked_0", "round_0_0", "answers_0", "resolve"]
    assert [step for step in steps if step in expected] == expected
    answers = []
    for cut in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if cut:
                patch_sizes(patch)
            assert vlmill("what-if", pieces, "--set", "filters.language.drop=[en]", "--json") == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    assert answers[0]["sources"]["web"]["samples"]["newly_dropped"]


@pytest.mark.parametrize(
    ("texts", "images", "buckets"),
    [(0, 0, 1), (10_000, 0, 1), (0, 12_543, 1), (0, 12_544, 2), (141_000_000, 353_000_000, 1 << BUCKET_BITS)],
)
def test_buckets_follow_what_is_compared(texts, images, buckets):
    assert Dedupe().count_buckets(texts, images) == buckets
    assert Dedupe(buckets=5).count_buckets(texts, images) == 5
