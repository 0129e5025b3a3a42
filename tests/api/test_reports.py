"""What a run reports and does through the API: the same as the commands, as frames and frozen objects."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

import vlmill
from tests.helpers.small import product, write_recipe
from tests.helpers.small import vlmill as vlmill_command
from tests.helpers.upstream import json_array, picture, separated, talk
from vlmill.pipeline.cli import app
from vlmill.pipeline.engine.executor import Inline
from vlmill.pipeline.reports.refused import describe_refused

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    return vlmill.build(write_recipe(folder / "input files"), folder / "run", workers=0)


def printed(*arguments):
    """What a command prints with --json."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


# -- status


def test_a_built_run_is_complete_in_the_order_of_its_work(run):
    steps = run.status().steps
    assert all(step.complete and step.done == step.tasks for step in steps)
    phases = list(dict.fromkeys(step.phase for step in steps))
    assert phases == ["survey", "curate", "dedupe", "shard", "mixture"]
    web = [step.step for step in steps if step.of == "web"]
    assert web == [
        *("survey", "read", "hosts", "fetch", "image_stats", "language", "shape", "signature"),
        *("render small", "lengths small"),
    ]
    assert [step.of for step in steps if step.step == "plan"] == ["align"]
    assert printed("status", run.folder) == json.loads(json.dumps(asdict(run.status())))


