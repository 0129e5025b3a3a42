"""The forecast of a changed recipe says what the build then does: which steps are kept, which run again, and why."""

import json
import shutil
from dataclasses import asdict

import pytest
import yaml
from tokenizers import Tokenizer

from tests.helpers.small import product, vlmill, write_recipe
from tests.helpers.upstream import cauldron, picture
from vlmill.api import checks
from vlmill.api.builds import forecast_changes, load_recipe
from vlmill.pipeline.checks import changed_inputs
from vlmill.pipeline.checks.forecast import StepForecast, describe_causes
from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.recipe.mapping import list_differences
from vlmill.pipeline.reports.verify import list_manifests

IMAGE_STEPS = {"read", "fetch", "image_stats", "signature"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("input files"))


@pytest.fixture(scope="module")
def built(recipe, tmp_path_factory):
    root = tmp_path_factory.mktemp("built") / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    return root


@pytest.fixture
def run(built, tmp_path):
    return shutil.copytree(built, tmp_path / "run")


def read_keys(root):
    """Folder -> the keys of its tasks."""
    return {
        str(path.parent.relative_to(root)): {receipt["key"] for receipt in read_json(path)["receipts"]}
        for path in list_manifests(root)
    }


def rerun(recipe, root, **settings):
    """What the forecast says runs again or anew, with its reasons; held against what a build then runs."""
    loaded = load_recipe(recipe, settings=settings)
    forecasts = {found.folder: found for found in forecast_changes(loaded, root)}
    named = {folder: found.reasons for folder, found in forecasts.items() if found.outcome in ("run", "run again")}
    before = read_keys(root)
    sets = [argument for key, value in settings.items() for argument in ("--set", f"{key}={yaml.safe_dump(value)}")]
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--accept-changes", *sets) == 0
    after = read_keys(root)
    ran = {folder for folder, keys in after.items() if keys != before.get(folder)}
    assert ran <= {*named}, "a step ran again that the forecast called kept"
    gone = {folder for folder, found in forecasts.items() if found.outcome == "removed"}
    assert {*before} - {*forecasts} <= {f"steps/{source}/outcomes" for source in loaded.recipe.sources}
    assert not gone & {*named}
    return named, ran


def test_the_same_recipe_keeps_everything(recipe, run):
    assert rerun(recipe, run) == ({}, set())


def reverse_mappings(value):
    """The same data with the keys of every mapping in reverse order."""
    if isinstance(value, dict):
        return {key: reverse_mappings(item) for key, item in reversed(value.items())}
    return [reverse_mappings(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def reversed_recipe(recipe):
    """The recipe with sources, shares and all other keys in the reverse order; the lock sorts them."""
    path = recipe.with_name("reversed.yaml")
    path.write_text(yaml.safe_dump(reverse_mappings(yaml.safe_load(recipe.read_text())), sort_keys=False))
    assert [*load_recipe(path).recipe.sources] == ["web", "scans", "quiz", "papers"]
    return path


def test_a_recipe_whose_sources_are_in_no_alphabetical_order_keeps_everything(reversed_recipe, run):
    assert rerun(reversed_recipe, run, **{"stages.align.train.steps": 1}) == ({}, set())


def test_mirrors_that_no_lock_holds_are_judged_by_what_was_made_with_them(recipe, run):
    mirrors = {"http://cdn.test/": "http://127.0.0.1:1/cdn/"}
    named, ran = rerun(recipe, run, **{"sources.web.fetch": {"mirrors": mirrors}})
    assert "steps/web/hosts" in ran
    assert named["steps/web/hosts"] == ("fetch.mirrors and serve: others there",)
    assert rerun(recipe, run, **{"sources.web.fetch": {"mirrors": mirrors}}) == ({}, set())
    named, _ = rerun(recipe, run, **{"sources.web.fetch": {"mirrors": mirrors}, "filters.shape.min_side": 33})
    assert "steps/web/shape" in named
    assert "steps/web/hosts" not in named


def test_the_order_of_sources_and_shares_in_a_recipe_changes_no_byte(reversed_recipe, built, tmp_path):
    assert vlmill("build", reversed_recipe, "--out", tmp_path / "run", "--workers", 0) == 0
    assert product(tmp_path / "run") == product(built)


def test_a_changed_tokenizer_counts_lengths_and_mixes_anew_and_nothing_else(recipe, run, tmp_path):
    copy = shutil.copytree(recipe.parent, tmp_path / "input files") / recipe.name
    tokenizer = Tokenizer.from_file(str(copy.parent / "tokenizer.json"))
    tokenizer.add_tokens(["garden", "describes"])
    tokenizer.save(str(copy.parent / "tokenizer.json"))
    named, ran = rerun(copy, run)
    assert {*named} == ran
    assert all(folder.endswith("/lengths") or folder.startswith("steps/mixtures/") for folder in named)
    assert named["shards/web/small/lengths"] == ("reads tokenizer.json",)
    assert {folder.split("/")[1] for folder in named if folder.endswith("/lengths")} == {
        "web",
        "quiz",
        "scans",
        "papers",
    }


def test_a_changed_tile_side_renders_anew_and_what_follows(recipe, run):
    named, ran = rerun(recipe, run, **{"policies.small.side": 28, "model.vision.image_size": 28})
    assert {*named} == ran
    assert named["shards/quiz/small"] == ("policy.side: 56 there, 28 here",)
    assert named["shards/quiz/small/lengths"] == ("reads shards/quiz/small",)
    assert all(folder.startswith(("shards/", "steps/mixtures/")) for folder in named)


def test_a_changed_threshold_of_a_filter_touches_no_image_before_shards(recipe, run):
    named, ran = rerun(recipe, run, **{"filters.shape.max_ratio": 9})
    assert ran >= {"steps/web/shape", "steps/quiz/shape"}
    assert named["steps/quiz/shape"] == ("filter.max_ratio: 10.0 there, 9.0 here",)
    assert not [folder for folder in named if folder.split("/")[-1] in IMAGE_STEPS]
    assert not [folder for folder in named if folder.endswith("/language")]
    assert "reads steps/quiz/shape" in named["shards/quiz/small"]


def test_another_language_model_or_training_changes_nothing_that_a_build_makes(recipe, run):
    assert rerun(recipe, run, **{"model.text.kind": "qwen2", "stages.align.train.steps": 1}) == ({}, set())


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({"partition.rows": 3}, "steps/web/survey"),
        ({"limit": 2}, "steps/quiz/read"),
        ({"image_stats.max_pixels": 10**8}, "steps/web/image_stats"),
        ({"sources.quiz.priority": 3}, "steps/dedupe/resolve"),
        ({"dedupe": None}, "shards/web/small"),
        ({"seed": 9}, "steps/mixtures/align/select"),
        ({"stages.align.mixture.epochs": 2}, "steps/mixtures/align/mix"),
        ({"stages.align.mixture.shares.web": 0.5}, "steps/mixtures/align/select"),
        ({"filters": [{"shape": {"max_ratio": 10}}]}, "steps/dedupe/resolve"),
    ],
)
def test_the_first_step_that_a_change_touches_says_why_and_no_step_before_it_runs(recipe, run, settings, first):
    named, ran = rerun(recipe, run, **settings)
    assert first in ran
    assert next(iter(named)).split("/")[-1] == first.split("/")[-1]
    assert named[first]


