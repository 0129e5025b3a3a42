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


def test_workers_of_a_loader_are_refused_since_each_would_give_out_everything(stage, model):
    with pytest.raises(ValueError, match=r"num_workers=2: each worker .* readers=N"):
        list(DataLoader(stage.torch_dataset(model), batch_size=None, num_workers=2))


SHARES = [
    ({"rank": -1, "ranks": 2}, ValueError, "rank=-1: of 2 ranks there are 0 to 1"),
    ({"rank": 2, "ranks": 2}, ValueError, "rank=2: of 2 ranks there are 0 to 1"),
    ({"ranks": 0}, ValueError, "ranks=0: give 1 or more"),
    ({"ranks": 3}, vlmill.RecipeError, "4 sequences cannot be cut into 2 micro-batches for each of 3 ranks"),
    ({"rank": "0", "ranks": 2}, TypeError, "give a whole number"),
    ({"readers": 0}, ValueError, "readers=0: give 1 or more"),
    ({"start": -1}, ValueError, "start=-1: stage 'align' has"),
    ({"start": 7}, ValueError, "start=7: stage 'align' has"),
]


@pytest.mark.parametrize(("asked", "kind", "said"), SHARES)
def test_a_share_that_does_not_exist_is_refused_at_once(stage, model, asked, kind, said):
    with pytest.raises(kind, match=said):
        stage.torch_dataset(model, **asked)
    with pytest.raises(kind, match=said):
        stage.batches(**asked)


def test_behind_the_last_batch_there_is_nothing(stage, model):
    assert list_ids(stage.torch_dataset(model, 6)) == list(stage.batches(3)) == list(stage.batches(2, 1)) == []


def test_a_state_says_what_it_is_of_and_is_refused_elsewhere(stage, model):
    dataset = stage.torch_dataset(model)
    assert len(list(islice(dataset, 3))) == 3
    state = dataset.state_dict()
    for name, other in {"stage": "tune", "mixture": "another", "train.sequences": 8, "train.ranks": 2}.items():
        later = stage.torch_dataset(model)
        with pytest.raises(vlmill.StoreError, match=f"{name}: {other!r} there, {state[name]!r} here"):
            later.load_state_dict({**state, name: other})
        assert later.state_dict() == {**state, "batches": 0}
    with pytest.raises(vlmill.StoreError, match=r"no mixture, .*start=N"):
        stage.torch_dataset(model).load_state_dict({"batches": 3})


def test_other_ranks_go_on_between_steps_and_not_within_one(stage, model):
    dataset = stage.torch_dataset(model)
    states = {}
    for count, _ in enumerate(dataset, 1):
        states[count] = dataset.state_dict()
    two = stage.torch_dataset(model, rank=1, ranks=2)
    with pytest.raises(vlmill.StoreError, match=r"within a step \(3 micro-batches, 2 to a step\).*give ranks=1"):
        two.load_state_dict(states[3])
    two.load_state_dict(states[4])
    assert list_ids(two) == list_ids(stage.torch_dataset(model, 4, rank=1, ranks=2))


@pytest.mark.parametrize("loop", ["trainer", "accelerate"])
def test_both_loops_of_the_example_train(stage, model, loop):
    pytest.importorskip("accelerate")
    losses = runpy.run_path(str(EXAMPLE))["LOOPS"][loop](stage, model, 2)
    assert len(losses) == 2
    assert all(0 < loss < 20 for loss in losses)


@pytest.mark.parametrize("given", [None, "llava", torch.nn.Linear(2, 2)])
def test_what_is_no_model_of_the_family_is_refused_with_what_is_allowed(stage, given):
    with pytest.raises(TypeError, match=r"model=.* is a (NoneType|str|Linear); give .* model_type 'llava"):
        stage.torch_dataset(given)


def test_a_model_of_another_family_is_refused(stage, model, monkeypatch):
    monkeypatch.setattr(model.config, "model_type", "idefics2")
    with pytest.raises(TypeError, match="of idefics2; give"):
        stage.torch_dataset(model)


def test_a_wrapped_model_passes_by_what_it_wraps(stage, model):
    wrapped = torch.nn.Module()
    wrapped.module = model
    assert list_ids(stage.torch_dataset(wrapped)) == list_ids(stage.torch_dataset(model))
