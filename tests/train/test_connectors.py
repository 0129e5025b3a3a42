"""Connectors of the LLaVA families: the harness of families, numbers of tokens, what each learns and costs."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.stages import MACHINE, question, same, saved_weights, write_run
from tests.train import test_families
from tests.train.test_families import CASES, FINE, PINPOINTS, Case, document, logits, made, saved
from tests.train.test_train_flops import counted
from vlmill.pipeline.chat.encode import FORMATS
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.tiles import Tiles
from vlmill.train import loop
from vlmill.train.batch import pad_sequences
from vlmill.train.export import export_model
from vlmill.train.families import find_family
from vlmill.train.flops import count_flops
from vlmill.train.model import compute_token_losses, create_model
from vlmill.train.run import train_stage
from vlmill.train.settings import ModelSettings, Training

tokenizers = test_families.tokenizers
one_thread = test_families.one_thread

ONE = Letterbox(side=28, patch=7)
TILES = AnyRes(side=28, patch=7, pinpoints=PINPOINTS)
BLOCKS = {
    "pool": {"kind": "pool", "side": 3},
    "bilinear": {"kind": "bilinear", "side": 2},
    "shuffle": {"kind": "shuffle", "factor": 2},
    "perceiver": {"kind": "perceiver", "latents": 5, "depth": 2},
    "c_abstractor": {"kind": "c_abstractor", "side": 3, "depth": 1},
    "ldp": {"kind": "ldp", "side": 2},
    "ldp_v2": {"kind": "ldp_v2", "side": 3},
    "upsampled": {"kind": "linear", "upsample": 2},
    "upsampled and pooled": {"kind": "pool", "upsample": 4, "side": 3},
}
TOKENS = {
    "pool": 9,
    "bilinear": 4,
    "shuffle": 4,
    "perceiver": 5,
    "c_abstractor": 9,
    "ldp": 4,
    "ldp_v2": 9,
    "upsampled": 64,
}
CONNECTED = {f"llava, {name}": Case("llava", ONE, FINE, connector=block) for name, block in BLOCKS.items()}
CONNECTED |= {
    f"llava_next, {name}": Case("llava_next", TILES, FINE, connector=block)
    for name, block in BLOCKS.items()
    if name != "perceiver"
}
FUSED = Case(
    "llava",
    ONE,
    {"kind": "fused", "first": {**FINE, "kind": "dinov2"}, "second": FINE},
    connector={"kind": "c_abstractor", "upsample": 2, "side": 3, "depth": 1},
)
CONNECTED |= {"llava, fused and upsampled": FUSED}


EVERY = (
    "packed_documents_have_the_logits_that_they_have_alone",
    "transformers_processor_and_model_see_what_our_shards_show",
)
SOME = (
    "an_export_answers_several_questions_at_once_as_each_alone",
    "an_export_in_half_precision_is_read_and_run_as_it_is",
)
FEW = ("llava, perceiver", "llava, fused and upsampled", "llava_next, shuffle", "llava_next, upsampled and pooled")


@pytest.mark.parametrize(("name", "promise"), [*itertools.product(CONNECTED, EVERY), *itertools.product(FEW, SOME)])
def test_what_families_promise_holds_under_every_connector(request, monkeypatch, name, promise):
    monkeypatch.setitem(CASES, name, CONNECTED[name])
    test = getattr(test_families, f"test_{promise}")
    wanted = test.__code__.co_varnames[: test.__code__.co_argcount]
    test(**{each: name if each == "name" else request.getfixturevalue(each) for each in wanted})


@given(st.tuples(st.integers(2, 3000), st.integers(2, 3000)))
@settings(max_examples=30, deadline=None)
def test_plan_and_model_class_count_the_same_tokens(size):
    for case in CONNECTED.values():
        for layout in (*case.lay_out([size]), *case.lay_out([size, (30, 30)])):
            assert case.found.visual_tokens(layout) == layout.tokens


@pytest.mark.parametrize("name", TOKENS)
def test_a_tile_becomes_as_many_tokens_as_its_connector_says(name):
    (layout,) = CONNECTED[f"llava, {name}"].lay_out([(90, 40)])
    assert layout.tokens == TOKENS[name]


def test_llava_nexts_canvas_is_cut_and_broken_where_the_connector_left_rows():
    whole, half = (AnyRes(), {"kind": "pool", "side": 12})
    case = Case("llava_next", whole, {**FINE, "image_size": 336, "patch_size": 14}, connector=half)
    (layout,), (patches,) = case.lay_out([(640, 480)]), whole.layout([(640, 480)])
    assert (layout.tokens, patches.tokens) == (12 * 12 + 18 * (24 + 1), 24 * 24 + 36 * (48 + 1))


@pytest.mark.parametrize("name", CONNECTED)
def test_every_parameter_between_the_towers_learns(tokenizers, name):
    family, model = made(CONNECTED[name], tokenizers)
    batch = pad_sequences([[document(CONNECTED[name], tokenizers, 1, ((40, 20), (90, 30)))]], 0)
    losses, _ = compute_token_losses(model.train(), family, batch, torch.device("cpu"), torch.float32)
    losses.sum().backward()
    ours = {key: weights for key, weights in model.named_parameters() if family.component(key) == "projector"}
    assert [key for key, weights in ours.items() if weights.grad is None or not weights.grad.any()] == []
    added = [key for key in ours if ".connector." in key or ".upsampler." in key]
    assert bool(added) == any(word in name for word in ("perceiver", "c_abstractor", "ldp", "upsampled"))


@pytest.mark.parametrize(
    "name", ["perceiver", "c_abstractor", "ldp", "ldp_v2", "shuffle", "upsampled", "upsampled and pooled"]
)
def test_a_connector_costs_what_torch_counts(tokenizers, name):
    case = replace(CONNECTED[f"llava, {name}"], vision={**FINE, "hidden_size": 64})
    family, model = made(case, tokenizers)
    batch = pad_sequences([[document(case, tokenizers, 1, ((40, 20), (90, 30)))]], 0)
    price = count_flops(model.train(), family, ("vision", "projector", "text"))
    alone = replace(price, attention=dict.fromkeys(price.attention, 0))
    upsampler = model.model.multi_modal_projector.upsampler
    products = (
        3 * 2 * 2 * upsampler.count_products(4) if upsampler else 0
    )  # torch counts layers; two tiles, three passes
    assert alone.of(batch) - products == pytest.approx(counted(model, family, batch), rel=0.1)
    half = count_flops(model, family, ("projector",)).linear["projector"] / price.group
    assert (
        half
        > sum(
            layer.weight.numel() for layer in model.model.multi_modal_projector.children() if hasattr(layer, "weight")
        )
        / 16
    )


def test_a_training_that_died_goes_on_as_if_it_had_not(tmp_path, monkeypatch):
    case, results = CONNECTED["llava_next, upsampled and pooled"], []
    rates = {"text": 1e-2, "projector": 1e-2}
    training = parse_block(
        Training, {"steps": 4, "sequences": 1, "learning_rate": rates, "checkpoint_every": 2, "evaluate": 0}, "train"
    )
    update = loop._take_step

    def dying(setup, learner, optimizer, number, batch):
        if number == 3:
            raise KeyboardInterrupt
        return update(setup, learner, optimizer, number, batch)

    for folder in ("whole", "killed"):
        root = tmp_path / folder
        write_run(
            root, {"quiz": [question(n) for n in range(8)]}, case.policy, length=120, epochs=4, connector=case.connector
        )
        if folder == "killed":
            monkeypatch.setattr(loop, "_take_step", dying)
            with pytest.raises(KeyboardInterrupt):
                train_stage(root, "align", training, case.settings, machine=MACHINE)
            monkeypatch.undo()
        results.append(train_stage(root, "align", training, case.settings, machine=MACHINE))
    assert same(*(saved_weights(result.checkpoint) for result in results))


def test_a_plan_for_another_number_of_tokens_is_refused(tmp_path):
    case = CONNECTED["llava, pool"]
    write_run(tmp_path, {"quiz": [question(0)]}, case.policy, connector=case.connector)
    training = parse_block(Training, {"steps": 1, "sequences": 1, "learning_rate": {"projector": 1e-3}}, "train")
    for connector, said in (({"kind": "mlp"}, "a token of each patch"), (BLOCKS["shuffle"], "2 x 2 visual tokens")):
        with pytest.raises(RecipeError, match=f"becomes {said}, and the plan of stage 'align' was made for 3 x 3"):
            train_stage(tmp_path, "align", training, replace(case, connector=connector).settings, machine=MACHINE)


def test_an_export_brings_all_code_along_that_its_classes_need(tmp_path, tokenizers):
    family, model = made(FUSED, tokenizers)
    folder = export_model(tmp_path / "export", model, family, tokenizers["vlmill"], FORMATS["vlmill"])
    assert {path.name for path in folder.glob("*.py")} == {
        *("connected.py", "connected_processors.py", "connectors.py", "fused.py", "upsampler.py")
    }


def test_a_checkpoint_keeps_its_connector(tmp_path, tokenizers):
    case = CONNECTED["llava_next, c_abstractor"]
    checkpoint = saved(case, tokenizers, tmp_path)
    with pytest.raises(RecipeError, match="trained with .*c_abstractor.*, and the recipe has {'kind': 'mlp'}"):
        create_model(find_family(checkpoint, TILES), tokenizers["vlmill"], FORMATS["vlmill"], 0)
    same_connector = parse_block(
        ModelSettings,
        {
            "family": "llava_next",
            "checkpoint": {"kind": "pretrained", "path": str(tmp_path)},
            "connector": case.connector,
        },
        "model",
    )
    family = find_family(same_connector, TILES)
    model = create_model(family, tokenizers["vlmill"], FORMATS["vlmill"], 1)
    one = document(case, tokenizers, 1)
    assert torch.equal(logits(family, model.eval(), [[one]]), logits(*made(case, tokenizers), [[one]]))


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (Case("llava_next", TILES, FINE, connector=BLOCKS["perceiver"]), "latents of a perceiver have no rows"),
        (Case("llava", ONE, FINE, connector={"kind": "shuffle", "factor": 3}), "squares of 3 x 3; take one of 2, 4"),
        (Case("llava", ONE, FINE, connector={"kind": "pool", "side": 5}), "side: a tile has 4 x 4 .* take at most 4"),
        (
            Case("llava", ONE, FINE, connector={"kind": "ldp", "side": 3}),
            "halves the 4 x 4 features .* write side: 2, or",
        ),
        (Case("llava", ONE, FINE, connector={"kind": "perceiver"}), "connector.latents is missing"),
        (Case("llava", Letterbox(side=7, patch=7), FINE, connector={"upsample": 2}), "1 x 1; take 2 or more"),
        (
            Case("idefics3", Tiles(side=28, longest=84, patch=7), FINE, connector={"kind": "shuffle", "factor": 2}),
            "connector.factor: the visual tokens of family idefics3 are those of its image policy .tiles.",
        ),
        (
            Case("llava_onevision", test_families.ONEVISION, FINE, connector={"kind": "bilinear", "side": 2}),
            "llava_onevision has mlp or linear, not bilinear",
        ),
    ],
)
def test_what_a_connector_cannot_do_is_refused_with_the_reason(case, said):
    with pytest.raises(RecipeError, match=said):
        _ = case.found


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"kind": "pool"}, "side is missing"),
        ({"kind": "pool", "factor": 2}, "factor: pool has none; it is of shuffle"),
        ({"kind": "fused_mlp", "upsample": 2}, "upsample: fused_mlp has none; it is of mlp, linear, pool"),
        ({"latents": 2}, "latents: no kind has none; it is of perceiver"),
    ],
)
def test_numbers_that_a_kind_does_not_have_are_refused(block, said):
    with pytest.raises(RecipeError, match=said):
        _ = Case("llava", ONE, FINE, connector=block).settings
