"""A build with nothing to do takes work in proportion to its partitions, and no more."""

from __future__ import annotations

import gc
import sys
from itertools import pairwise

import pytest
import yaml

from tests.helpers.small import prose, vlmill
from tests.helpers.upstream import obelics
from vlmill.api import builds
from vlmill.pipeline.core.collector import RARELY
from vlmill.pipeline.core.errors import NotBuiltError
from vlmill.pipeline.engine.chain import read_manifest, read_totals
from vlmill.pipeline.engine.store import Receipt, total_counts

SIZES = (8, 16, 32)


def write_recipe(folder, documents):
    """Web documents of a paragraph, each a partition of its own."""
    folder.mkdir()
    obelics(folder / "web.parquet", [[prose(number)] for number in range(documents)])
    recipe = {
        "name": "many",
        "sources": {"web": {"kind": "obelics", "files": "web.parquet"}},
        "partition": {"rows": 1},
        "policies": {"small": {"kind": "letterbox", "side": 56, "patch": 14}},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def count_calls(*arguments):
    """How many functions a command calls in this thread."""
    calls = [0]

    def note(_frame, event, _argument):
        calls[0] += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        assert vlmill(*arguments) == 0
    finally:
        sys.setprofile(None)
    return calls[0]


def test_a_build_with_nothing_to_do_calls_as_many_functions_more_for_each_partition_more(tmp_path):
    counts = []
    for size in SIZES:
        command = ("build", write_recipe(tmp_path / str(size), size), "--out", tmp_path / f"out-{size}", "--workers", 0)
        assert vlmill(*command) == 0
        assert vlmill(*command) == 0  # what a first build leaves to a second is done
        counts.append(count_calls(*command))
    less, more = (later - earlier for earlier, later in pairwise(counts))
    assert more < 2.05 * less, counts


def test_a_build_goes_through_its_objects_rarely_and_a_program_has_its_own_way_again(tmp_path, monkeypatch):
    during = []
    list_phases = builds.list_phases
    monkeypatch.setattr(builds, "list_phases", lambda *given: during.append(gc.get_threshold()) or list_phases(*given))
    recipe, before = write_recipe(tmp_path / "in", 1), gc.get_threshold()
    try:
        for threshold, expected in (
            ((700, 9, 8), (RARELY, 9, 8)),
            ((2 * RARELY,) * 3, (2 * RARELY,) * 3),
            ((0, 9, 8),) * 2,
        ):
            gc.set_threshold(*threshold)
            builds.build(recipe, tmp_path / "out", workers=0)
            assert (during.pop(), gc.get_threshold()) == (expected, threshold)
        monkeypatch.setattr(builds, "list_phases", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            builds.build(recipe, tmp_path / "out", workers=0)
        assert gc.get_threshold() == (0, 9, 8)
    finally:
        gc.set_threshold(*before)


def test_what_a_step_comes_to_is_read_without_its_receipts(tmp_path, monkeypatch):
    assert vlmill("build", write_recipe(tmp_path / "in", 3), "--out", tmp_path / "out", "--workers", 0) == 0
    steps = [str(path.parent.relative_to(tmp_path / "out")) for path in (tmp_path / "out").glob("s*/**/manifest.json")]
    summed = {step: total_counts(read_manifest(tmp_path / "out", step)) for step in steps}
    monkeypatch.setattr(Receipt, "from_json", lambda *_: 1 / 0)
    assert {step: read_totals(tmp_path / "out", step) for step in steps} == summed
    assert summed["steps/web/read"]["rows"].came == 3
    with pytest.raises(NotBuiltError, match="steps/web/boxes is not complete"):
        read_totals(tmp_path / "out", "steps/web/boxes")