def test_a_step_without_a_manifest_says_how_many_tasks_are_left_and_of_which_source(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    (tmp_path / "run/steps/quiz/shape/manifest.json").unlink()
    next((tmp_path / "run/steps/quiz/shape").glob("*.receipt.json")).unlink()
    (step,) = [step for step in vlmill.open_run(tmp_path / "run").status().steps if not step.complete]
    assert (step.step, step.of, step.tasks - step.done) == ("shape", "quiz", 1)
    shown = CliRunner().invoke(app, ["status", str(tmp_path / "run")]).output
    line = next(line.split() for line in shown.splitlines() if line.split()[:1] == ["shape"])
    assert line[-3:] == ["1", "of", "quiz"]
    assert int(line[1]) == int(line[3]) - 1


# -- report


def test_overlap_is_what_the_command_prints_and_counts_repetitions(run):
    found = run.overlap()
    assert found.to_dicts() == printed("report", run.folder, "--section", "overlap")["overlap"]
    assert found.filter((pl.col("source") == "web") & (pl.col("content") == "texts"))["other"].to_list() == [
        *run.sources
    ]
    assert found["near"].sum() > 0


def test_losses_come_to_what_the_funnel_says(run):
    found = Counter((loss.source, str(loss.reason)) for loss in run.losses() if loss.kind == "sample")
    lost = run.funnel().filter((pl.col("level") == "samples") & (pl.col("outcome") != "kept"))
    assert found == {
        (source, reason): count for source, reason, count in lost.select("source", "reason", "count").rows()
    }
    assert {loss.source for loss in run.losses("web")} == {"web"}


def test_examples_of_losses_are_those_of_the_command(run):
    shown = printed("report", run.folder, "--reason", "language", "--examples", 1)["examples"]
    (loss,) = run.sample_losses("language", examples=1)
    assert [loss.id] == [example["id"] for example in shown]
    with pytest.raises(vlmill.StoreError, match="did you mean 'language'"):
        run.sample_losses("langage")


@pytest.mark.parametrize(
    "options",
    ["stats", "train", "evaluate", "trace --step 0", "export --to llava --out nowhere"],
)
def test_a_source_where_a_stage_is_wanted_is_said_to_be_one(run, options, capsys):
    command, *others = options.split()
    assert vlmill_command(command, run.folder, *others, "--stage", "web") == 1
    assert "web is a source; allowed: align" in " ".join(capsys.readouterr().err.split())


def test_tables_say_what_a_name_is_that_is_not_theirs(run):
    with pytest.raises(vlmill.StoreError, match="align is a stage; allowed: papers"):
        run.samples("align")
    with pytest.raises(vlmill.StoreError, match="web is a source; allowed: dedupe"):
        run.verdicts(step="web")
    with pytest.raises(vlmill.StoreError, match="shape is a filter; allowed: none"):
        run.scores("shape")
    with pytest.raises(vlmill.StoreError, match="small is an image policy; allowed: align"):
        run.stage("small")


def test_verdicts_of_a_filter_are_there_before_dedupe_is_done(tmp_path):
    recipe = write_recipe(tmp_path / "input files")
    loaded = vlmill.load_recipe(recipe, filters=[EXAMPLES / "filters/shouting.py"], settings={"shouting.share": 0.01})
    run = vlmill.build(loaded, tmp_path / "run", workers=0, until="curate")
    with pytest.raises(vlmill.NotBuiltError, match=r"resolve is not complete"):
        run.verdicts()
    own = run.verdicts(step="shouting").collect()
    assert set(own["filter"]) == {"shouting"}
    assert own.equals(pl.concat([run.verdicts(source, step="shouting").collect() for source in run.sources]))
    with pytest.raises(vlmill.StoreError, match="did you mean 'shouting'"):
        run.verdicts(step="shoutin")
    with pytest.raises(vlmill.NotBuiltError):
        run.overlap()


def test_pages_are_those_of_the_commands(run, tmp_path):
    pages = {"report": run.render_report_page(), "stats": run.render_stats_page()}
    for name, text in pages.items():
        assert CliRunner().invoke(app, [name, str(run.folder), "--html", str(tmp_path / name)]).exit_code == 0
        assert (tmp_path / name).read_text(encoding="utf-8") == text
    assert 'id="overlap"' in pages["report"]
    assert "compared with no benchmark" in pages["report"], "a section that is not there says why"


def test_contamination_and_its_findings_name_sample_and_item(tmp_path):
    (tmp_path / "0.png").write_bytes(picture(0, (96, 96)))
    question = "Which animal sits on the third branch of the old tree behind the red house?"
    json_array(
        tmp_path / "rows.json",
        [{"image": "0.png", "conversations": talk(f"<image>{question}", "A squirrel sits there")}],
    )
    separated(tmp_path / "exam.tsv", [{"question": question, "answer": "A squirrel", "image": ""}])
    exam = {"files": {"test": "exam.tsv"}, "options": {"question": "question", "answers": "answer"}}
    sources = {"talk": {"kind": "llava", "files": "rows.json"}}
    recipe = write_recipe(tmp_path, sources=sources, filters=[], stages=[], decontaminate={"against": {"exam": exam}})
    run = vlmill.build(recipe, tmp_path / "run", workers=0)
    (finding,) = run.findings("talk").collect().to_dicts()
    assert (finding["id"], finding["kind"], finding["benchmark"]) == ("talk/rows.json#0", "text", "exam.test")
    assert run.samples().collect()["id"][finding["sample"]] == finding["id"]
    line = run.contamination(examples=1).benchmarks["exam.test"].sources["talk"]
    assert (line.items.any, line.samples.text, line.samples.image) == (1, 1, 0)
    assert [(pair.sample, pair.item, pair.by) for pair in line.examples] == [
        (finding["id"], finding["item"], ("text",))
    ]
    with pytest.raises(vlmill.StoreError, match="did you mean 'talk'"):
        run.findings("talks")
    assert 'id="contamination"' in run.render_report_page()


def test_a_run_without_benchmarks_says_how_to_name_some(run):
    for ask in (run.contamination, run.findings):
        with pytest.raises(vlmill.NotBuiltError, match="add a decontaminate block"):
            ask()


# -- trace


def test_a_refused_row_is_no_sample_and_is_traced_as_what_it_is(tmp_path):
    rows = [
        {"id": "s1-003", "conversations": talk("What is it?", "A cup on a table")},
        {"id": "s1-004", "conversations": "no list"},
        {"id": "twice", "conversations": talk("And\n\nthis?", "A bowl.")},
        {"id": "twice", "conversations": "nothing"},
    ]
    json_array(tmp_path / "rows.json", rows)
    recipe = write_recipe(tmp_path, sources={"talk": {"kind": "llava", "files": "rows.json"}}, filters=[], stages=[])
    run = vlmill.build(recipe, tmp_path / "run", workers=0)
    (refused,) = run.trace_refused("talk/rows.json#1")
    assert (refused.reason, refused.kind) == ("bad_row", "row")
    with pytest.raises(vlmill.StoreError, match="no sample was made of this row"):
        run.trace("talk/rows.json#1")
    assert run.trace_refused("talk/rows.json#0") == []

    assert run.trace_refused("s1-004") == [refused]
    assert [loss.upstream_id for loss in run.sample_losses("bad_row", examples=2)] == ["s1-004", "twice"]
    assert str(run.trace("s1-003").sample.id) == "talk/rows.json#0"
    assert "  upstream id   s1-003" in run.trace("s1-003").list_parts()
    assert "  upstream id   s1-004" in describe_refused([refused])
    with pytest.raises(
        vlmill.StoreError, match=r"2 samples or lost rows .*: talk/rows.json#2, talk/rows.json#3; .*row_ids"
    ):
        run.trace("twice")
    assert r"user: And\n\nthis?" in "".join(run.trace("talk/rows.json#2").list_parts())


def test_steps_of_a_sample_and_samples_of_a_step_say_the_same(run):
    stage = run.stage("align")
    steps = range(2)  # of the recipe
    seen = [{segment.id for segment in stage.list_seen(step)} for step in steps]
    assert seen[0]
    for name in seen[0] | seen[1]:
        assert run.find_steps(name) == {"align": [step for step in steps if name in seen[step]]}
    with pytest.raises(vlmill.RecipeError, match="has steps 0 to 1"):
        stage.list_seen(2)


def test_a_trace_for_machines_has_every_node_with_its_reason_and_the_steps(run):
    name = "web/web.parquet#7"
    found, traced = printed("trace", run.folder, name), run.trace(name)
    assert [node["reason"] for node in found["nodes"]] == list(traced.outcome.nodes)
    assert "not_an_image" in [node["image"]["reason"] for node in found["nodes"] if node["image"]]
    assert found["steps"] == run.find_steps(name)
    assert found["shards"] == traced.shards
    seen = printed("trace", run.folder, "--step", 0)
    assert [segment["id"] for segment in seen] == [segment.id for segment in run.stage("align").list_seen(0)]


WORK = {"build", "train", "ablate", "disclose", "preview", "schema", "mixtures import", "explore"}
"""Commands that make files, serve, or print YAML or JSON as it is."""


def test_every_command_that_answers_prints_json_too():
    def list_commands(command, name=""):
        below = getattr(command, "commands", {})
        if not below:
            yield name, {option for parameter in command.params for option in parameter.opts}
        for word, item in below.items():
            yield from list_commands(item, f"{name} {word}".strip())

    answering = dict(list_commands(typer.main.get_command(app)))
    assert {name for name, options in answering.items() if "--json" not in options} == WORK
    listed = vlmill.list_published()["name"].to_list()
    assert [line["name"] for line in printed("mixtures", "list")] == listed
    shares = printed("mixtures", "show", "the_cauldron")["entries"]
    assert [line["entry"] for line in shares] == vlmill.compare_published("the_cauldron")["entry"].to_list()


def test_a_broken_promise_is_json_and_an_exit_status(run, tmp_path):
    assert printed("verify", run.folder) == []
    shutil.copytree(run.folder, tmp_path / "run")
    next((tmp_path / "run/shards").rglob("*.tar")).write_bytes(b"")
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "run"), "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout) == vlmill.open_run(tmp_path / "run").verify() != []


