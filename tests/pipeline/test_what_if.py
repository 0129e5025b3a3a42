"""what-if says what a build with another setting would come to, and writes nothing."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import yaml

from tests.helpers.small import vlmill, write_recipe
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.reports.what_if import LEVELS, answer_what_if

CHANGES = {
    "another threshold": {"shape.max_ratio": "1.2"},
    "another language and a filter more": {"language.drop": "[en]", "text_quality.node.min_words": "3"},
    "no dedupe": {"dedupe": "null"},
    "repeated paragraphs": {"language.drop": "[en]", "dedupe.paragraphs": "2"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("what-if")
    recipe = write_recipe(folder, stages=[])
    assert vlmill("build", recipe, "--out", folder / "run", "--workers", 0) == 0
    return folder


def contents(root):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("sets", CHANGES.values(), ids=CHANGES.keys())
def test_the_answer_is_what_a_build_comes_to(folder, tmp_path, sets):
    before = read_funnel(folder / "run")
    root, answer = answer_what_if(str(folder / "recipe.yaml"), folder / "run", sets, [])
    assert root == folder / "run"
    assert answer.changes

    built = shutil.copytree(folder / "run", tmp_path / "built")
    changes = [
        partition for key, value in {**sets, "expect.kept": 0}.items() for partition in ("--set", f"{key}={value}")
    ]
    assert vlmill("build", folder / "recipe.yaml", "--out", built, "--workers", 0, "--accept-changes", *changes) == 0
    after = read_funnel(built)
    for source, levels in answer.sources.items():
        for level in LEVELS:
            kept = levels[level]
            assert (kept.came, kept.now) == (before[source][level]["in"], before[source][level]["kept"])
            assert kept.then == after[source][level]["kept"]
            assert kept.then == kept.now - kept.newly_dropped + kept.newly_kept


def test_the_same_settings_change_nothing_and_nothing_is_ever_written(folder):
    seen = contents(folder / "run")
    assert not answer_what_if(str(folder / "recipe.yaml"), folder / "run", {}, [])[1].changes
    answer_what_if(str(folder / "run"), None, {"language.drop": "[en]", "sources.quiz.priority": "9"}, [])
    assert contents(folder / "run") == seen


def test_containment_that_was_not_looked_for_is_a_matter_for_a_build(folder):
    with pytest.raises(RecipeError, match=r"dedupe\.containment: this run has not looked .*--accept-changes"):
        answer_what_if(str(folder / "run"), None, {"dedupe.containment": "0.8"}, [])


@pytest.mark.parametrize("change", ["dedupe.containment=0.8", "dedupe.buckets=9", "seed=7"])
def test_what_has_to_be_built_is_said_with_the_whole_command(change, folder, capfd):
    run, recipe = folder / "run", folder / "recipe.yaml"
    assert vlmill("what-if", recipe, "--out", run, "--set", change) == 1
    command = f"vlmill build {recipe} --out {run} --accept-changes --set={change}"
    assert command in " ".join(capfd.readouterr().err.split())


def test_reasons_and_examples_say_what_goes_and_what_comes_back(folder):
    _, answer = answer_what_if(str(folder / "run"), None, {"language.drop": "[en]"}, [])
    assert answer.asked == ("language",)
    why = answer.sources["web"]["samples"].why
    assert why[Reason.LANGUAGE].newly_dropped == 5
    assert why[Reason.LANGUAGE].newly_kept == 1  # all of it is Chinese
    assert why[Reason.LANGUAGE].examples == [f"web/web.parquet#{row}" for row in (0, 1, 2)]
    assert answer.sources["web"]["nodes"].why[Reason.LANGUAGE].examples[0] == "web/web.parquet#0 node 0"


def test_a_filter_that_stays_as_it_is_is_not_asked_again(folder):
    assert answer_what_if(str(folder / "run"), None, {}, [])[1].asked == ()
    assert answer_what_if(str(folder / "run"), None, {"filters.shape.min_side": "1"}, [])[1].asked == ("shape",)


def test_the_blocks_of_an_edited_recipe_count(folder):
    data = yaml.safe_load((folder / "recipe.yaml").read_text())
    (edited := folder / "edited.yaml").write_text(yaml.safe_dump(data | {"filters": [{"shape": {"max_ratio": 1.2}}]}))
    _, answer = answer_what_if(str(edited), folder / "run", {}, [])
    assert answer.asked == ("shape",)
    assert answer.sources["web"]["samples"].newly_kept == 1  # what language had dropped
    (edited := folder / "limited.yaml").write_text(yaml.safe_dump(data | {"limit": 3}))
    _, answer = answer_what_if(str(edited), folder / "run", {}, [])
    assert not answer.changes
    assert "limit of" in answer.notes[0]


def test_a_custom_filter_can_be_tried_on_a_run(folder):
    code = (
        "from dataclasses import dataclass\nfrom vlmill.pipeline.filters import "
        "Drop\n@dataclass(frozen=True)\nclass No:\n    name = 'no'\n"
        "    def decide(self, samples, image_stats):\n        for row, sample in samples:\n            yield "
        "Drop(row)\n"
    )
    _, answer = answer_what_if(str(folder / "run"), None, {}, [("no.py", code)])
    assert all(levels["samples"].then == 0 for levels in answer.sources.values())
    assert {reason for levels in answer.sources.values() for reason in levels["nodes"].why} == {Reason("filter:no")}


def test_lists_are_read_from_beside_the_recipe(folder, monkeypatch):
    (folder / "domains.txt").write_text("small.test\n")
    _, answer = answer_what_if(str(folder / "recipe.yaml"), folder / "run", {"opt_out.domains": "[domains.txt]"}, [])
    assert answer.sources["web"]["images"].then == 0
    assert not (folder / "run" / "lists").exists()
    monkeypatch.chdir(folder)  # a recipe in this very folder
    _, answer = answer_what_if("recipe.yaml", folder / "run", {"opt_out.domains": "[domains.txt]"}, [])
    assert answer.sources["web"]["images"].then == 0
    with pytest.raises(RecipeError, match="there is no file .*gone.txt"):
        answer_what_if(str(folder / "recipe.yaml"), folder / "run", {"opt_out.domains": "[gone.txt]"}, [])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("language.treshold", "0.7", r"unknown key 'treshold'; did you mean 'threshold'\?"),
        ("langage.threshold", "0.7", r"what-if answers for filters|langage"),
        (
            "partition.rows",
            "3",
            r"(?s)what-if answers for filters, dedupe and the priorities.*partition.rows: 5 there, 3 here",
        ),
        ("decontaminate.action", "drop", "this run was compared with no benchmark"),
        ("dedupe.cap", "3", "other buckets or another cap find other pairs"),
        ("dedupe.text", "0.01", "greater than or equal to"),
        ("shape.max_ratio", "[", "the value is no YAML"),
        ("shape.max_ratio", "[[a_{b}]]", r"in quotes: --set 'shape.max_ratio=\"\[\[a_\{b\}\]\]\"'"),
    ],
)
def test_what_it_cannot_answer_is_refused(folder, key, value, message):
    with pytest.raises(RecipeError, match=message):
        answer_what_if(str(folder / "run"), None, {key: value}, [])


def test_a_change_of_how_it_fetches_is_said_not_to_be_simulated(folder, capsys):
    for named in (folder / "run", folder / "recipe.yaml"):
        capsys.readouterr()
        assert vlmill("what-if", named, "--out", folder / "run", "--set", "fetch.timeout_s=3") == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "note: fetch.timeout_s: fetching is not simulated. What was fetched is never fetched again" in said
    assert not any(
        "simulated" in note for note in answer_what_if(str(folder / "run"), None, {"seed": "5"}, [])[1].notes
    )


def test_a_folder_without_a_run_says_so(folder, tmp_path):
    with pytest.raises(StoreError, match="holds no run"):
        answer_what_if(str(folder / "recipe.yaml"), tmp_path, {}, [])


def test_sources_that_a_setting_leaves_as_they_are_are_counted_and_not_shown(folder, capsys):
    capsys.readouterr()
    sets = ("--set", "text_quality.node.min_words=40", "--set", "text_quality.sources=[web]")
    assert vlmill("what-if", folder / "run", *sets) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "3 sources where nothing changes: not shown" in said
    assert "web" in said
    assert "quiz" not in said


def test_the_command_prints_tables_or_json(folder, capsys):
    capsys.readouterr()
    assert (
        vlmill("what-if", folder / "recipe.yaml", "--out", folder / "run", "--set", "language.threshold=0.99999") == 0
    )
    assert "What would be kept" in capsys.readouterr().out
    assert vlmill("what-if", folder / "run", "--set", "shape.max_ratio=1.2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["asked"] == ["shape"]
    images = found["sources"]["quiz"]["images"]
    assert images["why"]["image_ratio"]["newly_dropped"] == images["newly_dropped"] == 8
    assert vlmill("what-if", folder / "run", "--set", "partition.rows=3") == 1


def test_the_answer_ends_with_the_build_that_applies_it(folder, capsys):
    recipe, run = folder / "recipe.yaml", folder / "run"
    sets = ("--set", "shape.max_ratio=1.2", "--set", "language.drop=[zh, en]")
    applies = f"--out {run} --accept-changes --set=shape.max_ratio=1.2 '--set=language.drop=[zh, en]'"
    for named, shown in ((recipe, recipe), (run, "RECIPE")):
        assert vlmill("what-if", named, "--out", run, *sets) == 0
        printed = capsys.readouterr().out.replace("\n", " ")
        assert f"To apply it: vlmill build {shown} {applies}" in printed
    assert vlmill("what-if", run) == 0
    assert "To apply it" not in capsys.readouterr().out
