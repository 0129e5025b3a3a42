"""Connectors from a recipe to plans: what is counted anew, what is shared, and what stays as it was without them."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
import yaml

from tests.helpers.stages import ANYRES, LETTERBOX, MACHINE, question, write_run
from tests.train import test_ablate, test_families
from tests.train.test_ablate import SPEC
from tests.train.test_connectors import BLOCKS, CONNECTED
from tests.train.test_families import document, logits, made
from vlmill.api.builds import build_recipe
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.chat.encode import FORMATS
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.keys import to_json
from vlmill.pipeline.core.sample import read_rows
from vlmill.pipeline.reports.verify import verify_run
from vlmill.pipeline.steps.token_lengths import CountConnectedTokens, CountTokens, make_length_step
from vlmill.train.ablation.runs import prepare_runs, select_curation
from vlmill.train.ablation.spec import list_trials, read_ablation
from vlmill.train.batch import pad_sequences
from vlmill.train.checkpoint import list_complete, read_state
from vlmill.train.export import export_model, load_export
from vlmill.train.flops import count_flops
from vlmill.train.model import compute_token_losses, defer_model
from vlmill.train.run import train_stage
from vlmill.train.settings import Training, read_model_settings, read_training_settings

place = test_ablate.place
tokenizers = test_families.tokenizers
one_thread = test_families.one_thread


@pytest.mark.parametrize("block", [None, {}, {"kind": "mlp"}, {"kind": "pool", "side": 2}, {"kind": "shuffle"}])
def test_lengths_are_counted_by_the_same_step_where_no_number_changes(block):
    assert make_length_step("vlmill", LETTERBOX, {"connector": block}) == CountTokens("vlmill")
    assert make_length_step("vlmill", LETTERBOX, {}) == CountTokens("vlmill")


def test_connectors_of_one_number_of_tokens_have_one_step():
    steps = [
        make_length_step("vlmill", LETTERBOX, {"connector": block})
        for block in ({"kind": "pool", "side": 1}, {"kind": "bilinear", "side": 1}, {"kind": "shuffle", "factor": 2})
    ]
    assert len({to_json(step) for step in steps}) == 1
    assert isinstance(steps[0], CountConnectedTokens)


def test_a_stage_of_before_these_keys_is_still_known(tmp_path):
    case = test_families.CASES["llava, resized"]
    write_run(tmp_path, {"quiz": [question(0)]}, case.policy)
    training = parse_block(
        Training, {"steps": 1, "sequences": 1, "learning_rate": {"projector": 1e-3}, "evaluate": 0}, "train"
    )
    train_stage(tmp_path, "align", training, case.settings, machine=MACHINE)
    (last,) = list_complete(tmp_path / "train" / "align" / "checkpoints")
    said = read_state(last)["identity"]["model"]["connector"]
    assert said == {"kind": "linear", "depth": None, "interval": 1}


def test_an_ablation_renders_once_and_counts_once_for_each_number_of_tokens(place, tmp_path):
    variants = {
        "all": {},
        "pool": {"model.connector": {"kind": "pool", "side": 1}},
        "bilinear": {"model.connector": {"kind": "bilinear", "side": 1}},
    }
    spec = {**SPEC, "baseline": "all", "variants": variants, "set": {}, "seeds": [0]}
    (place / "connectors.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    trials = list_trials(read_ablation(place / "connectors.yaml"), {}, None)
    runs = prepare_runs(tmp_path, trials, partial(build_recipe, workers=0))
    whole, pool, bilinear = (runs[name, 0] for name in variants)
    assert (pool / "shards").resolve() == (bilinear / "shards").resolve() != (whole / "shards").resolve()
    tars = [{path.name: path.stat().st_ino for path in run.glob("shards/quiz/small/*.tar")} for run in (whole, pool)]
    assert tars[0] == tars[1] != {}
    counted = [
        [row["visual"] for path in run.glob("shards/quiz/small/lengths/*.parquet") for row in read_rows(path)]
        for run in (whole, pool)
    ]
    assert (set(counted[0]), set(counted[1])) == ({4}, {1})
    assert PlannedMixture(pool, "tune").sequences < PlannedMixture(whole, "tune").sequences
    assert PlannedMixture(whole, "tune").lock["policy"].get("tile_tokens") is None
    (trial,) = (trial for trial in trials if trial.variant == "bilinear")
    training = read_training_settings(trial.recipe.stages[0], 1.0)
    train_stage(bilinear, "tune", training, read_model_settings(trial.recipe), machine=MACHINE)
    assert list(verify_run(bilinear)) == []


def test_of_a_model_only_the_number_of_tokens_is_data():
    recipe = {"name": "x", "stages": [], "model": {"family": "llava"}}
    plain = select_curation(recipe)
    assert "model" not in plain
    assert select_curation(recipe | {"model": {"connector": {"kind": "linear"}}}) == plain
    pool, abstractor = (
        select_curation(recipe | {"model": {"family": "llava", "connector": {"kind": kind, "side": 3, **more}}})
        for kind, more in (("pool", {}), ("c_abstractor", {"depth": 2}))
    )
    assert pool == abstractor != plain


@pytest.mark.parametrize("name", ["llava, perceiver", "llava_next, c_abstractor", "llava, upsampled and pooled"])
def test_half_precision_arithmetic_gives_about_the_same_losses(tokenizers, name):
    case = CONNECTED[name]
    family, model = made(case, tokenizers)
    batch = pad_sequences([[document(case, tokenizers, 1)]], 0)
    found = [
        compute_token_losses(model.train(), family, batch, torch.device("cpu"), dtype)[0]
        for dtype in (torch.float32, torch.bfloat16)
    ]
    found[1].sum().backward()
    torch.testing.assert_close(found[0], found[1].float(), atol=0.1, rtol=0)
    assert all(weights.grad is None or weights.grad.isfinite().all() for weights in model.parameters())


@pytest.mark.parametrize("name", ["llava, perceiver", "llava_next, upsampled and pooled", "llava, c_abstractor"])
def test_a_model_whose_weights_are_computed_later_has_the_same_parameters(tokenizers, name):
    family, model = made(CONNECTED[name], tokenizers)
    later = defer_model(family, tokenizers["vlmill"], FORMATS["vlmill"], seed=0)
    shapes = [{key: weights.shape for key, weights in one.state_dict().items()} for one in (model, later)]
    assert shapes[0] == shapes[1]


def test_a_stage_of_one_tile_may_come_before_one_of_tiles(tokenizers):
    (_, one), (family, tiled) = (
        made(CONNECTED[f"{family}, upsampled"], tokenizers) for family in ("llava", "llava_next")
    )
    assert set(tiled.state_dict()) - set(one.state_dict()) == set(family.new)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_tile_is_estimated_to_cost_what_it_costs(tokenizers, name):
    case = CONNECTED[f"llava, {name}"]
    family, model = made(case, tokenizers)
    price = count_flops(model, family, ("projector",))
    batch = pad_sequences([[document(case, tokenizers, 1)]], 0)
    ((estimated, _),) = price.estimate(np.array([[0, 0, 1]]), case.policy.side)
    assert estimated == pytest.approx(price.split(batch)[0])


def test_an_export_of_another_connector_is_refused(tmp_path, tokenizers):
    family, model = made(CONNECTED["llava, pool"], tokenizers)
    folder = export_model(tmp_path / "export", model, family, tokenizers["vlmill"], FORMATS["vlmill"])
    again = load_export(folder, model, tokenizers["vlmill"])
    one = document(CONNECTED["llava, pool"], tokenizers, 1)
    assert torch.equal(logits(family, again.eval(), [[one]]), logits(family, model, [[one]]))
    said = json.loads((folder / "config.json").read_text())
    said["connector"]["side"] = 2
    (folder / "config.json").write_text(json.dumps(said))
    with pytest.raises(StoreError, match="holds a model with the connector .*'side': 2"):
        load_export(folder, model, tokenizers["vlmill"])


def test_a_document_of_tiles_is_shorter_by_what_the_connector_leaves_out(tmp_path):
    lengths = []
    for name, block in (("patches", None), ("pooled", {"kind": "pool", "side": 1})):
        write_run(tmp_path / name, {"quiz": [question(0)]}, ANYRES, connector=block)
        mixture = PlannedMixture(tmp_path / name, "align")
        (segment,) = mixture.sequence(0)
        (stored,) = mixture.read([segment])
        lengths.append(
            (segment.tokens - sum(layout.tokens for layout in mixture.lay_out(stored.sizes)), segment.tokens)
        )
    assert lengths[0][0] == lengths[1][0]
    assert lengths[0][1] > lengths[1][1]
