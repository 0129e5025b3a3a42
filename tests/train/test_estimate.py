"""What a training is said to hold and compute, before any work."""

from __future__ import annotations

import pytest

from tests.helpers.small import vlmill
from vlmill import RecipeError, estimate_training

EIGHT = {
    "model.text": {"kind": "qwen3", "hidden_size": 4096, "layers": 36, "heads": 32, "kv_heads": 8},
    "stages.tune.train.sequences": 64,
    "stages.align.train.sequences": 64,
}


def test_a_model_of_eight_billion_parameters_is_estimated_without_its_memory():
    (_, tune) = estimate_training("quickstart", 8, settings=EIGHT)
    assert 6e9 < tune.parameters == tune.trained < 9e9
    assert tune.held.state == 4 * tune.held.weights == 4 * (4 * tune.parameters // 8)
    assert tune.held.whole_gradients == 4 * tune.parameters
    assert tune.held.copied == 3 * tune.held.weights
    assert f"{tune.held.copied / 1e9:.3g} GB more of host memory hold its copy" in str(tune)
    assert 6 * tune.parameters * 512 < 1.1 * tune.text < 8 * tune.parameters * 512


def test_what_is_frozen_has_no_gradients():
    (align, tune) = estimate_training(
        "quickstart", 1, settings={"stages.align.train.learning_rate": {"projector": 1e-3}}
    )
    assert align.parameters + 128 == tune.parameters  # AnyRes' newline
    assert align.trained < tune.trained == tune.parameters
    assert align.held.moments == 8 * align.trained
    assert align.text < tune.text


def test_the_command_says_it_and_refuses_ranks_that_do_not_divide_a_step(capsys):
    assert vlmill("check", "quickstart", "--ranks", 2) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "align on 2 ranks: 0.00" in said
    assert "A step has 2 sequences of 512 tokens" in said
    with pytest.raises(
        RecipeError, match="1 micro-batches for each of 3 ranks; give a multiple of 3, or take fewer ranks: 1, 2$"
    ):
        estimate_training("quickstart", 3)
