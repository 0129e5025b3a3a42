"""Training a stage: it learns, resumes anywhere, the next stage continues it, and it refuses what does not fit."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from tests.helpers.stages import (
    ANYRES,
    COLOURS,
    LETTERBOX,
    MACHINE,
    article,
    model_settings,
    question,
    same,
    saved_weights,
    write_run,
)
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.train import checkpoint, evaluate, loop
from vlmill.train import run as run_module
from vlmill.train.data import open_reader
from vlmill.train.distributed import ProcessGroup
from vlmill.train.evaluate import Answered, HeldOut, find_majority, list_turns, summarise_scores
from vlmill.train.model import create_model
from vlmill.train.run import train_stage
from vlmill.train.scoring import PartialScores, Scorer
from vlmill.train.settings import Training
from vlmill.train.steps import count_steps

RATES = {"text": 3e-3, "vision": 3e-3, "projector": 3e-3}
TIMES = {"tokens_per_second", "tiles_per_second", "flops_per_second", "waited", "memory"}


def training(**changes):
    return parse_block(
        Training,
        {"steps": 6, "sequences": 2, "learning_rate": RATES, "warm_up": 2, "checkpoint_every": 2, **changes},
        "train",
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with two sources, on whose copies stages are trained."""
    sources = {"quiz": [question(number) for number in range(40)], "web": [article(number) for number in range(12)]}
    return write_run(tmp_path_factory.mktemp("run"), sources, hold_out=4, length=96)


def copy(run, tmp_path):
    tmp_path.mkdir(exist_ok=True)
    for path in run.iterdir():
        if path.name != "train":
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def train(root, **changes):
    return train_stage(root, "align", training(**changes), model_settings(), machine=MACHINE)


def lines(result):
    """The log without what depends on the clock."""
    found = [json.loads(line) for line in result.log.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in found]


def weights(result):
    return saved_weights(result.checkpoint)


@pytest.fixture(scope="module")
def uninterrupted(run, tmp_path_factory):
    return train(copy(run, tmp_path_factory.mktemp("whole")))


def test_a_tiny_model_learns_what_it_cannot_know_without_looking(tmp_path):
    root = write_run(tmp_path, {"quiz": [question(number) for number in range(80)]}, hold_out=16, length=96, epochs=6)
    result = train(root, steps=50, sequences=2, checkpoint_every=50)
    score = result.scores["quiz"]
    assert (score.samples, score.questions, score.majority) == (16, 16, 0.25)
    assert score.exact >= 0.75
    losses = [line["loss"] for line in lines(result)]
    assert losses[-1] < losses[0] / 4


