"""A stage that was opened before it was mixed anew: no reader gives both mixtures, and the message says what to do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import vlmill
from tests.helpers.small import write_recipe

TRAIN = {"stages.align.train": {"learning_rate": {"projector": 0.001}, "sequences": 1, "epochs": 1}}
READERS = {
    "plan": lambda stage: stage.plan(),
    "samples": lambda stage: next(stage.samples()),
    "held_out": lambda stage: list(stage.held_out()),
    "batches": lambda stage: stage.batches(),
    "torch_dataset": lambda stage: stage.torch_dataset(make_model()),
    "measure_imbalance": lambda stage: stage.measure_imbalance(1),
}


def make_model():
    """The least that passes for a model."""
    model = torch.nn.Module()
    model.config = SimpleNamespace(model_type="llava")
    return model


SAID = r"has mixed stage 'align' anew since it was opened; open it again: vlmill.open_run\(.*\).stage\('align'\)"


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A stage and readers of its samples and batches that have begun, and then another mixture in its place."""
    folder = tmp_path_factory.mktemp("stale")
    file = write_recipe(folder / "input files")
    stage = vlmill.build(vlmill.load_recipe(file, settings=TRAIN), folder / "run", workers=0).stage("align")
    begun = {"samples": stage.samples(), "batches": stage.batches()}
    for reader in begun.values():
        next(reader)
    settings = {**TRAIN, "stages.align.mixture.epochs": 3, "filters.shape.min_side": 61}
    vlmill.build(vlmill.load_recipe(file, settings=settings), folder / "run", workers=0, accept_changes=True)
    return stage, begun


@pytest.mark.parametrize("name", READERS)
def test_a_stage_that_was_mixed_anew_is_opened_again(changed, name):
    stage, _ = changed
    with pytest.raises(vlmill.StoreError, match=SAID):
        READERS[name](stage)
    READERS[name](vlmill.open_run(stage.folder).stage("align"))


@pytest.mark.parametrize("name", ["samples", "batches"])
def test_readers_that_have_begun_say_so_where_they_find_other_shards(changed, name):
    with pytest.raises(vlmill.StoreError, match=SAID):
        list(changed[1][name])


def test_damage_is_still_called_damage(changed, tmp_path):
    stage = vlmill.open_run(changed[0].folder).stage("align")
    shard = stage.folder / stage.shards()["path"][0]
    data = shard.read_bytes()
    shard.write_bytes(b"")
    try:
        with pytest.raises(vlmill.StoreError, match="missing or damaged"):
            list(stage.samples())
    finally:
        shard.write_bytes(data)
