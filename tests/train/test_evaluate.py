"""Scoring a trained stage again, and what a training leaves of its held-out samples."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch
from rich.console import Console

from tests.helpers import manual
from tests.helpers.small import RECIPE, picture, vlmill, write_recipe
from tests.helpers.stages import (
    COLOURS,
    MACHINE,
    lock_recipe,
    model_settings,
    published,
    question,
    write_run,
)
from tests.helpers.upstream import cauldron
from vlmill import open_run
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.train import loop
from vlmill.train.evaluate import (
    Answered,
    HeldOut,
    Score,
    make_score_table,
    read_answers,
    summarise_scores,
    write_answers,
)
from vlmill.train.run import evaluate_stage, train_stages

RATES = {"text": 3e-3, "vision": 3e-3, "projector": 3e-3}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one stage, trained; nine samples are held out, the stage's own evaluation asks eight."""
    root = tmp_path_factory.mktemp("run")
    write_run(root, {"quiz": [question(number) for number in range(40)]}, hold_out=9, length=96)
    lock_recipe(root, {"steps": 5, "sequences": 2, "learning_rate": RATES, "evaluate": 8})
    train_stages(root, None, MACHINE, Console(quiet=True))
    return root


def result(run):
    return json.loads((run / "train" / "align" / "result.json").read_bytes())["scores"]


def test_a_training_leaves_every_answer_beside_its_scores(run):
    found = read_answers(run / "train" / "align" / "held_out.jsonl")
    assert len(found) == 8
    assert len({sample.id for sample in found}) == 8
    assert all(sample.source == "quiz" and sample.loss > 0 and sample.supervised > 0 for sample in found)
    ((turn,),) = {sample.answers for sample in found[:1]}
    assert turn.question == "What colour is it?"
    assert turn.reference in COLOURS
    assert {
        name: asdict(score) for name, score in summarise_scores(found, PlannedMixture(run, "align")).items()
    } == result(run)


def test_a_stage_scored_again_scores_the_same(run, tmp_path):
    name, found = evaluate_stage(run, machine=MACHINE)
    assert name == "align"
    assert {source: asdict(score) for source, score in found.items()} == result(run)
    assert vlmill("evaluate", run, "--answers", tmp_path / "new" / "answers.jsonl") == 0
    assert read_answers(tmp_path / "new" / "answers.jsonl") == read_answers(run / "train" / "align" / "held_out.jsonl")
    open_run(run).evaluate(samples=2, machine=MACHINE, answers=tmp_path / "two.jsonl")
    assert len(read_answers(tmp_path / "two.jsonl")) == 2
    _, more = evaluate_stage(run, "align", samples=50, machine=MACHINE)
    assert more["quiz"].samples == 9  # all there are


def test_scoring_a_model_of_an_earlier_plan_warns_that_it_may_have_seen_the_samples(run, tmp_path, capsys):
    assert vlmill("evaluate", run) == 0
    assert "earlier plan" not in capsys.readouterr().err
    shutil.copytree(run / "train", tmp_path / "run" / "train")
    shutil.copyfile(run / "recipe.lock.yaml", tmp_path / "run" / "recipe.lock.yaml")
    write_run(tmp_path / "run", {"quiz": [question(number) for number in range(40)]}, hold_out=12, length=96)
    for more in ([], ["--json"], ["--export", tmp_path / "run" / "train" / "align" / "export"]):
        assert vlmill("evaluate", tmp_path / "run", *more) == 0
        assert "warning: align: its model was trained on an earlier plan: of the" in capsys.readouterr().err


def test_an_export_scores_as_the_stage_that_it_came_from(run):
    _, found = evaluate_stage(run, export=run / "train" / "align" / "export", machine=MACHINE)
    for name, value in asdict(found["quiz"]).items():
        assert value == pytest.approx(result(run)["quiz"][name], rel=1e-5)


@pytest.mark.parametrize("published_in", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stage_on_towers_in_half_precision_is_scored_and_so_is_its_export(tmp_path, dtype, published_in):
    write_run(tmp_path, {"quiz": [question(number) for number in range(40)]}, hold_out=4, length=96)
    settings = {"steps": 3, "sequences": 2, "learning_rate": RATES, "evaluate": 4, "dtype": dtype}
    lock_recipe(tmp_path, settings, model=published(tmp_path / "published", published_in))
    (trained,) = train_stages(tmp_path, None, MACHINE, Console(quiet=True))
    _, again = evaluate_stage(tmp_path, machine=MACHINE)
    assert again == trained.scores
    _, exported = evaluate_stage(tmp_path, export=trained.export, machine=MACHINE)
    assert exported["quiz"].loss == pytest.approx(trained.scores["quiz"].loss, rel=0.02)
    assert exported["quiz"].loss != trained.scores["quiz"].loss  # of weights that were rounded


def test_another_dtype_of_the_export_trains_nothing_again(tmp_path, monkeypatch):
    write_run(tmp_path, {"quiz": [question(number) for number in range(20)]}, hold_out=2, length=96)
    settings = {"steps": 2, "sequences": 2, "learning_rate": RATES, "evaluate": 2}
    lock_recipe(tmp_path, settings)
    (first,) = train_stages(tmp_path, None, MACHINE, Console(quiet=True))
    lock_recipe(tmp_path, settings, model=replace(model_settings(), export_dtype="bfloat16"))
    monkeypatch.setattr(loop, "_take_step", None)
    (then,) = train_stages(tmp_path, None, MACHINE, Console(quiet=True))
    assert then.scores == first.scores
    said = json.loads((then.export / "config.json").read_bytes())
    assert {said["dtype"], said["vision_config"]["dtype"], said["text_config"]["dtype"]} == {"bfloat16"}


def test_progress_is_told_by_source(run):
    told = []

    class Watcher:
        def phase(self, name, total):
            told.append((name, total))

        def done(self, number=1):
            told.append(number)

    evaluate_stage(run, samples=9, machine=MACHINE, watcher=Watcher())
    assert told == [("align: quiz", 9), 8, 1]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", None, "holds no exported model: config.json is missing"),
        ("config.json", {"model_type": "idefics2"}, "a model of type idefics2, and the stage's family is llava_next"),
        ("tokenizer.json", {"added_tokens": []}, "holds another tokenizer"),
    ],
)
def test_a_folder_that_holds_something_else_is_refused(run, tmp_path, file, change, message):
    for path in (run / "train" / "align" / "export").iterdir():
        (tmp_path / path.name).symlink_to(path)
    text = json.loads((tmp_path / file).read_bytes())
    (tmp_path / file).unlink()
    if change is not None:
        (tmp_path / file).write_text(json.dumps({**text, **change}))
    with pytest.raises(StoreError, match=message):
        evaluate_stage(run, export=tmp_path, machine=MACHINE)


