"""Adapters in turn: on more layers, of growing ranks, without a jump, resumed at a change, over stages."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from tests.helpers.ranks import DEAD, die_together, run_ranks
from tests.helpers.stages import (
    LETTERBOX,
    MACHINE,
    model_settings,
    question,
    same,
    saved_weights,
    write_run,
    write_tokenizer,
)
from tests.train.test_train_adapters import states
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.chat.encode import FORMATS, load_tokenizer
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.train import checkpoint, loop
from vlmill.train.adapters import MARK, change_adapters, merge_adapters
from vlmill.train.data import open_reader
from vlmill.train.distributed import ProcessGroup
from vlmill.train.families import find_family
from vlmill.train.model import create_model, make_optimizer
from vlmill.train.network import NetworkBuilder
from vlmill.train.phases import Phase, find_phase, list_phases
from vlmill.train.run import train_stage
from vlmill.train.settings import Adapter, Training

pytest.importorskip("peft")

CHAT = FORMATS["vlmill"]
GROWING = [
    {"layers": "last:1", "rank": 2, "alpha": 4},
    {"layers": "all", "rank": 2, "at": 0.34},
    {"components": ["text", "vision"], "rank": 4, "at": 0.67},
]
RATES = {"text": 1e-2, "vision": 1e-2, "projector": 1e-2}


def training(**changes):
    settings = {"steps": 6, "sequences": 2, "learning_rate": RATES, "evaluate": 0, "checkpoint_every": 1}
    return parse_block(Training, {**settings, "schedule": "constant", "adapter": GROWING, **changes}, "train")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"), CHAT)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    quiz = [question(number) for number in range(40)]
    return write_run(tmp_path_factory.mktemp("made"), {"quiz": quiz}, LETTERBOX, length=60)


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory):
    """A stage that went through all its phases at once."""
    return train(copy(made, tmp_path_factory.mktemp("whole")))


def copy(root: Path, folder: Path) -> Path:
    shutil.copytree(root, folder, dirs_exist_ok=True)
    return folder


def train(root, **changes):
    return train_stage(root, "align", training(**changes), model_settings("llava"), machine=MACHINE)


def lines(result):
    timeless = ("step", "loss", "gradient_norm", "learning_rate", "sources")
    return [{name: line[name] for name in timeless} for line in map(json.loads, result.log.read_text().splitlines())]


def shake(model):
    """Move all adapters, as training would."""
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if MARK in name:
                weights.add_(0.1 * torch.rand_like(weights))


def held(model):
    return {name: weights.detach().clone() for name, weights in model.named_parameters() if MARK in name}


# -- one change


@pytest.mark.parametrize(
    ("before", "after", "exact"),
    [
        ({"layers": "last:1"}, {}, True),
        ({"rank": 2}, {"rank": 5}, True),
        ({"rank": 2, "alpha": 8}, {"rank": 5, "alpha": 5, "layers": "last:1"}, False),
        ({"layers": "last:1", "rank": 1}, {"components": ("vision", "text"), "rank": 3}, True),
        ({"components": ("text", "vision")}, {"components": ("vision",)}, False),
        ({"layers": "last:1", "dora": True}, {"dora": True}, True),
        ({"dora": True, "components": ("text", "projector")}, {"dora": True}, False),
    ],
)
def test_what_the_model_computes_does_not_change(tokenizer, before, after, exact):
    family = find_family(model_settings("llava"), LETTERBOX)
    torch.manual_seed(1)
    model = create_model(family, tokenizer, CHAT, 0, adapter=Adapter(**{"rank": 2, **before})).eval()
    shake(model)
    found, learned = states(family, model, tokenizer), held(model)
    change_adapters(model, family, Adapter(**{"rank": 2, **after}))
    torch.testing.assert_close(states(family, model, tokenizer), found, atol=0 if exact else 1e-4, rtol=0)
    kept = held(model)
    assert all(torch.equal(kept[name], weights) for name, weights in learned.items() if name in kept)
    assert (kept.keys() >= learned.keys()) == exact  # nothing is merged that is still meant
    make_optimizer(model, family, training(adapter={"rank": 9, "components": ["text", "vision", "projector"]}))
    assert all(weights.requires_grad for name, weights in model.named_parameters() if MARK in name)
    shake(model)
    moved = states(family, model, tokenizer)
    assert (moved - found).abs().max() > 1e-3
    merge_adapters(model)
    torch.testing.assert_close(states(family, model, tokenizer), moved, atol=1e-4, rtol=0)
    assert set(model.state_dict()) == set(create_model(family, tokenizer, CHAT, 0).state_dict())


def test_layers_are_counted_from_the_end_of_each_stack_and_ranks_add_up(tokenizer):
    family = find_family(model_settings("llava"), LETTERBOX)
    both = Adapter(components=("text", "vision"), layers="last:1", rank=2)
    model = create_model(family, tokenizer, CHAT, 0, adapter=both)
    adapted = {name for name, module in model.named_modules() if hasattr(module, "base_layer")}
    assert {name.split(".layers.")[1][0] for name in adapted} == {"1"}
    assert {name.split(".")[1] for name in adapted} == {"language_model", "vision_tower"}
    change_adapters(model, family, replace(both, layers="last:2", rank=3, alpha=6.0))
    ranks = {name: dict(module.r) for name, module in model.named_modules() if hasattr(module, "base_layer")}
    assert {tuple(rank.items()) for name, rank in ranks.items() if ".layers.1." in name} == {
        (("default", 2), ("grown1", 1))
    }
    assert {tuple(rank.items()) for name, rank in ranks.items() if ".layers.0." in name} == {(("grown1", 3),)}
    adapted = [module for module in model.modules() if hasattr(module, "base_layer")]
    scales = {scale for module in adapted for scale in module.scaling.values()}
    assert scales == {1.0, 2.0}  # what was there keeps its scale


def test_a_component_without_layers_is_refused_where_layers_are_counted(tokenizer):
    family = find_family(model_settings("llava"), LETTERBOX)
    with pytest.raises(RecipeError, match="layers: last:1: projector has no stack of layers"):
        create_model(family, tokenizer, CHAT, 0, adapter=Adapter(components=("projector",), layers="last:1"))


@pytest.mark.parametrize(
    ("adapters", "said"),
    [
        ([{"at": 0.5}], "the first begins at 0.5; the first begins at 0"),
        ([{}, {"at": 0.5}, {"at": 0.5}], "each begins later"),
        ([{"rank": 8}, {"rank": 4, "at": 0.5}], "rank falls from 8 to 4"),
        ([{"dora": True}, {"at": 0.5}], "dora changes"),
        ([{"dora": True, "rank": 2}, {"dora": True, "rank": 4, "at": 0.5}], "grows from 2 to 4 with dora"),
        ([{}, {"at": 0.5, "continued": True}], "continued is of the first"),
        ([{"layers": "first:2"}], "layers"),
        ([], "an empty list"),
    ],
)
def test_adapters_that_cannot_take_over_are_refused(adapters, said):
    with pytest.raises(RecipeError, match=said):
        training(adapter=adapters)


def test_phases_are_fractions_of_the_steps_and_empty_ones_are_passed_over():
    settings = training()
    found = list_phases(settings, 100)
    assert [(phase.first, phase.last, len(phase.adapters)) for phase in found] == [
        (0, 34, 1),
        (34, 67, 2),
        (67, 100, 3),
    ]
    assert [find_phase(found, done) for done in (0, 1, 34, 35, 67, 100)] == [0, 0, 0, 1, 1, 2]
    assert [(phase.first, len(phase.adapters)) for phase in list_phases(settings, 1)] == [(0, 2)]
    assert list_phases(training(adapter=None), 5) == (Phase(0, 5),)


# -- a stage


def test_the_loss_at_a_change_is_that_of_the_model_that_did_not_change(made, whole, tmp_path):
    still = lines(train(copy(made, tmp_path), adapter=[GROWING[0], {**GROWING[2], "at": 0.99}]))  # behind the last step
    grown = lines(whole)
    assert [line["step"] for line in grown] == list(range(6))
    assert grown[:2] == still[:2]
    assert grown[2]["loss"] == pytest.approx(still[2]["loss"], rel=1e-6)  # the first step after the change
    assert grown[2]["gradient_norm"] != pytest.approx(still[2]["gradient_norm"], rel=1e-3)  # which trains more
    assert grown[3]["loss"] != pytest.approx(still[3]["loss"], rel=1e-6)


@pytest.mark.parametrize("step", [2, 3])  # at a change, and behind one
def test_a_training_that_died_goes_on_as_if_it_had_not(made, whole, tmp_path, monkeypatch, step):
    root, update = copy(made, tmp_path), loop._take_step

    def dying(setup, learner, optimizer, number, batch):
        if number == step:
            raise KeyboardInterrupt
        return update(setup, learner, optimizer, number, batch)

    monkeypatch.setattr(loop, "_take_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(root)
    monkeypatch.undo()
    result = train(root)
    assert lines(result) == lines(whole)
    assert same(saved_weights(result.checkpoint), saved_weights(whole.checkpoint))


def test_the_optimizer_keeps_its_state_of_what_goes_on_and_starts_anew_with_what_is_new(made, tmp_path):
    root, settings = copy(made, tmp_path), training(steps=2, adapter=GROWING[0])
    result = train_stage(root, "align", settings, model_settings("llava"), machine=MACHINE)
    builder = NetworkBuilder(
        open_reader(PlannedMixture(root, "align"), model_settings("llava"), "answers"),
        settings,
        model_settings("llava"),
    )
    adapters = tuple(Adapter(**one) for one in (GROWING[0], {"rank": 4}))
    before, after = Phase(0, 2, adapters[:1]), Phase(2, 4, adapters)
    states = []
    for model in (builder.build(before), builder.go_on(before, after, result.checkpoint)):
        optimizer = make_optimizer(model, builder.reader.family, settings)
        checkpoint.restore_optimizer(result.checkpoint, model, optimizer, ProcessGroup())
        states.append(get_optimizer_state_dict(model, optimizer)["state"])
    old, new = states
    assert old.keys() < new.keys()
    for name, found in new.items():
        assert int(found["step"]) == (2 if name in old else 0)
        for moment in ("exp_avg", "exp_avg_sq"):
            expected = old[name][moment] if name in old else torch.zeros_like(found[moment])
            assert torch.equal(found[moment], expected)
    assert any(found["exp_avg"].abs().max() > 0 for found in old.values())


def child(root: str, die_before: str) -> None:
    """One rank."""
    update = loop._take_step

    def step(*arguments):
        if str(arguments[3]) == die_before:
            die_together()
        return update(*arguments)

    loop._take_step = step
    train(Path(root))


def test_changes_come_out_the_same_on_two_ranks_and_gone_on_with_at_a_change_on_one(made, whole, tmp_path):
    root = copy(made, tmp_path)
    run_ranks(2, child, root, 4, status=DEAD)  # right after the second change
    result = train(root)
    for one, other in zip(lines(result), lines(whole), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


# -- over stages


def test_a_stage_goes_on_with_the_adapters_of_the_one_before_or_merges_them(made, whole, tmp_path):
    root = copy(made, tmp_path)
    first = train(root)
    write_run(root, {"again": [question(number) for number in range(40)]}, LETTERBOX, "tune", 60)
    found = {}
    for continued in (True, False):
        shutil.rmtree(root / "train" / "tune", ignore_errors=True)
        adapter = {"components": ["text", "vision"], "rank": 6, "continued": continued}
        settings = training(adapter=adapter, steps=2)
        arguments = {"start_from": first.checkpoint, "machine": MACHINE}
        result = train_stage(root, "tune", settings, model_settings("llava"), **arguments)
        found[continued] = lines(result), saved_weights(result.checkpoint)
    assert found[True][0][0]["loss"] == pytest.approx(found[False][0][0]["loss"], rel=1e-4)
    names = {continued: {name for name in weights if MARK in name} for continued, (_, weights) in found.items()}
    before = {name for name in saved_weights(first.checkpoint) if MARK in name}
    assert before < names[True]
    assert {name.split(".")[-2] for name in names[True] - before} == {"grown3"}
    assert {name.split(".")[-2] for name in names[False]} == {"default"}

    falls, arguments = training(adapter={"rank": 2, "continued": True}, steps=1), {"start_from": result.checkpoint}
    with pytest.raises(RecipeError, match="continued: adapter.rank falls from 6 to 2"):
        train_stage(root, "align", falls, model_settings("llava"), **arguments)
    with pytest.raises(RecipeError, match="the stage before has no adapters to go on with"):
        train(root, adapter={"continued": True})