def test_the_log_has_every_step_with_its_sources_and_what_it_held(uninterrupted, run):
    found = lines(uninterrupted)
    assert [line["step"] for line in found] == list(range(6))
    mixture = PlannedMixture(run, "align")
    for line in found:
        packed = [mixture.sequence(number) for number in (2 * line["step"], 2 * line["step"] + 1)]
        assert line["tokens"] == sum(segment.tokens for sequence in packed for segment in sequence)
        assert line["supervised"] == sum(source["supervised"] for source in line["sources"].values())
        together = sum(source["loss"] * source["supervised"] for source in line["sources"].values())
        assert line["loss"] == pytest.approx(together / line["supervised"])
        assert set(line["learning_rate"]) == set(RATES)
    whole = json.loads(uninterrupted.log.read_text().splitlines()[0])
    assert whole["tokens_per_second"] > 0
    assert 0 <= whole["waited"] <= 1


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_training_that_died_goes_on_as_if_it_had_not(run, tmp_path, monkeypatch, uninterrupted, step):
    root = copy(run, tmp_path)
    update = loop._take_step

    def dying(setup, learner, optimizer, number, batch):
        if number == step:
            raise KeyboardInterrupt
        return update(setup, learner, optimizer, number, batch)

    monkeypatch.setattr(loop, "_take_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(root)
    monkeypatch.undo()
    result = train(root)
    assert lines(result) == lines(uninterrupted)
    assert same(weights(result), weights(uninterrupted))


def test_a_half_written_checkpoint_is_no_checkpoint_and_is_cleared_away(run, tmp_path, monkeypatch, uninterrupted):
    root = copy(run, tmp_path)

    def dying(partial, target):
        if target.name == "00000004":
            raise KeyboardInterrupt
        return commit(partial, target)

    commit = checkpoint.commit_folder
    monkeypatch.setattr(checkpoint, "commit_folder", dying)
    with pytest.raises(KeyboardInterrupt):
        train(root)
    monkeypatch.undo()
    folder = root / "train" / "align" / "checkpoints"
    assert [path.name for path in checkpoint.list_complete(folder)] == ["00000002"]
    assert list(folder.glob(".*"))
    result = train(root)
    assert not list(folder.glob(".*"))
    assert same(weights(result), weights(uninterrupted))


def test_the_last_checkpoints_are_kept_and_no_more(uninterrupted):
    kept = checkpoint.list_complete(uninterrupted.checkpoint.parent)
    assert [path.name for path in kept] == ["00000004", "00000006"]
    assert (uninterrupted.steps, uninterrupted.checkpoint) == (6, kept[-1])


def test_a_finished_stage_is_not_trained_again(run, tmp_path, monkeypatch, uninterrupted):
    root = uninterrupted.checkpoint.parents[3]
    monkeypatch.setattr(loop, "_take_step", None)
    assert train(root) == uninterrupted


def test_rows_that_cannot_be_shared_out_are_refused(run, tmp_path):
    from vlmill.train import run as module

    group = module.ProcessGroup(0, 4)
    with pytest.raises(RecipeError, match="2 sequences cannot be cut into 1 micro-batches for each of 4 ranks"):
        loop.run_stage(
            loop.Setup(None, None, training(), 6, None, {}, tmp_path, torch.device("cpu"), MACHINE, group), Console()
        )


def test_half_precision_computes_and_keeps_its_weights_whole(run, tmp_path, uninterrupted):
    result = train(copy(run, tmp_path), dtype="bfloat16", evaluate=0)
    for one, other in zip(lines(result), lines(uninterrupted), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.1)
        assert one["loss"] != other["loss"]
    assert {parameter.dtype for parameter in weights(result).values()} == {torch.float32}


def test_accumulation_changes_nothing_but_rounding(run, tmp_path, uninterrupted):
    result = train(copy(run, tmp_path), accumulation=2, evaluate=0)
    for one, other in zip(lines(result), lines(uninterrupted), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert result.scores == {}


def test_how_often_is_saved_and_who_reads_changes_nothing(run, tmp_path, uninterrupted):
    other = replace(MACHINE, readers=1, ahead=1)
    result = train_stage(
        copy(run, tmp_path), "align", training(checkpoint_every=5, keep_last=1), model_settings(), machine=other
    )
    assert lines(result) == lines(uninterrupted)
    assert same(weights(result), weights(uninterrupted))


def test_other_settings_cannot_go_on_from_a_checkpoint(run, tmp_path, uninterrupted):
    root = uninterrupted.checkpoint.parents[3]
    with pytest.raises(StoreError, match="clip: 1.0 there, 2.0 here.*delete .*align to begin anew"):
        train(root, clip=2.0)


@pytest.mark.parametrize(
    ("name", "said"),
    [("mixture", "the plan of the mixture changed since"), ("start_from", "the stage before, .* was trained anew")],
)
def test_what_only_a_sha256_tells_is_said_in_words(uninterrupted, name, said):
    path = uninterrupted.checkpoint
    other = {**checkpoint.read_state(path)["identity"], name: "0" * 64}
    with pytest.raises(StoreError, match=rf"trained otherwise \({said}[^;]*\)\. Put that back") as caught:
        checkpoint.check_identity(path, other)
    assert "0" * 64 not in str(caught.value)


def test_the_next_stage_starts_from_the_weights_of_the_one_before(run, tmp_path, uninterrupted):
    root = copy(run, tmp_path)
    frozen = training(learning_rate={"projector": 1e-3}, steps=2)
    result = train_stage(root, "align", frozen, model_settings(), start_from=uninterrupted.checkpoint, machine=MACHINE)
    before, after = weights(uninterrupted), weights(result)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("model.multi_modal_projector", "model.image_newline")) for name in changed)


def test_a_stage_of_letterboxed_images_may_come_before_one_of_tiles(tmp_path):
    made = {"quiz": [question(number) for number in range(24)]}
    root = write_run(tmp_path, made, LETTERBOX, stage="align")
    write_run(root, made, ANYRES, stage="instruct")
    first = train_stage(root, "align", training(steps=1, evaluate=0), model_settings(), machine=MACHINE)
    second = train_stage(
        root, "instruct", training(steps=1, evaluate=0), model_settings(), start_from=first.checkpoint, machine=MACHINE
    )
    assert second.steps == 1


