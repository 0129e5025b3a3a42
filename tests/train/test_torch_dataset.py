"""A stage's batches in loops of others: the trainer's, exact resume, the loss of the same model; both loops run."""

from __future__ import annotations

import runpy
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import vlmill
from tests.helpers.stages import lock_recipe, model_settings, question, write_run
from vlmill.train.data import open_reader
from vlmill.train.model import compute_token_losses

EXAMPLE = Path(__file__).parents[2] / "examples/train_elsewhere.py"
TRAIN = {
    "steps": 3,
    "sequences": 4,
    "accumulation": 2,
    "learning_rate": {"text": 0.001, "projector": 0.001, "vision": 0.001},
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    root = write_run(tmp_path_factory.mktemp("run"), {"quiz": [question(number) for number in range(80)]})
    return vlmill.open_run(lock_recipe(root, TRAIN)).stage("align")


@pytest.fixture
def model(stage):
    torch.manual_seed(0)
    reader = open_reader(stage._mixture, model_settings(), "answers")
    return reader.family.build(reader.tokenizer, stage._mixture.chat)


def list_ids(dataset):
    return [batch["input_ids"].tolist() for batch in DataLoader(dataset, batch_size=None)]


def test_it_has_the_batches_of_the_trainer_and_goes_on_anywhere(stage, model):
    whole = list_ids(stage.torch_dataset(model))
    assert whole == [batch.ids.tolist() for step in stage.batches() for batch in step]
    assert len(whole) == 6
    for stop in range(1, 6):
        dataset = stage.torch_dataset(model)
        assert [batch["input_ids"].tolist() for batch in islice(dataset, stop)] == whole[:stop]
        later = stage.torch_dataset(model)
        later.load_state_dict(dataset.state_dict())
        assert list_ids(later) == whole[stop:]
        assert list_ids(stage.torch_dataset(model, stop)) == whole[stop:]


def test_ranks_share_what_one_has(stage, model):
    one = [row for batch in stage.torch_dataset(model) for row in batch["input_ids"].shape[:1]]
    two = [
        row
        for rank in range(2)
        for batch in stage.torch_dataset(model, rank=rank, ranks=2)
        for row in batch["input_ids"].shape[:1]
    ]
    assert sum(one) == sum(two) == TRAIN["steps"] * TRAIN["sequences"]


def test_the_loss_of_transformers_is_that_of_the_trainer(stage, model):
    family = open_reader(stage._mixture, model_settings(), "answers").family
    batch, inputs = next(stage.batches())[0], next(iter(stage.torch_dataset(model)))
    with torch.no_grad():
        losses, _ = compute_token_losses(model, family, batch, torch.device("cpu"), torch.float32, None)
        assert model(**inputs).loss.item() == pytest.approx(losses.mean().item(), abs=1e-5)


@pytest.mark.parametrize("loop", ["trainer", "accelerate"])
def test_both_loops_of_the_example_train(stage, model, loop):
    pytest.importorskip("accelerate")
    losses = runpy.run_path(str(EXAMPLE))["LOOPS"][loop](stage, model, 2)
    assert len(losses) == 2
    assert all(0 < loss < 20 for loss in losses)
