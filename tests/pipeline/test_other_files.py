"""What lies in a run's folder and is not of the run: build, takedown, `--rebuild` and sweeps leave it alone."""

import json
import shutil

import pytest

from tests.helpers.small import vlmill
from tests.helpers.stages import write_tokenizer
from vlmill.pipeline.core.files import TEMPORARY
from vlmill.pipeline.engine.store import Store
from vlmill.pipeline.reports.status import read_progress

ROWS = [{"question": f"What is the name of number {n}?", "answer": f"It is {n} and no other."} for n in range(3)]
COLUMNS = {"question": "question", "answer": "answer"}
RECIPE = {
    "name": "words",
    "sources": {"quiz": {"kind": "instructions", "files": "rows.jsonl", "options": COLUMNS}},
    "tokenizer": "tokenizer.json",
}


@pytest.fixture
def recipe(tmp_path):
    folder = tmp_path / "input files"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    write_tokenizer(folder / "tokenizer.json")
    (folder / "recipe.yaml").write_text(json.dumps(RECIPE))
    return folder / "recipe.yaml"


def build(recipe, root, *options):
    return vlmill("build", recipe, "--out", root, "--workers", 0, *options)


def list_contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("work", [("takedown", "--id", "quiz/rows.jsonl#1"), ("build", "--rebuild")])
def test_a_run_below_another_stays(recipe, tmp_path, work):
    root, inner = tmp_path / "run", tmp_path / "run" / "small"
    assert build(recipe, root) == 0
    shutil.copytree(root, inner)
    (inner / "steps" / f"{TEMPORARY}task").mkdir()
    (inner / "steps" / f"{TEMPORARY}task" / "begun").write_text("a build at work")
    before = list_contents(inner)
    command, *options = work
    assert (vlmill(command, root, *options) if command == "takedown" else build(recipe, root, *options)) == 0
    assert list_contents(inner) == before
    assert not any("small" in step.folder for step in read_progress(root))


def test_a_manifest_of_others_is_not_read(recipe, tmp_path):
    (tmp_path / "run" / "src").mkdir(parents=True)
    (tmp_path / "run" / "src" / "manifest.json").write_text('{"name": "an app"}')
    assert build(recipe, tmp_path / "run") == 0


def test_a_sweep_takes_what_tasks_left_and_nothing_else(tmp_path):
    left = [tmp_path / place / f"{TEMPORARY}x" for place in ("steps/a/read", "shards/a/b", "mixtures/tune", ".")]
    others = [tmp_path / "inner" / "steps" / f"{TEMPORARY}x", tmp_path / "other" / f"{TEMPORARY}x"]
    for folder in (*left, *others):
        folder.mkdir(parents=True)
    Store(tmp_path).sweep()
    assert not any(folder.exists() for folder in left)
    assert all(folder.exists() for folder in others)


def test_steps_that_another_folder_holds_are_not_swept(tmp_path):
    (tmp_path / "data" / "steps" / f"{TEMPORARY}x").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "steps").symlink_to("../data/steps")
    Store(tmp_path / "run").sweep()
    assert (tmp_path / "data" / "steps" / f"{TEMPORARY}x").exists()


@pytest.mark.parametrize("name", ["README.md", "tokenizer.json"])
def test_a_file_that_a_build_would_replace_is_refused(recipe, tmp_path, capsys, name):
    root = tmp_path / "run"
    root.mkdir()
    (root / name).write_text("of somebody else")
    assert build(recipe, root) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"holds no run, but {name}, which a build would replace; give it a folder of its own with --out" in said
    assert list_contents(root) == {(root / name).relative_to(root): b"of somebody else"}
    (root / name).unlink()
    assert build(recipe, root) == 0
    assert build(recipe, root) == 0, "its own files are no obstacle"


def test_a_build_beside_its_own_recipe_takes_the_tokenizer_there(recipe):
    assert build(recipe, recipe.parent) == 0