def test_shards_of_another_policy_than_the_recipes_are_refused(run):
    with pytest.raises(StoreError, match="was made under AnyRes.*and the recipe's policy is Letterbox.*vlmill build"):
        train_stage(run, "align", training(), model_settings(), policy=LETTERBOX, machine=MACHINE)


def test_steps_that_the_plan_cannot_feed_are_refused_before_anything_is_made(run):
    with pytest.raises(RecipeError, match="99 steps of 2 sequences want 198 sequences, and the plan has"):
        train(run, steps=99)
    assert not (run / "train").exists()


@pytest.mark.parametrize(
    ("settings", "sequences", "steps"),
    [({"steps": 4}, 8, 4), ({"steps": None, "epochs": 1}, 9, 4), ({"steps": None, "epochs": 3}, 9, 13)],
)
def test_steps_come_from_the_plans_sequences(settings, sequences, steps):
    assert count_steps(training(**settings), sequences) == steps


def test_progress_is_plain_lines_where_there_is_no_terminal(run, tmp_path):
    console = Console(record=True, force_terminal=False, width=120, file=io.StringIO())
    train_stage(
        copy(run, tmp_path / "run"), "align", training(steps=2), model_settings(), machine=MACHINE, console=console
    )
    said = console.export_text()
    begun = [line.partition(", loss")[0] for line in said.splitlines()[:5]]
    assert begun == [
        "align: reading the plan",
        "align: loading the model",
        "align: taking step 1 of 2",
        "align: step 1 of 2",
        "align: step 2 of 2",
    ]
    assert "align: held-out samples" in said


# -- scores


def test_a_stage_that_holds_nothing_out_does_not_read_its_model_again_to_score_it(tmp_path, monkeypatch):
    root = write_run(tmp_path, {"quiz": [question(number) for number in range(8)]}, hold_out=0, length=96)
    made, create = [], run_module.create_model
    monkeypatch.setattr(run_module, "create_model", lambda *given, **more: made.append(given) or create(*given, **more))
    assert train(root, steps=1).scores == {}
    assert made == []  # its model is built in network.py


def test_turns_are_the_supervised_answers_with_what_was_asked():
    nodes, _ = question(0)
    assert [(turn.question, turn.answer, turn.start) for turn in list_turns(nodes)] == [
        ("What colour is it?", "red", 2)
    ]
    assert list(list_turns(article(0)[0])) == []


def test_the_majority_answer_is_counted_over_the_training_part_alone(tmp_path):
    numbers = [0, 0, 0, 1, 1, 2, 2, 2, 2, 2]  # held out are the last four: the training split has three of red
    mixture = PlannedMixture(
        write_run(tmp_path, {"quiz": [question(number) for number in numbers]}, hold_out=4), "align"
    )
    guess = find_majority(mixture, 0)
    assert guess("What colour is it?") == next(iter(COLOURS))
    assert guess("Something never asked") == next(iter(COLOURS))


def test_a_source_that_is_held_out_whole_has_no_majority_answer(tmp_path):
    mixture = PlannedMixture(write_run(tmp_path, {"quiz": [question(0)] * 3}, hold_out=3), "align")
    assert find_majority(mixture, 0) is None
    answers = (Answered(question="What colour is it?", reference="red", answer="red"),)
    held = HeldOut(source="quiz", id="quiz/a#0", loss=1.0, supervised=2, answers=answers)
    score = summarise_scores([held], mixture)["quiz"]
    assert (score.exact, score.majority) == (1, None)


def test_evaluation_does_not_depend_on_the_batch(run, tmp_path, uninterrupted, monkeypatch):
    mixture = PlannedMixture(run, "align")
    reader = open_reader(mixture, model_settings(), "answers")
    model = create_model(reader.family, reader.tokenizer, mixture.chat, 0, start_from=uninterrupted.checkpoint)
    scorer = Scorer(model, reader, torch.device("cpu"), torch.float32, ProcessGroup())
    together = summarise_scores(scorer.score_held_out(8, PartialScores(tmp_path / "together", "")), mixture)
    monkeypatch.setattr(evaluate, "BATCH", 1)
    alone = summarise_scores(scorer.score_held_out(8, PartialScores(tmp_path / "alone", "")), mixture)
    for name, score in alone.items():
        assert (score.samples, score.questions, score.exact, score.majority) == (
            together[name].samples,
            together[name].questions,
            together[name].exact,
            together[name].majority,
        )
        assert score.loss == (together[name].loss and pytest.approx(together[name].loss, rel=1e-4))