def test_a_stage_that_the_recipe_lacks_is_refused_with_the_nearest_name(run):
    with pytest.raises(RecipeError, match="did you mean 'align'"):
        evaluate_stage(run, "alig")


def test_the_command_shows_what_is_asked_for(run, capsys):
    assert (
        vlmill("evaluate", run, "--device", "cpu", "--threads", 1, "--samples", 4, "--metrics", "exact,anls", "--json")
        == 0
    )
    shown = json.loads(capsys.readouterr().out)["quiz"]
    assert set(shown) == {"samples", "questions", "loss", "exact", "majority", "anls"}
    assert shown["samples"] == 4
    assert vlmill("evaluate", run, "--metrics", "bleu") == 1
    assert "no such metric; allowed: anls, exact, relaxed, vqa" in " ".join(capsys.readouterr().err.split())


def test_samples_come_back_as_they_were_written(tmp_path):
    odd = Answered("a question of two\u2028lines", "an answer\x85of two", "a\x0breference")
    found = [HeldOut("web", "web/a#1", 1.5, 3, ()), HeldOut("quiz", "quiz/b#2", 0.25, 1, (odd,))]
    write_answers(tmp_path / "held_out.jsonl", found)
    assert read_answers(tmp_path / "held_out.jsonl") == found


def test_an_entry_of_several_sources_is_scored_as_a_whole_and_by_source(tmp_path):
    answers = {"fruit": "an apple", "tools": "a hammer"}
    for name, answer in answers.items():
        rows = [([picture(number, (60, 60))], [("What is it?", answer)]) for number in range(12)]
        cauldron(tmp_path / f"{name}.parquet", rows)
    sources = {name: {"kind": "cauldron", "files": f"{name}.parquet", "group": "things"} for name in answers}
    mixture = {"shares": {"things": 1}, "epochs": 1, "sequence_length": 512, "held_out": {"things": 0.3}}
    train = {**RECIPE["stages"][0]["train"], "steps": 1, "sequences": 1}
    stage = {**RECIPE["stages"][0], "mixture": mixture, "train": train}
    recipe = write_recipe(tmp_path, sources=sources, stages=[stage], dedupe=None)
    assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0) == 0
    (trained,) = train_stages(tmp_path / "run", None, MACHINE, Console(quiet=True))
    assert {*trained.scores} == {"things", *answers}
    whole, each = trained.scores["things"], [trained.scores[name] for name in answers]
    assert whole.samples == sum(score.samples for score in each)
    assert whole.questions == sum(score.questions for score in each)
    assert min(score.samples for score in each) > 0
    assert [score.majority for score in each] == [1, 1], "the same question has another answer in each source"
    assert whole.majority < 1
    assert result(tmp_path / "run") == {name: asdict(score) for name, score in trained.scores.items()}


PAGES = [block for page in manual.PAGES for block in manual.list_blocks(page) if "majority answer" in block.code]


@pytest.mark.parametrize("block", PAGES, ids=str)
def test_scores_that_a_page_shows_are_what_training_prints(block):
    shown = [line.rstrip() for line in block.code.strip().splitlines()]
    rows = [line.split() for line in shown[1 + next(place for place, line in enumerate(shown) if "majority" in line) :]]

    def read(text):
        return float(text.rstrip("%")) / (100 if text.endswith("%") else 1)

    scores = {row[0]: Score(int(row[1]), int(row[3]), read(row[2]), *map(read, row[4:])) for row in rows}
    console = Console(width=80, file=io.StringIO())
    console.print(make_score_table(scores, "tune"))
    printed = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert rows
    assert manual.find_difference(["...", *shown], printed) == "", printed


def test_scores_of_few_samples_are_shown_as_such():
    console = Console(width=80, file=io.StringIO())
    scores = {"many": Score(30, 30, 1.0, 1.0, 1.0), "few": Score(29, 90, 1.0, 1.0, 1.0)}
    console.print(make_score_table(scores, "tune"))
    assert "scores of so few samples say little: few 29\n" in "".join(
        f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines()
    )


def test_pages_show_scores():
    assert PAGES
