"""How results look in a notebook: a short line each, and the text of the command where one is printed."""

from __future__ import annotations

from html import unescape

import pytest
import yaml
from typer.testing import CliRunner

import vlmill
from tests.helpers.small import write_recipe
from vlmill.pipeline.cli import app

SHORT = 160
"""Characters of a repr, at most."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("input files"))


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    return vlmill.build(recipe, tmp_path_factory.mktemp("shown") / "run", workers=0)


@pytest.fixture(scope="module")
def results(recipe, run):
    return {
        "loaded": vlmill.load_recipe(recipe, limit=7),
        "checked": vlmill.check_recipe(recipe, run.folder, settings={"shape.max_ratio": 1.5}),
        "status": run.status(),
        "answer": run.what_if({"shape.max_ratio": 1.01}),
        "traced": run.trace("web/web.parquet#5"),
        "taken": run.takedown(ids="web/web.parquet#0", dry_run=True, workers=0),
    }


def list_printed(*arguments):
    """The lines that a command prints."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return [line.rstrip() for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loaded", "<LoadedRecipe: small, sources: papers, "),
        ("checked", "<CheckResult: 0 faults, "),
        ("status", "<Status: "),
        ("answer", "<WhatIfAnswer: "),
        ("traced", "<Traced: web/web.parquet#5, lost: language, in 0 shards>"),
        ("taken", "<Takedown: 2 samples and 1 image would go, "),
    ],
)
def test_a_repr_is_one_short_line(results, name, said):
    assert repr(results[name]).startswith(said)
    assert len(repr(results[name])) <= SHORT
    assert "\n" not in repr(results[name])


def test_a_notebook_shows_the_text_as_it_is(results):
    for found in results.values():
        assert unescape(found._repr_html_()) == f"<pre>{found}</pre>"


def test_the_text_of_a_status_is_what_the_command_prints(results, run):
    printed = " ".join(" ".join(list_printed("status", run.folder)).split())  # a long line is wrapped there
    assert printed.count(f". Why the rest was lost: vlmill report {run.folder}") == 1
    printed = printed.replace(f". Why the rest was lost: vlmill report {run.folder}", "")
    assert " ".join(str(results["status"]).split()) == printed


def test_the_text_of_an_answer_is_what_the_command_prints(results, run):
    lines = list_printed("what-if", run.folder, "--set", "shape.max_ratio=1.01")
    assert str(results["answer"]).splitlines() == [line for line in lines if not line.startswith("To apply it: ")]
    assert str(run.what_if({"shape.max_ratio": 10})).splitlines()[-1] == "nothing would change"


def test_the_text_of_a_check_is_what_the_command_prints(results, recipe, monkeypatch):
    found = results["checked"]
    monkeypatch.setattr("vlmill.api.checks.check_recipe", lambda *_, **__: found)
    said = str(found)
    assert "A build there needs accept_changes=True" in said
    assert said.replace("accept_changes=True", "--accept-changes").splitlines() == list_printed("check", recipe)
    wrong = vlmill.check_recipe(recipe, settings={"shape.max_ratio": "wide"})
    assert str(wrong).splitlines()[-len(wrong.faults) :] == [*wrong.faults]


def test_the_text_of_a_recipe_is_its_yaml(results):
    assert yaml.safe_load(str(results["loaded"])) == results["loaded"].mapping
