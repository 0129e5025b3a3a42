"""Prismatic's projector behind two towers: its layers, and the language model behind it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.train import test_families
from tests.train.test_families import CASES, document, logits, made
from tests.train.test_train_flops import counted
from vlmill.train.batch import pad_sequences
from vlmill.train.flops import count_flops

tokenizers = test_families.tokenizers


def write_as_published(projector):
    """`FusedMLPProjector` of prismatic-vlms, prismatic/util/nn_utils.py, with our weights under its names."""
    fused, text = projector.linear_1.in_features, projector.linear_3.out_features
    layers = nn.Sequential(
        nn.Linear(fused, 4 * fused), nn.GELU(), nn.Linear(4 * fused, text), nn.GELU(), nn.Linear(text, text)
    )
    names = {"linear_1": "0", "linear_2": "2", "linear_3": "4"}
    weights = projector.state_dict()
    layers.load_state_dict({f"{names[key.split('.')[0]]}.{key.split('.')[1]}": weights[key] for key in weights})
    return layers


def test_a_projector_of_three_layers_computes_what_prismatics_does(tokenizers):
    case = CASES["llava, fused, three layers"]
    family, model = made(replace(case, text={**test_families.TEXT, "hidden_size": 48}), tokenizers)
    projector = model.model.multi_modal_projector
    assert [layer.weight.shape for layer in (projector.linear_1, projector.linear_2, projector.linear_3)] == [
        (256, 64),
        (48, 256),
        (48, 48),
    ]
    published = write_as_published(projector)
    features = torch.randn(2, 4, 64)
    with torch.no_grad():
        assert torch.equal(projector(features), published(features))
    one = document(case, tokenizers, 1)
    before = logits(family, model, [[one]])
    model.model.multi_modal_projector = published
    assert torch.equal(logits(family, model, [[one]]), before)


def test_its_biases_start_at_zero_and_its_weights_as_the_other_layers_of_the_class(tokenizers):
    _, model = made(CASES["llava, fused, three layers"], tokenizers)
    for name, weights in model.model.multi_modal_projector.named_parameters():
        if name.endswith("bias"):
            assert not weights.any()
        else:
            assert 0.7 < float(weights.detach().std() / model.config.get_text_config().initializer_range) < 1.3


def test_it_costs_what_torch_counts(tokenizers):
    case = CASES["llava, fused, three layers"]
    deep = {place: {**case.vision[place], "layers": 6} for place in ("first", "second")}
    family, model = made(replace(case, vision={"kind": "fused", **deep}), tokenizers)
    cost = count_flops(model, family, ("projector",))
    assert cost.linear["projector"] == 64 * 256 + 256 * 32 + 32 * 32
    model.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    batch = pad_sequences([[document(case, tokenizers, 1, ((80, 60), (30, 90)))]], 0)
    alone = replace(cost, attention=dict.fromkeys(cost.attention, 0))
    assert alone.of(batch) == pytest.approx(counted(model.train(), family, batch), rel=0.1)