# -- takedown


def test_a_dry_takedown_changes_nothing_and_a_real_one_does_what_the_command_does(run, tmp_path):
    for name in ("api", "command"):
        shutil.copytree(run.folder, tmp_path / name)
    copy, sample = vlmill.open_run(tmp_path / "api"), "web/web.parquet#0"
    before = product(copy.folder)
    planned = copy.takedown(ids=[sample], dry_run=True, workers=0)
    assert (planned.done, planned.new) == (False, (f"id {sample}",))
    assert sample in planned.forecast.samples
    assert product(copy.folder) == before
    done = copy.takedown(ids=[sample], workers=0)
    assert (done.done, dict(done.stages)) == (True, {"align": False})
    assert done.forecast == planned.forecast
    arguments = ["takedown", str(tmp_path / "command"), "--id", sample, "--workers", "0"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert product(copy.folder) == product(tmp_path / "command") != before
    assert copy.verify() == []
    assert copy.trace(sample).taken_down == f"id {sample}"


def test_a_dry_takedown_of_a_run_with_models_asks_none_and_says_how_far_it_is(run, monkeypatch):
    monkeypatch.setattr(type(run.recipe), "list_needs", lambda _: {"models": True, "gpus": False})
    monkeypatch.setattr("vlmill.pipeline.engine.executor._open_ray", lambda *_, **__: pytest.fail("Ray was started"))
    said = StringIO()
    run.takedown(ids="web/web.parquet#0", dry_run=True, console=Console(file=said, width=200))
    assert [line.split(":")[1].split()[0] for line in said.getvalue().splitlines()] == ["ids", "rows", "match"]


def test_a_takedown_says_that_it_starts_ray(run, monkeypatch):
    monkeypatch.setattr(type(run.recipe), "list_needs", lambda _: {"models": True, "gpus": False})
    monkeypatch.setattr("vlmill.pipeline.engine.executor._open_ray", lambda *_, **__: nullcontext(Inline()))
    monkeypatch.setattr("vlmill.api.takedown._carry_out", lambda *_: {})
    said = StringIO()
    run.takedown(ids="web/web.parquet#0", console=Console(file=said, width=200))
    assert said.getvalue().startswith("starting Ray\n")


def test_a_takedown_of_nothing_is_refused(run):
    with pytest.raises(vlmill.StoreError, match="say what to take down"):
        run.takedown(workers=0)
