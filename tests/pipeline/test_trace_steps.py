"""What trace says of the training steps that see a sample, and why none does."""

import copy
import json
from collections import Counter

import yaml

from tests.helpers.small import RECIPE, vlmill, write_recipe
from tests.helpers.upstream import cauldron, picture
from vlmill import open_run
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.reports.losses import list_losses


def test_a_sample_that_no_step_sees_says_why(tmp_path, capsys):
    (stage,) = copy.deepcopy(RECIPE["stages"])
    stage["mixture"]["shares"] = {"web": 0.5, "scans": 0.5}
    stage["train"] |= {"steps": 1, "sequences": 1}
    other = {**copy.deepcopy(stage), "name": "tune"}
    other["mixture"]["shares"] = {"quiz": 1}
    root = tmp_path / "run"
    recipe = write_recipe(tmp_path, stages=[stage, other])
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0

    def trace(name):
        capsys.readouterr()
        assert vlmill("trace", root, name) == 0
        return " ".join(capsys.readouterr().out.split())

    assert "stage align: no step sees it: its mixture does not name quiz" in trace("quiz/quiz.parquet#0")
    losses = list_losses(root, read_locked_recipe(root), "web")
    lost = next(loss for loss in losses if loss.node == -1)
    assert f"stage align: no step sees it: it was lost before: {lost.reason}" in trace(lost.id)


LEFT_OUT = {
    "entries": [{"source": "many", "share": 1, "where": "id not like '%0'", "take": "random:60%"}],
    "held_out": {"many": 0.2},
    "sequences": 3,
    "sequence_length": 128,
}


def build_many(folder, *, trained):
    """A run of one source whose mixture leaves samples out for every reason; with a stage to train or without."""
    said = [[(f"What is in {n}?", "a thing " * (90 if n % 6 == 0 else 2))] for n in range(48)]
    for turns in said[1::6]:
        turns.append(("And beside it?", "a thing " * 90))
    rows = [([picture(n, (60, 60))], turns) for n, turns in enumerate(said)]
    folder.mkdir()
    cauldron(folder / "many.parquet", rows)
    (stage,) = copy.deepcopy(RECIPE["stages"])
    stage["mixture"] = LEFT_OUT
    stage["train"] |= {"steps": 1, "sequences": 1}
    if not trained:
        del stage["train"]
    source = {"kind": "cauldron", "files": "many.parquet", "licence": "CC0-1.0"}
    recipe = write_recipe(folder, stages=[stage], sources={"many": source})
    if not trained:
        recipe.write_text(yaml.safe_dump({k: v for k, v in yaml.safe_load(recipe.read_text()).items() if k != "model"}))
    assert vlmill("build", recipe, "--out", folder / "run", "--workers", 0) == 0
    return open_run(folder / "run")


def test_every_sample_that_a_plan_leaves_out_has_the_reason_that_the_statistics_count(tmp_path):
    run = build_many(tmp_path / "in", trained=True)
    kept = [name for name in run.samples("many").collect()["id"].to_list() if not run.trace(name).outcome.sample]
    uses = {name: run.find_uses(name)["align"] for name in kept}

    found = Counter(use.why.partition(":")[0] for use in uses.values() if not use.sequences)
    (counted,) = run.stage("align").stats["sources"]
    lost = {reason: number for reason, number in counted["lost"]["samples"].items() if number}
    assert {"held_out", "not_taken", "too_long"} <= lost.keys()
    assert found.pop("no room") > 0
    assert found == lost
    planned = {str(one.id) for one in run.stage("align").samples()}
    assert planned == {sample for sample, use in uses.items() if use.sequences}
    assert {segment.id for segment in run.stage("align").list_seen(0)} == {
        sample for sample, use in uses.items() if use.steps
    }
    (late,) = {use.why for use in uses.values() if use.sequences and not use.steps}
    assert late == "its 1 steps end before they come to it"


def test_the_trace_of_a_sample_names_the_nodes_that_no_sequence_holds(tmp_path, capsys):
    run = build_many(tmp_path / "in", trained=True)
    planned = {str(one.id): one for one in run.stage("align").samples()}
    uses = {name: run.find_uses(name)["align"] for name in planned}
    cut = {name for name in planned if int(name.rpartition("#")[2]) % 6 == 1}
    assert {name for name, use in uses.items() if use.left == [3, 4]} == cut
    assert {name for name, use in uses.items() if not use.left} == planned.keys() - cut
    capsys.readouterr()
    for name, said in ((min(cut), True), (min(planned.keys() - cut), False)):
        assert vlmill("trace", run.folder, name) == 0
        assert capsys.readouterr().out.endswith("; no sequence holds its nodes 3 to 4\n") is said


def test_a_plan_that_nothing_trains_on_names_its_sequences(tmp_path, capsys):
    run = build_many(tmp_path / "in", trained=False)
    sample = str(next(run.stage("align").samples()).id)
    capsys.readouterr()
    assert vlmill("trace", run.folder, sample) == 0
    assert "stage align: packed sequences 0 (the stage has no train block)" in capsys.readouterr().out
    assert vlmill("trace", run.folder, "--step", 0) == 1
    assert "stages.align: it has no train block" in capsys.readouterr().err
    assert vlmill("trace", run.folder, sample, "--json") == 0
    assert json.loads(capsys.readouterr().out)["stages"]["align"]["sequences"] == [0]
