"""Held-out samples are scored by all ranks together, each sample once, whatever is killed meanwhile."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections import Counter
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import distributed

from tests.helpers.ranks import DEAD, die_together, run_ranks
from tests.helpers.small import vlmill
from tests.helpers.stages import MACHINE, lock_recipe, model_settings, question, write_run
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.core.config import parse_block
from vlmill.train import scoring
from vlmill.train.data import open_reader
from vlmill.train.distributed import ProcessGroup
from vlmill.train.evaluate import HeldOut, summarise_scores
from vlmill.train.model import WEIGHTS, create_model
from vlmill.train.run import evaluate_stage, train_stage, train_stages
from vlmill.train.scoring import PartialScores, Scorer, list_batches
from vlmill.train.settings import Training

HELD_OUT = 44
BATCHES = 6
TRAINING = {"steps": 2, "sequences": 2, "learning_rate": {"text": 3e-3}, "evaluate": HELD_OUT}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one stage, trained and scored by one process."""
    root = tmp_path_factory.mktemp("run")
    write_run(root, {"quiz": [question(number) for number in range(60)]}, hold_out=HELD_OUT, length=96)
    lock_recipe(root, TRAINING)
    train_stages(root, None, MACHINE, Console(quiet=True))
    return root


def copy(trained: Path, tmp_path: Path) -> Path:
    """The run, trained to its last checkpoint and not scored."""
    root = shutil.copytree(trained, tmp_path / "run")
    for name in ("result.json", "held_out.jsonl"):
        (root / "train/align" / name).unlink()
    return root


def score(root: str, die_before: str = "") -> None:
    """One rank: trains and scores; drops dead before it scores its batch of that number; notes what it did."""
    notes = Path(root) / f"rank{os.environ.get('RANK', '0')}.txt"
    score_samples, gather = scoring.score_samples, distributed.all_gather_object
    left = [int(die_before)] if die_before else []

    def write(line: str) -> None:
        with notes.open("a") as file:
            file.write(f"{line}\n")

    def scoring_samples(model, reader, device, segments, dtype):
        if left and not left[0]:
            die_together()
        left[:] = [number - 1 for number in left]
        found = score_samples(model, reader, device, segments, dtype)
        write("scored " + " ".join(sample.id for sample in found))
        return found

    def gathering(*arguments, **named):
        write("met")
        gather(*arguments, **named)

    scoring.score_samples, distributed.all_gather_object = scoring_samples, gathering
    try:
        train_stages(Path(root), None, MACHINE, Console(quiet=True))
    finally:
        scoring.score_samples, distributed.all_gather_object = score_samples, gather


def notes_of(root: Path) -> list[list[str]]:
    return [path.read_text().splitlines() for path in sorted(root.glob("rank*.txt"))]


def count_scored(root: Path) -> Counter[str]:
    """How often each sample was scored, by all ranks of all runs."""
    lines = (line.split() for rank in notes_of(root) for line in rank)
    return Counter(name for what, *names in lines if what == "scored" for name in names)


@pytest.fixture(scope="module")
def killed(trained, tmp_path_factory):
    """A run whose two ranks were killed when each had scored one batch."""
    root = copy(trained, tmp_path_factory.mktemp("killed"))
    run_ranks(2, score, root, "1", status=DEAD)
    return root


@pytest.fixture(scope="module")
def shared(killed, tmp_path_factory):
    """The same, gone on by two ranks."""
    root = shutil.copytree(killed, tmp_path_factory.mktemp("shared") / "run")
    run_ranks(2, score, root)
    return root


def assert_same_results(root: Path, expected: Path) -> None:
    for name in ("held_out.jsonl", "result.json"):
        assert (root / "train/align" / name).read_bytes() == (expected / "train/align" / name).read_bytes()


