"""A run on object storage is trained as one in a folder is: the same weights, also after a kill."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers.ranks import run_ranks
from tests.helpers.stages import MACHINE, article, model_settings, question, write_run
from vlmill.pipeline.core import scratch
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.run_path import RunPath
from vlmill.train import stage_folder
from vlmill.train.digests import verify_training
from vlmill.train.model import WEIGHTS
from vlmill.train.run import train_stage
from vlmill.train.settings import Training

RATES = {"text": 3e-3, "vision": 3e-3, "projector": 3e-3}


@pytest.fixture
def folder(tmp_path):
    return write_run(
        tmp_path / "run",
        {"quiz": [question(number) for number in range(12)], "web": [article(number) for number in range(4)]},
        hold_out=2,
        length=96,
    )


@pytest.fixture
def run(folder, s3):
    """The same run on object storage."""
    there = RunPath(f"{s3}/run")
    for path in folder.rglob("*"):
        if path.is_file():
            (there / path.relative_to(folder)).put_file(path)
    return there


def train(root, **changes):
    block = {"steps": 4, "sequences": 1, "learning_rate": RATES, "checkpoint_every": 1, "keep_last": 1}
    block |= changes
    return train_stage(root, "align", parse_block(Training, block, "train"), model_settings(), machine=MACHINE)


def die(monkeypatch):
    """Forget all that only this process knew, and its local files."""
    scratch.get_scratch().remove()
    monkeypatch.setattr(scratch, "_SCRATCH", {})
    monkeypatch.setattr(stage_folder, "_OPENED", {})


def test_a_training_that_was_killed_while_it_put_a_checkpoint_goes_on_to_the_same_weights(folder, run, monkeypatch):
    wanted, put, left = train(folder), RunPath.put_file, [9]

    def put_few(path, file):
        left[0] -= 1
        if left[0] < 0:
            raise StoreError("the power has gone")
        put(path, file)

    monkeypatch.setattr(RunPath, "put_file", put_few)
    with pytest.raises(StoreError, match="the power has gone"):
        train(run)
    there = run / "train/align/checkpoints"
    begun = {path.name for path in there.iterdir()}
    complete = {path.parent.name for path in there.glob("**/digests.json")}
    assert complete
    assert begun - complete, "one was cut short"
    monkeypatch.setattr(RunPath, "put_file", put)
    die(monkeypatch)
    result = train(run)
    die(monkeypatch)
    assert str(result.checkpoint) == f"{run}/train/align/checkpoints/00000004"
    assert Path(os.fspath(result.checkpoint / WEIGHTS)).read_bytes() == (wanted.checkpoint / WEIGHTS).read_bytes()
    assert (result.export / "model.safetensors").read_bytes() == (wanted.export / "model.safetensors").read_bytes()
    assert result.scores == wanted.scores
    assert [path.name for path in there.iterdir()] == ["00000004"]
    assert list(verify_training(run)) == []
    assert train(run) == result, "a finished stage is not trained again"


SHARED = {"steps": 2, "sequences": 2, "ranks": 2}


def train_as_rank(address):
    """One of several ranks."""
    train(RunPath(address), **SHARED)


def test_ranks_of_one_machine_train_it_and_go_on_from_what_is_there(folder, run):
    wanted = train(folder, **SHARED)
    run_ranks(2, train_as_rank, run)
    there = run / "train/align"
    loss = [
        [json.loads(line)["loss"] for line in (root / "train/align/log.jsonl").read_text().splitlines()]
        for root in (folder, run)
    ]
    assert loss[1] == pytest.approx(loss[0], rel=1e-5)
    assert [path.name for path in (there / "checkpoints").iterdir()] == ["00000002"]
    assert list(verify_training(run)) == []
    assert train(run, **SHARED).scores.keys() == wanted.scores.keys(), "one rank finds it finished"
    (there / "result.json").unlink()
    run_ranks(2, train_as_rank, run)
    assert list(verify_training(run)) == []


def test_ranks_of_several_machines_are_refused_with_the_way_out(run):
    group = SimpleNamespace(size=2, leads=False, gather=lambda found: ["/on/another/machine", found])
    with pytest.raises(StoreError, match=r"several machines.*--shards s3://"):
        stage_folder.share_stage_folder(run, "align", group)
