"""A changed recipe that is accepted and not built to its end: what shows a run says so until a build has ended."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
import typer

import vlmill as api
from tests.helpers.small import vlmill, write_recipe
from vlmill.api.runs import open_run
from vlmill.pipeline import cli
from vlmill.pipeline.core.errors import NotBuiltError
from vlmill.pipeline.recipe.lock import UNBUILT, UNBUILT_MESSAGE
from vlmill.pipeline.recipe.mapping import LOCK

SAID = "is not built to its end"
WARNED = "the run was not built to the end of its recipe"
SHOWN = (("status",), ("report",), ("report", "--section", "funnel"), ("stats",))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    recipe, root = write_recipe(folder), folder / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    return recipe, root


@pytest.fixture
def built(first, tmp_path):
    return first[0], shutil.copytree(first[1], tmp_path / "run")


def show(root, capfd):
    """What each of SHOWN prints."""
    capfd.readouterr()
    said = []
    for command, *options in SHOWN:
        assert vlmill(command, root, *options) == 0
        said.append(capfd.readouterr().out)
    return said


QUESTIONS = {
    "status": ("status {run}", "status {run} --json"),
    "report": ("report {run} --reason language", "report {run} --json"),
    "what-if": ("what-if {run}", "what-if {recipe} --out {run} --json"),
    "stats": ("stats {run}", "stats {run} --json"),
    "explore": ("explore {run}",),
    "diff": ("diff {run} {run}", "diff finevision {run}:align", "diff {run}:align nothing --json"),
    "trace": ("trace {run} quiz/quiz.parquet#0", "trace {run} --step 0 --json"),
    "verify": ("verify {run}", "verify {run} --json"),
    "check": ("check {recipe} --from-run {run}",),
    "export": ("export {run} --to llava --out {out}/all", "export {run} --to nothing --out {out}/one --json"),
    "train": ("train {run} --stage nowhere",),
    "evaluate": ("evaluate {run} --stage nowhere",),
}
"""What commands are asked of a run, by their names."""
READ_NOTHING = {
    *("new", "preview", "build", "schema", "mixtures list", "mixtures show", "mixtures import"),
    *("takedown", "clean"),  # one builds the run to its end, the other looks at the names of files
    "ablate",  # reuses what has the key that it wants
    "disclose",  # refuses
}


def list_commands(command, name=""):
    """The names of all commands."""
    below = getattr(command, "commands", None)
    return [name] if below is None else [one for word in below for one in list_commands(below[word], f"{name} {word}")]


def test_every_command_is_asked_or_reads_no_run():
    known = [name.strip() for name in list_commands(typer.main.get_command(cli.app))]
    assert sorted(known) == sorted([*QUESTIONS, *READ_NOTHING])


def test_every_command_that_reads_a_run_says_so_once_and_beside_json(built, tmp_path, capfd, monkeypatch):
    recipe, root = built
    monkeypatch.setattr("vlmill.explore.app.serve_run", lambda *_: None)
    named = {"run": root, "recipe": recipe, "out": tmp_path}

    change(recipe, root, "--accept-changes", "--until", "survey")
    for line in (line for lines in QUESTIONS.values() for line in lines):
        capfd.readouterr()
        vlmill(*line.format(**named).split())
        out, err = capfd.readouterr()
        said, other = (err, out) if line.endswith("--json") else (out, err)
        assert said.count(f"warning: {root} is locked to a changed recipe") == 1, line
        assert "warning: " not in other, line
    capfd.readouterr()
    assert vlmill("status", root, "--quiet") == 0
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("RANK", "1")
    assert vlmill("train", root, "--stage", "nowhere") == 1
    assert SAID not in capfd.readouterr().out, "of the processes of torchrun the first alone speaks"


def test_files_that_leave_a_run_say_so_and_are_made_anew_once_it_is_built(built, tmp_path):
    recipe, root = built
    reseed(recipe, root, "--accept-changes", "--until", "survey")
    run, out = api.open_run(root), tmp_path / "out"
    assert SAID in run.render_stats_page()
    run.export("llava", out)
    assert WARNED in (out / "README.md").read_text()
    with pytest.raises(NotBuiltError, match=SAID):
        run.disclose()
    with pytest.raises(NotBuiltError, match=SAID):
        run.disclosure_figure("total.samples")
    assert reseed(recipe, root) == 0
    assert SAID not in run.render_stats_page()
    assert api.open_run(root).export("llava", out).outcome == "replaced", "of the same samples"
    assert WARNED not in (out / "README.md").read_text()
    assert api.open_run(root).disclose()


def test_no_card_of_the_earlier_recipe_stays_where_a_build_is_interrupted(built, monkeypatch):
    recipe, root = built
    api.open_run(root).disclose()
    assert reseed(recipe, root) == 1
    assert (root / "README.md").exists(), "nothing was accepted"
    assert (root / "croissant.json").exists()

    def press_keys(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vlmill.api.builds.pin_hub_roots", press_keys)
        assert reseed(recipe, root, "--accept-changes") == 130
    assert not (root / "README.md").exists()
    assert not (root / "croissant.json").exists()
    assert reseed(recipe, root) == 0
    assert (root / "README.md").exists()
    with monkeypatch.context() as patch:
        patch.setattr("vlmill.api.builds.list_phases", press_keys)
        assert reseed(recipe, root, "--retry-failed") == 130
    assert not (root / "README.md").exists(), "a build of the same recipe may bring other things as well"


def reseed(recipe, root, *more):
    """A build that keeps as much, under another seed."""
    return vlmill("build", recipe, "--out", root, "--workers", 0, "--set", "seed=9", *more)


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


def test_what_is_broken_while_a_change_has_not_come_to_its_end_is_not_mended_by_deleting_receipts(built, capfd):
    root = built[1]
    next(root.glob("steps/quiz/read/*.samples.parquet")).unlink()
    for begun in (False, True):
        if begun:
            (root / UNBUILT).write_text("")
        capfd.readouterr()
        assert vlmill("verify", root) == 1
        said = " ".join(capfd.readouterr().out.split())
        assert ("Delete the receipts of the damaged files" in said) != begun
        assert ("A change of this run has not come to its end: first let it go on" in said) == begun


def test_python_is_warned_of_a_run_that_is_not_built_to_its_end(built):
    root = built[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_run(root)
    for begun in ("", "a takedown"):
        (root / UNBUILT).write_text(begun)
        with pytest.warns(UserWarning, match=UNBUILT_MESSAGE):
            open_run(root)


def test_a_takedown_that_is_interrupted_is_said_until_it_has_ended(built, capfd, monkeypatch):
    root = built[1]

    def press_keys(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vlmill.api.takedown.Build.curate", press_keys)
        assert vlmill("takedown", root, "--id", "quiz/quiz.parquet#0", "--workers", 0) == 130
    said = f"may hold what it takes. It goes on with: vlmill takedown {root}"
    assert all(said in text for text in show(root, capfd))
    assert not (root / "README.md").exists()
    assert vlmill("takedown", root, "--workers", 0) == 0
    assert not any(said in text for text in show(root, capfd))
    assert (root / "README.md").exists()


def test_a_folder_from_before_a_takedown_says_that_its_list_is_not_carried_out(built, tmp_path, capfd):
    root = built[1]
    backup = shutil.copytree(root, tmp_path / "backup")
    assert vlmill("takedown", root, "--id", "quiz/quiz.parquet#0", "--workers", 0) == 0
    said = f"names may still be in it, and be trained on. It is taken down by: vlmill takedown {backup}"
    shutil.copy(root / "takedowns.yaml", backup)
    assert all(said in text for text in show(backup, capfd))
    with pytest.warns(UserWarning, match=UNBUILT_MESSAGE):
        open_run(backup)
    assert vlmill("takedown", backup, "--workers", 0) == 0
    assert not any(said in text for text in show(backup, capfd))
    assert vlmill("verify", backup) == 0


def test_a_list_that_a_folder_begins_with_is_carried_out_as_it_is_built(first, tmp_path, capfd):
    root = tmp_path / "new"
    root.mkdir()
    (root / "takedowns.yaml").write_text("ids: [quiz/quiz.parquet#0]\n")
    for until in ("curate", "shard"):
        assert vlmill("build", first[0], "--out", root, "--workers", 0, "--until", until) == 0
        capfd.readouterr()
        assert vlmill("status", root) == 0
        assert "not been carried out" not in capfd.readouterr().out
    (root / "takedowns.yaml").write_text("ids: [quiz/quiz.parquet#0, quiz/quiz.parquet#1]\n")
    assert vlmill("status", root) == 0
    assert "not been carried out" in capfd.readouterr().out
    assert vlmill("build", first[0], "--out", root, "--workers", 0) == 0
    capfd.readouterr()
    assert vlmill("status", root) == 0
    assert "not been carried out" not in capfd.readouterr().out


def test_an_accepted_recipe_takes_the_place_of_a_damaged_lock(built):
    recipe, root = built
    (root / LOCK).write_text("name: [")
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 1
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--accept-changes") == 0
    assert not (root / UNBUILT).exists()
