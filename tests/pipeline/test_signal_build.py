"""Builds with signals: the same bytes with any number of workers, thresholds without models, columns, takedowns."""

from __future__ import annotations

import hashlib
import json
import shutil

import polars as pl
import pytest
import yaml

from tests.helpers import models
from tests.helpers.signals import SIGNALS
from tests.helpers.small import RECIPE, product, vlmill, write_recipe
from vlmill.pipeline.checks.signal_costs import read_signal_speeds
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.sample import read_samples
from vlmill.pipeline.engine.partition_tables import list_raw_tables
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.reports.sections import read_report
from vlmill.pipeline.reports.signals import read_signals
from vlmill.pipeline.reports.status import read_progress
from vlmill.pipeline.reports.verify import verify_run
from vlmill.pipeline.reports.what_if import answer_what_if
from vlmill.pipeline.signals.worker import SignalWorker

VALUES = ("red", "seen_count", "seen_area", "seen_largest", "size", "wow")
KINDS = ("redness", "exclamations", "fragile")
NOTHING = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Nothing:
    name = "nothing"
    of = "texts"

    def score(self, model, batch):
        return [float("nan")] * batch.size
"""
BOUNDS = {"any": {"red": {"min_quantile": 0.4, "by_source": True}, "size": {"max": 385}}}


def recipe_blocks():
    stage = RECIPE["stages"][0]
    mixture = {
        "entries": {"web": 0.5, "quiz": {"share": 0.5, "where": "red > 0.6 and wow_max <= 3"}},
        "epochs": 1,
        "sequence_length": 512,
    }
    return {
        "sources": {name: RECIPE["sources"][name] for name in ("web", "quiz")},
        "signals": {
            "red": {"kind": "redness"},
            "wow": {"kind": "exclamations", "mark": "e"},
            "size": {"kind": "fragile"},
            "seen": {"kind": "faces", "model": "faces.onnx", "confidence": 0.5, "longest": 160},
        },
        "filters": [{"language": {"drop": ["zh"]}}, {"threshold": BOUNDS}],
        "stages": [{**stage, "mixture": mixture}],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    pytest.importorskip("cv2")
    write_recipe(folder, **recipe_blocks())
    models.save_centerface(folder / "faces.onnx")
    (folder / "signals.py").write_text(SIGNALS)
    assert build(folder, "run", 0) == 0
    return folder


def build(folder, out, workers, *more):
    named = ("--filter", folder / "signals.py")
    return vlmill("build", folder / "recipe.yaml", "--out", folder / out, "--workers", workers, *named, *more)


def read_tables(root, name, source="web"):
    return pl.concat(pl.read_parquet(path) for path in sorted(root.glob(f"steps/{source}/{name}/*.scores.parquet")))


def hash_steps(root):
    names = ("red", "wow", "size", "seen", "threshold", "quantiles")
    files = sorted(path for name in names for path in root.glob(f"steps/*/{name}/*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def forbid_models(monkeypatch):
    def refuse(*_):
        raise AssertionError("a model was asked")

    monkeypatch.setattr(SignalWorker, "score_chunk", refuse)


def test_the_scores_are_the_same_bytes_with_any_number_of_workers(folder):
    assert build(folder, "workers", 2, "--until", "signals") == 0
    assert hash_steps(folder / "workers") == hash_steps(folder / "run")


def test_the_values_are_those_of_each_text_and_image(folder):
    root = folder / "run"
    recipe = read_locked_recipe(root)
    tables = [at.paths(root) for at in list_raw_tables(root, recipe, "web")]
    texts = [
        node.text
        for paths in tables
        for sample in read_samples(paths["samples.parquet"])
        for node in sample.nodes
        if node.text
    ]
    assert read_tables(root, "wow")["wow"].to_list() == [text.count("e") for text in texts]
    assert read_tables(root, "size")["size"].to_list() == [len(text) for text in texts]
    assert read_tables(root, "red")["red"].is_between(0.2, 0.9).all()


def test_what_lies_beyond_a_bound_is_dropped_with_the_signal_as_its_reason(folder):
    root = folder / "run"
    funnel = read_funnel(root)
    red, size = read_tables(root, "red"), read_tables(root, "size")
    cuts = json.loads(next(root.glob("steps/signals/quantiles/*quantiles.json")).read_text())
    below = (red["red"] < cuts["red 0.4 web"]).sum()
    assert below >= 1
    verdicts = pl.concat(pl.read_parquet(path) for path in root.glob("steps/web/threshold/*.verdicts.parquet"))
    counted = dict(verdicts["reason"].value_counts().iter_rows())
    assert counted == {"signal:red": below, "signal:size": (size["size"] > 385).sum()}
    assert funnel["web"]["nodes"]["dropped"]["signal:red"] >= 1
    assert list(verify_run(root)) == []


def test_another_threshold_asks_no_model_and_what_if_says_what_it_comes_to(folder, monkeypatch):
    forbid_models(monkeypatch)
    changed = {"threshold.any.red.min_quantile": "0.6"}
    _, answer = answer_what_if(str(folder / "recipe.yaml"), folder / "run", changed, [("signals.py", SIGNALS)])
    assert answer.changes
    root = shutil.copytree(folder / "run", folder / "changed")
    before = {
        name: path for name, path in hash_steps(root).items() if "threshold" not in name and "quantiles" not in name
    }
    assert build(folder, "changed", 0, "--accept-changes", "--set", "threshold.any.red.min_quantile=0.6") == 0
    after = hash_steps(root)
    assert {name: after[name] for name in before} == before
    funnel = read_funnel(root)
    for source, levels in answer.sources.items():
        for level, kept in levels.items():
            assert kept.then == funnel[source][level]["kept"]


def test_a_model_that_changed_has_to_be_built(folder):
    changed = {"signals.wow.mark": "'?'"}
    with pytest.raises(RecipeError, match="this has to be built"):
        answer_what_if(str(folder / "run"), None, changed, [("signals.py", SIGNALS)])


def test_only_what_has_no_scores_is_scored_again(folder, monkeypatch):
    root = shutil.copytree(folder / "run", folder / "again")
    receipt = min((root / "steps/web/wow").glob("*.receipt.json"))
    receipt.unlink()
    asked = []
    original = SignalWorker.score_chunk
    monkeypatch.setattr(
        SignalWorker, "score_chunk", lambda self, chunk: asked.append(self.name) or original(self, chunk)
    )
    assert build(folder, "again", 0) == 0
    assert asked == ["wow"]
    assert hash_steps(root) == hash_steps(folder / "run")
    assert product(root) == product(folder / "run")


def test_a_mixture_sees_signals_as_columns_of_what_is_in_the_shards(folder):
    root = folder / "run"
    (shards,) = root.glob("shards/quiz/small/signals/*0000-0000*.signals.parquet")
    table = pl.read_parquet(shards)
    assert table.columns == [
        "row",
        *(f"{name}{end}" for name in VALUES for end in ("", "_min", "_max")),
    ]
    index = pl.read_parquet(next(root.glob("shards/quiz/small/*0000-0000*.index.parquet")))
    scores = pl.read_parquet(next(root.glob("steps/quiz/wow/00000-0000*.scores.parquet")))
    for row, key in index.select("row", "key").iter_rows():
        values = scores.filter(pl.col("sample") == int(key[-6:]))["wow"]
        assert table.row(row, named=True)["wow_max"] == values.max()
        assert table.row(row, named=True)["wow"] == pytest.approx(values.mean(), abs=1e-5)
    everything = pl.concat(pl.read_parquet(path) for path in root.glob("shards/quiz/small/signals/*.signals.parquet"))
    taken = everything.filter((pl.col("red") > 0.6) & (pl.col("wow_max") <= 3)).height
    assert 0 < taken < everything.height
    stats = json.loads((root / "mixtures/align/stats.json").read_text())
    (quiz,) = (source for source in stats["sources"] if source["name"] == "quiz")
    assert quiz["available"]["samples"] == taken
    assert vlmill("verify", root) == 0


def test_reports_show_every_signal_without_its_code(folder, capsys):
    root = folder / "run"
    found = {(one.value, one.source): one for one in read_signals(root)}
    red = found["red", "web"]
    assert sum(red.counts) == red.number == read_tables(root, "red").height
    assert red.edges == found["red", "quiz"].edges
    assert red.bounds[0][0] == pytest.approx(
        json.loads(next(root.glob("steps/signals/quantiles/*quantiles.json")).read_text())["red 0.4 web"]
    )
    assert found["size", "quiz"].bounds == ((None, 385.0),)
    assert vlmill("report", root, "--section", "signals") == 0
    assert "at most 385" in capsys.readouterr().out
    assert vlmill("report", root, "--json") == 0
    assert {one["value"] for one in json.loads(capsys.readouterr().out)["signals"]} == set(VALUES)
    phases = {(step.step, step.phase) for step in read_progress(root)}
    assert {("red", "signals"), ("threshold", "signals"), ("quantiles", "signals"), ("language", "curate")} <= phases
    page = folder / "stats.html"
    assert vlmill("stats", root, "--html", page) == 0
    assert all(f"Signal {name}" in page.read_text() for name in VALUES)


def test_the_api_gives_scores_as_frames(folder):
    import vlmill as api

    run = api.open_run(folder / "run")
    frame = run.scores("wow", "web").collect()
    assert frame.columns == ["source", "partition", "sample", "node", "reason", "wow"]
    assert frame["wow"].to_list() == read_tables(folder / "run", "wow")["wow"].to_list()
    assert set(run.scores("red").collect()["source"]) == {"web", "quiz"}
    with pytest.raises(StoreError, match="no signal 'wov'; did you mean 'wow'"):
        run.scores("wov")
    found, counts = run.detections("seen", "web").collect(), run.scores("seen", "web").collect()
    assert found.columns[2:] == ["sample", "node", "left", "top", "right", "bottom", "confidence", "text"]
    assert found.height == counts["seen_count"].sum() > 0
    with pytest.raises(StoreError, match="no signal with boxes 'red'; red is a signal; allowed: seen"):
        run.detections("red")


def test_a_recipe_without_signals_has_no_such_section(folder):
    (folder / "none").mkdir()
    recipe = write_recipe(folder / "none", stages=[], sources={"quiz": RECIPE["sources"]["quiz"]})
    root = folder / "none/run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--until", "curate") == 0
    assert "signals" not in read_report(root).to_json()
    with pytest.raises(StoreError, match="has no signals, so no model was asked"):
        read_report(root, "signals")


def test_a_signal_without_a_value_in_a_source_is_said_by_build_log_report_and_stats(folder, tmp_path, capsys):
    recipe = write_recipe(
        tmp_path,
        stages=[],
        sources={"quiz": RECIPE["sources"]["quiz"]},
        signals={"odd": {"kind": "nothing"}, "wow": {"kind": "exclamations"}},
    )
    (tmp_path / "signals.py").write_text(SIGNALS)
    (tmp_path / "nothing.py").write_text(NOTHING)
    named = [part for file in ("signals.py", "nothing.py") for part in ("--filter", tmp_path / file)]
    root = tmp_path / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--until", "signals", *named) == 0
    asked = read_tables(root, "wow", "quiz").height
    message = f"signal odd has no value in source quiz: it was asked {asked} times (no_value {asked});"
    assert message in " ".join(capsys.readouterr().out.split())
    events = [json.loads(line) for line in (root / "logs/events.jsonl").read_text().splitlines()]
    assert next(one["message"] for one in events if "no value" in one.get("message", "")).startswith(message)
    assert vlmill("stats", root) == 1  # it has no stages
    assert message in " ".join(capsys.readouterr().out.split())
    assert vlmill("report", root, "--section", "signals") == 0
    assert message in " ".join(capsys.readouterr().out.split())
    assert read_report(folder / "run", "signals").silent is None


def test_a_taken_down_image_takes_its_scores_along(folder):
    root = shutil.copytree(folder / "run", folder / "taken")
    before = read_tables(root, "wow", "quiz")
    named = ("--filter", folder / "signals.py")
    assert vlmill("takedown", root, "--id", "quiz/quiz.parquet#1", "--workers", 0, *named) == 0
    assert vlmill("verify", root) == 0
    after = read_tables(root, "wow", "quiz")
    assert after.height == before.height - 4  # questions and answers
    (table,) = root.glob("steps/quiz/red/00000-0000*.scores.parquet")
    assert 1 not in pl.read_parquet(table)["sample"]
    (table,) = root.glob("steps/quiz/seen/00000-0000*.detections.parquet")
    assert pl.read_parquet(table)["sample"].unique().sort().to_list() == [0, 2, 3, 4]


def test_until_curate_no_model_is_asked(folder, monkeypatch):
    forbid_models(monkeypatch)
    assert build(folder, "early", 0, "--until", "curate") == 0
    assert not (folder / "early/steps/web/red").exists()
    assert read_funnel(folder / "early")["web"]["samples"]["kept"] > 0


# -- recipes -----------------------------------------------------------------------------------------------------------


def load(tmp_path, **changes):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "stages": [], **changes}))
    return load_recipe(str(path), filters=[("signals.py", SIGNALS)])[0]


def test_a_signal_of_a_file_that_no_entry_names_goes_by_its_own_name(tmp_path):
    recipe = load(tmp_path, signals={"red": {"kind": "redness", "resources": {"cpus": 2}}})
    assert {name: signal.kind for name, signal in recipe.signals.items()} == {
        "red": "redness",
        "exclamations": "exclamations",
        "fragile": "fragile",
    }
    assert recipe.signals["red"].resources.cpus == 2
    assert recipe.list_values() == ("exclamations", "fragile", "red")


RATED = {"kind": "table", "files": "a", "options": {"image": "a", "caption": "b", "signals": ["score"]}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signals": {"a": {"kind": "rednes"}}}, r"signals.a.kind: 'rednes' is unknown; .* comes with --filter FILE"),
        ({"signals": {"shape": {"kind": "redness"}}}, "signals: 'shape': this name is taken"),
        ({"signals": {"A-b": {"kind": "redness"}}}, "signals: 'A-b' is to name a column"),
        ({"signals": {"red": {"kind": "redness", "seconds": "long"}}}, "signals.red.seconds: .*not 'long'"),
        (
            {"signals": {"wow": {"kind": "exclamations", "marc": "?"}}},
            r"signals.wow .*: unknown key",
        ),
        ({"signals": {"wow": {"kind": "exclamations", "mark": 3}}}, r"signals.wow \(kind .*\).mark: .*not 3"),
        (
            {"filters": [{"threshold": {"any": {"rednes": {"min": 1}}}}]},
            "no signal of the recipe gives 'rednes'; did you mean 'redness'",
        ),
        (
            {
                "filters": [{"threshold": {"any": {"score": {"min": 1}}}}],
                "sources": {"mine": {"kind": "chat", "files": "a"}, "rated": RATED},
            },
            r"gives 'score'; .*\. It comes with the rows of rated: docs/sources\.md has",
        ),
        ({"filters": [{"threshold": None}]}, "filters.threshold: it has no bounds; give"),
        (
            {"filters": [{"threshold": {"any": {"redness": {"min": 1, "sources": ["wbe"]}}}}]},
            "filters.threshold: the recipe has no source 'wbe'; did you mean 'web'",
        ),
        ({"filters": [{"threshold": {"any": {"redness": {"min": 2, "max": 1}}}}]}, "min 2.0 is above max 1.0"),
        ({"filters": [{"threshold": {"any": {"redness": {}}}}]}, "a bound needs one of min, max"),
    ],
)
def test_what_a_recipe_cannot_mean_is_said_before_any_work(tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        load(tmp_path, **changes)


def test_a_condition_on_a_signal_that_is_not_there_is_refused(tmp_path):
    from vlmill.mixtures.build import validate_mixtures

    blocks = recipe_blocks()
    blocks["stages"][0]["mixture"]["entries"]["quiz"]["where"] = "rd > 0.5"
    with pytest.raises(RecipeError, match=r"where of 'quiz': 'rd > 0.5' is no condition .*red_min"):
        validate_mixtures(load(tmp_path, **blocks))
    with pytest.raises(RecipeError, match="signals: 'text' is a column of shards already"):
        validate_mixtures(load(tmp_path, signals={"text": {"kind": "redness"}}))


# -- what they would cost ----------------------------------------------------------------------------------------------


def test_check_says_how_much_each_signal_is_asked_and_its_time_where_a_build_has_timed_it(folder, capsys):
    named = ("--filter", folder / "signals.py")
    root = folder / "run"

    assert vlmill("check", folder / "recipe.yaml", "--out", root, *named, "--json") == 0
    found = {one["signal"]: one for one in json.loads(capsys.readouterr().out)["signals"]}
    for name, of in (("red", "images"), ("wow", "texts"), ("size", "texts")):
        tables = [read_tables(root, name, source) for source in ("web", "quiz")]
        asked = sum(table.filter(pl.col("reason").is_null()).height for table in tables)
        assert found[name]["of"] == of
        assert asked <= found[name]["units"] <= 1.5 * asked  # images that are lost are not known before
        assert found[name]["seconds"] > 0
    other = load_recipe(
        str(folder / "recipe.yaml"), sets={"signals.wow.mark": "'?'"}, filters=[("signals.py", SIGNALS)]
    )
    speeds = read_signal_speeds(root, other[0])
    assert speeds.keys() >= {"red", "size"}
    assert "wow" not in speeds
    assert speeds["size"] * found["size"]["units"] == pytest.approx(found["size"]["seconds"])
    assert vlmill("check", folder / "recipe.yaml", "--out", folder / "nothing", *named) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"red {found['red']['units']:,} images, " in said
    assert "wow not timed there" in said