def test_two_ranks_find_what_one_finds_and_share_the_work(trained, shared):
    assert_same_results(shared, trained)
    each = [sum(line.startswith("scored") for line in rank) for rank in notes_of(shared)]
    assert each == [BATCHES // 2, BATCHES // 2]
    assert not list((shared / "train/align").glob("scoring-*"))


def test_no_rank_waits_for_another_longer_than_a_batch_takes(shared):
    for rank in notes_of(shared):
        work = ["scored" if line.startswith("scored") else line for line in rank]
        assert all("met" in pair for pair in pairwise(work))


def test_a_killed_scoring_goes_on_and_scores_no_sample_twice_on_two_ranks_or_one(trained, killed, shared, tmp_path):
    assert len(count_scored(killed)) == 16
    alone = Path(shutil.copytree(killed, tmp_path / "run"))
    score(str(alone))
    assert_same_results(alone, trained)
    for root in (shared, alone):
        assert set(count_scored(root).values()) == {1}
        assert len(count_scored(root)) == HELD_OUT


def test_evaluate_under_torchrun_is_shared_too_and_only_the_first_rank_prints(trained, tmp_path):
    root = Path(shutil.copytree(trained, tmp_path / "run"))
    run_ranks(2, evaluate, root)
    first, second = ((root / f"{rank}.json").read_text() for rank in "01")
    _, alone = evaluate_stage(trained, machine=MACHINE)
    assert json.loads(first) == {source: asdict(found) for source, found in alone.items()}
    assert second == ""
    assert not list((root / "train/align").glob("scoring-*"))


def test_a_killed_evaluation_goes_on_where_it_was(trained, tmp_path, monkeypatch):
    root = Path(shutil.copytree(trained, tmp_path / "run"))
    scored, original = [], scoring.score_samples

    def dying(*arguments):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(1)
        return original(*arguments)

    monkeypatch.setattr(scoring, "score_samples", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate_stage(root, machine=MACHINE)
    scored.append(1)
    _, found = evaluate_stage(root, machine=MACHINE)
    assert len(scored) - 1 == BATCHES
    assert found == evaluate_stage(trained, machine=MACHINE)[1]


def test_what_was_found_counts_for_the_same_weights_samples_and_settings_alone(trained, tmp_path):
    mixture = PlannedMixture(trained, "align")
    last = trained / "train/align/checkpoints/00000002"
    other = shutil.copy(last / WEIGHTS, tmp_path / "other")
    Path(other).write_bytes((last / WEIGHTS).read_bytes()[:-1] + b"\1")
    reader, text = (open_reader(mixture, model_settings(), loss) for loss in ("answers", "text"))

    def describe(weights=last / WEIGHTS, reader=reader, dtype=torch.float32):
        return Scorer(None, reader, torch.device("cpu"), dtype, ProcessGroup()).keep_scores(weights, tmp_path).identity

    found = [describe(), describe(Path(other)), describe(reader=text), describe(dtype=torch.bfloat16)]
    found.append(describe(trained / "train/align/export"))
    assert len(set(found)) == 5
    keys = [batch.key for identity in ("one", "other") for batch in list_batches(mixture, HELD_OUT, identity)]
    assert len(set(keys)) == 2 * BATCHES
    fewer = [batch.key for batch in list_batches(mixture, 20, "one")]
    assert [key in keys for key in fewer] == [True, True, False]  # the last has other samples than before


def test_a_line_that_was_cut_or_changed_does_not_count(tmp_path):
    kept, samples = PartialScores(tmp_path / "scores", ""), [HeldOut("quiz", "quiz/a#1", 0.1 + 0.2, 3, ())]
    kept.add("one", samples)
    kept.add("two", samples)
    assert kept.read() == {"one": samples, "two": samples}
    whole = kept.path.read_text()
    kept.path.write_text(whole.replace("quiz/a#1", "quiz/a#2", 1))
    assert kept.read() == {"two": samples}
    kept.path.write_text(whole[: len(whole) - 20])
    assert kept.read() == {"one": samples}
    kept.add("three", samples)
    assert kept.read() == {"one": samples, "three": samples}


def test_a_stage_is_scored_in_the_arithmetic_that_it_was_trained_in(trained, tmp_path):
    for path in trained.iterdir():
        if path.name != "train":
            (tmp_path / path.name).symlink_to(path)
    training = parse_block(Training, {**TRAINING, "dtype": "bfloat16"}, "train")
    result = train_stage(tmp_path, "align", training, model_settings(), machine=MACHINE)
    mixture = PlannedMixture(tmp_path, "align")
    reader = open_reader(mixture, model_settings(), "answers")
    model = create_model(reader.family, reader.tokenizer, mixture.chat, 0, start_from=result.checkpoint)
    scores = {}
    for dtype in (torch.bfloat16, torch.float32):
        scorer = Scorer(model, reader, torch.device("cpu"), dtype, ProcessGroup())
        found = scorer.score_held_out(HELD_OUT, PartialScores(tmp_path / str(dtype), ""))
        scores[dtype] = summarise_scores(found, mixture)
    assert scores[torch.bfloat16] == result.scores
    assert scores[torch.float32]["quiz"].loss != result.scores["quiz"].loss
    assert scores[torch.float32]["quiz"].loss == pytest.approx(result.scores["quiz"].loss, rel=0.05)


def evaluate(root: str) -> None:
    """One rank: `vlmill evaluate`."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert vlmill("evaluate", root, "--device", "cpu", "--threads", 1, "--json") == 0
    (Path(root) / f"{os.environ['RANK']}.json").write_text(said.getvalue())