@pytest.fixture
def no_hashes(monkeypatch):
    """Input files are too large to be hashed for a forecast."""
    monkeypatch.setattr(changed_inputs, "MOST", 0)


@pytest.mark.usefixtures("no_hashes")
def test_of_moved_input_files_that_are_not_hashed_the_forecast_says_that_they_decide(recipe, run, tmp_path):
    (tmp_path / "moved").mkdir()
    cauldron(tmp_path / "moved/quiz.parquet", [([picture(70, (200, 90))], [("What is it?", "A garden")])])
    moves = {"quiz": f"{tmp_path}/moved/"}
    assert {found.outcome for found in forecast_changes(load_recipe(recipe), run)} == {"kept"}
    forecasts = {found.folder: found for found in forecast_changes(load_recipe(recipe, sources=moves), run)}
    unsure = {folder for folder, found in forecasts.items() if found.outcome == "run again where the files differ"}
    assert forecasts["steps/quiz/survey"].reasons == ("input files of quiz were moved",)
    assert {"steps/quiz/read", "steps/dedupe/pairs", "shards/web/small", "steps/mixtures/align/mix"} <= unsure
    assert all(found.outcome == "kept" for folder, found in forecasts.items() if folder.startswith("steps/web/"))
    before, sources = read_keys(run), ("--source", f"quiz={moves['quiz']}")
    assert vlmill("build", recipe, "--out", run, "--workers", 0, "--accept-changes", *sources) == 0
    ran = {folder for folder, keys in read_keys(run).items() if keys != before.get(folder)}
    assert "steps/quiz/read" in ran
    assert ran - {"steps/quiz/outcomes"} <= unsure


@pytest.fixture
def no_estimate(monkeypatch):
    """`check` without its estimate, which takes seconds for each source."""
    monkeypatch.setattr(checks, "_estimate_sources", lambda *_: ([], []))


