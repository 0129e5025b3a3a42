"""vlmill check: all that is wrong before any work, and how much there is."""

from __future__ import annotations

import json

import pytest

from tests.helpers.small import vlmill, write_recipe


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path)


def read_check(capsys, *arguments):
    status = vlmill("check", *arguments, "--json")
    shown = capsys.readouterr()
    return status, json.loads(shown.out), shown.err


def test_what_is_there_is_counted_and_nothing_is_written(recipe, capsys, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    status, found, _ = read_check(capsys, recipe, "--out", tmp_path / "run")
    assert (status, found["faults"]) == (0, [])
    counts = {one["source"]: (one["rows"], one["samples"], one["images"]) for one in found["sources"]}
    assert counts == {"web": (8, 8, 9), "quiz": (8, 8, 8), "scans": (3, 3, 3), "papers": (1, 2, 2)}
    assert sorted(tmp_path.rglob("*")) == before
    assert vlmill("check", recipe) == 0
    assert "before any filter" in capsys.readouterr().out


def test_a_limit_bounds_the_estimate(recipe, capsys):
    _, found, _ = read_check(capsys, recipe, "--limit", 4)
    quiz = next(one for one in found["sources"] if one["source"] == "quiz")
    assert (quiz["rows"], quiz["samples"], quiz["images"]) == (4, 4, 4)
    assert 0 < quiz["needed"] <= quiz["bytes"] // 2 + 1


def test_all_faults_are_said_at_once(recipe, capsys, tmp_path):
    (tmp_path / "papers.tar").unlink()
    (tmp_path / "quiz.parquet").write_bytes(b"this is no table")
    (tmp_path / "tokenizer.json").write_text("{}")
    wrong = ("--set", "policies.small.side=84", "--set", "filters.opt_out.domains=[gone.txt]")
    status, found, said = read_check(
        capsys, recipe, *wrong, "--set", "sources.web.serve={http://img.small.test/: gone}"
    )
    assert status == 1
    for message in (
        "policies.small.side is 84",
        "tokenizer.json is no tokenizer.json",
        "gone.txt; the path of a list is relative to the recipe",
        "sources.web.serve.http://img.small.test/: there is no folder",
        "source 'papers': no file matches",
        "quiz",
    ):
        assert any(message in fault for fault in found["faults"]), message
        assert message in said
    assert {one["source"] for one in found["sources"]} == {"web", "scans"}


def test_a_disk_that_is_too_small_is_a_fault(recipe, capsys, monkeypatch):
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5))
    status, found, _ = read_check(capsys, recipe)
    assert status == 1
    assert "has 5 bytes free" in found["faults"][0]
