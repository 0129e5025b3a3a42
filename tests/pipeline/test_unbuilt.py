"""A changed recipe that is accepted and not built to its end: what shows a run says so until a build has ended."""

from __future__ import annotations

import json

import pytest

from tests.helpers.small import vlmill, write_recipe
from vlmill.pipeline.recipe.lock import UNBUILT
from vlmill.pipeline.recipe.mapping import LOCK

SAID = "is not built to its end"
SHOWN = (("status",), ("report",), ("report", "--section", "funnel"), ("stats",))


@pytest.fixture
def built(tmp_path):
    recipe, root = write_recipe(tmp_path), tmp_path / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    return recipe, root


def show(root, capfd):
    """What each of SHOWN prints."""
    capfd.readouterr()
    said = []
    for command, *options in SHOWN:
        assert vlmill(command, root, *options) == 0
        said.append(capfd.readouterr().out)
    return said


def change(recipe, root, *more):
    return vlmill("build", recipe, "--out", root, "--workers", 0, "--set", "language.drop=[en]", *more)


def test_what_shows_a_run_says_so_until_a_build_has_ended(built, capfd):
    recipe, root = built
    assert not any(SAID in text for text in show(root, capfd))
    assert change(recipe, root) == 1
    assert not any(SAID in text for text in show(root, capfd)), "nothing was accepted"
    assert change(recipe, root, "--accept-changes", "--until", "survey") == 0
    assert all(SAID in text for text in show(root, capfd))
    assert vlmill("status", root, "--json") == 0
    assert SAID in json.loads(capfd.readouterr().out)["unbuilt"]
    assert vlmill("report", root, "--json") == 0
    assert SAID in json.loads(capfd.readouterr().out)["unbuilt"]
    assert vlmill("report", root, "--html", root.parent / "page.html") == 0
    assert SAID in (root.parent / "page.html").read_text()
    assert "language.drop" in (root / UNBUILT).read_text()
    assert change(recipe, root, "--set", "expect.kept=0.99") == 1, "less is kept than expected, and all is built"
    assert not any(SAID in text for text in show(root, capfd))
    assert vlmill("verify", root) == 0


def test_a_takedown_builds_to_the_end_as_well(built, capfd):
    recipe, root = built
    assert vlmill("build", recipe, "--out", root, "--set", "seed=9", "--accept-changes", "--until", "survey") == 0
    assert (root / UNBUILT).exists()
    assert vlmill("takedown", root, "--id", "quiz/quiz.parquet#0", "--workers", 0) == 0
    assert not any(SAID in text for text in show(root, capfd))


def test_an_accepted_recipe_takes_the_place_of_a_damaged_lock(built):
    recipe, root = built
    (root / LOCK).write_text("name: [")
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 1
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--accept-changes") == 0
    assert not (root / UNBUILT).exists()