@pytest.mark.usefixtures("no_estimate")
def test_check_says_what_a_build_in_a_runs_folder_does_and_changes_nothing_there(recipe, run, capsys):
    def check(*settings):
        arguments = [argument for text in settings for argument in ("--set", text)]
        assert vlmill("check", recipe, "--out", run, *arguments, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert vlmill("check", recipe, "--out", run, *arguments) == 0
        return found, " ".join(capsys.readouterr().out.split())

    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    found, said = check()
    assert (found["differences"], {step["outcome"] for step in found["forecast"]}) == ("", {"kept"})
    assert "a run of this recipe; it keeps every step (input files elsewhere, of benchmarks, and beyond" in said
    found, said = check("filters.shape.max_ratio=3")
    loaded = load_recipe(recipe, settings={"filters.shape.max_ratio": 3})
    forecasts = forecast_changes(loaded, run)
    assert found["forecast"] == [{**asdict(step), "reasons": list(step.reasons)} for step in forecasts]
    assert "filters" in found["differences"]
    assert all(word in said for word in ("--accept-changes", "what a build there does", "steps/quiz/shape"))
    found, said = check("stages.align.train.steps=1")
    assert {step["outcome"] for step in found["forecast"]} == {"kept"}
    assert (
        "A build there needs --accept-changes; it keeps every step (input files elsewhere, of benchmarks, and beyond"
        in said
    )
    assert vlmill("check", recipe, "--out", run.parent / "empty", "--json") == 0
    assert json.loads(capsys.readouterr().out)["forecast"] == []
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("no_estimate", "no_hashes")
def test_check_says_of_a_moved_source_that_the_files_decide(recipe, run, tmp_path, capsys):
    (tmp_path / "moved").mkdir()
    shutil.copyfile(recipe.parent / "quiz.parquet", tmp_path / "moved/quiz.parquet")
    assert vlmill("check", recipe, "--out", run, "--source", f"quiz={tmp_path}/moved/", "--json") == 0
    forecasts = {step["folder"]: step["outcome"] for step in json.loads(capsys.readouterr().out)["forecast"]}
    assert forecasts["steps/quiz/survey"] == "run again where the files differ"
    assert forecasts["steps/web/survey"] == "kept"


def test_input_files_that_have_changed_are_said_by_forecast_and_build(recipe, tmp_path, capsys):
    shutil.copytree(recipe.parent, tmp_path / "inputs")
    recipe, run = tmp_path / "inputs" / recipe.name, tmp_path / "run"
    assert vlmill("build", recipe, "--out", run, "--workers", 0) == 0
    said = "input files of quiz are not those that were read"
    assert said not in capsys.readouterr().out
    assert rerun(recipe, run) == ({}, set())
    assert said not in capsys.readouterr().out
    cauldron(tmp_path / "inputs/quiz.parquet", [([picture(70, (200, 90))], [("What is it?", "A garden")])])
    forecasts = {found.folder: found for found in forecast_changes(load_recipe(recipe), run)}
    assert forecasts["steps/quiz/survey"].reasons == (said,)
    assert forecasts["steps/web/read"].outcome == "kept"
    assert vlmill("build", recipe, "--out", shutil.copytree(run, tmp_path / "copy"), "--workers", 0) == 0
    assert f"{said}: what follows from them runs again" in capsys.readouterr().out
    named, ran = rerun(recipe, run)
    assert "steps/quiz/read" in ran & {*named}
    assert rerun(recipe, run) == ({}, set())


def test_moved_input_files_that_are_the_same_change_nothing(recipe, run, tmp_path):
    (tmp_path / "moved").mkdir()
    shutil.copyfile(recipe.parent / "quiz.parquet", tmp_path / "moved/quiz.parquet")
    loaded = load_recipe(recipe, sources={"quiz": f"{tmp_path}/moved/"})
    assert {found.outcome for found in forecast_changes(loaded, run)} == {"kept"}


def test_what_is_the_same_of_several_sources_is_one_line_of_the_forecast():
    why = ("filter.max_ratio: 10 there, 3 here", "reads steps/web/language")
    found = [StepForecast(f"steps/{source}/shape", "run again", 2, why) for source in ("web", "quiz")]
    found += [StepForecast("shards/web/small", "run again", 1, why), StepForecast("steps/web/survey", "kept", 1)]
    assert list(describe_causes(found)) == [
        "run again: steps/*/shape of 2 sources (4 tasks): filter.max_ratio: 10 there, 3 here",
        "run again: shards/web/small (1 tasks): filter.max_ratio: 10 there, 3 here",
        "kept: 1 steps",
    ]


def test_a_difference_names_what_lists_gain_and_lose_and_leaves_out_what_says_nothing():
    before, now = {"sources": ["a", "b", "c"]}, {"sources": ["a", "c", "d", "e"]}
    assert list_differences(before, now) == "  sources: without b and with d, e here"
    assert list_differences({"at": ["a", "b"]}, {"at": ["b", "a", "c"]}).endswith("['b', 'a', 'c'] here")
    assert list_differences({}, {"clip": {"min": 0.2, "max": None, "on": False, "of": []}}) == (
        "  clip: nothing there, {'min': 0.2, 'on': False} here"
    )


def test_a_build_prints_the_forecast_before_it_works(recipe, run, capsys):
    arguments = ("build", recipe, "--out", run, "--workers", 0, "--accept-changes")
    assert vlmill(*arguments, "--set", "filters.shape.max_ratio=3") == 0
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.splitlines() if "/shape" in line)  # what follows from it is a number
    assert "run again: steps/*/shape of 4 sources" in line
    assert "max_ratio" in printed
    assert "run again because they read these: " in printed
    assert "steps/dedupe/resolve" not in printed
    assert printed.index("what the change touches") < printed.index("curate")
    assert vlmill(*arguments, "--set", "filters.shape.max_ratio=3") == 0
    assert "what the change touches" not in capsys.readouterr().out
