"""What a build does again after a small change: of a threshold, and of a source's files."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.helpers.small import vlmill, write_recipe
from tests.helpers.upstream import cauldron, picture
from vlmill.pipeline.dedupe import picture as pictures
from vlmill.pipeline.engine.timings import TIMINGS

FILES, ROWS = 6, 4
SMALL = (48, 40)


def write_file(folder, number):
    """Pictures of one file, the last of which only the first file has so small."""
    sizes = [(96, 80)] * (ROWS - 1) + [SMALL if number == 0 else (96, 80)]
    rows = [([picture(number * ROWS + at, size)], [(f"What is {number}-{at}?", "It")]) for at, size in enumerate(sizes)]
    cauldron(folder / f"quiz-{number}.parquet", rows)


def write_settings(folder, **shape):
    stage = {
        "name": "align",
        "policy": "small",
        "mixture": {"shares": {"quiz": 1}, "epochs": 1, "sequence_length": 512},
    }
    return write_recipe(
        folder,
        sources={"quiz": {"kind": "cauldron", "files": "quiz-*.parquet"}},
        filters=[{"shape": shape}],
        dedupe={"image": 0.97},
        stages=[stage],
        model={},
    )


def build(recipe, root, *options):
    """The tasks that a build did, by folder."""
    before = len((root / TIMINGS).read_text().splitlines()) if (root / TIMINGS).exists() else 0
    assert vlmill("build", recipe, "--out", root, "--workers", 0, *options) == 0
    log = (root / TIMINGS).read_text().splitlines()
    return Counter(json.loads(line)["folder"] for line in log[before:])


@pytest.fixture
def recipe(tmp_path):
    recipe = write_settings(tmp_path, min_side=32)
    (tmp_path / "quiz.parquet").unlink()
    for number in range(FILES):
        write_file(tmp_path, number)
    return recipe


def test_another_threshold_makes_verdicts_and_the_shards_that_change(recipe, tmp_path):
    root = tmp_path / "run"
    first = build(recipe, root)
    assert first["steps/quiz/read"] == first["shards/quiz/small"] == FILES
    again = build(write_settings(tmp_path, min_side=64), root, "--accept-changes")
    assert again["steps/quiz/shape"] == FILES
    for untouched in ("survey", "read", "image_stats", "signature"):
        assert not again[f"steps/quiz/{untouched}"]
    assert not again["steps/dedupe/candidates"] + again["steps/dedupe/pairs"]
    assert (again["steps/dedupe/resolve"], again["shards/quiz/small"], again["shards/quiz/small/lengths"]) == (1, 1, 1)


def test_a_file_that_is_added_makes_its_own_tasks_and_new_pairs(recipe, tmp_path, monkeypatch):
    root, measured, measure = tmp_path / "run", [], pictures.measure_similarity
    build(recipe, root)
    write_file(tmp_path, FILES)
    monkeypatch.setattr(pictures, "measure_similarity", lambda *a, **k: measured.append(len(a[0])) or measure(*a, **k))
    again = build(recipe, root, "--accept-changes")
    for step in ("survey", "read", "image_stats", "shape", "signature"):
        assert again[f"steps/quiz/{step}"] == 1
    assert again["shards/quiz/small"] == again["shards/quiz/small/lengths"] == 1
    manifest = json.loads((root / "steps/dedupe/pairs/manifest.json").read_text())
    assert sum(measured) < manifest["counts"]["image_pairs"]["kept"]
