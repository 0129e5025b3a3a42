"""LoRA, DoRA and NEFTune: what they train, what they leave, and that the next stage gets a plain model."""

from __future__ import annotations

import json

import pytest
import torch

from tests.helpers.stages import (
    LETTERBOX,
    MACHINE,
    model_settings,
    question,
    write_run,
    write_tokenizer,
)
from tests.train.test_train_model import document
from vlmill.pipeline.chat.encode import FORMATS, load_tokenizer
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.train import adapters
from vlmill.train.batch import pad_sequences
from vlmill.train.families import find_family
from vlmill.train.model import compute_features, compute_token_losses, create_model, make_optimizer
from vlmill.train.run import train_stage
from vlmill.train.settings import Adapter, Training

CHAT = FORMATS["vlmill"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"), CHAT)


def training(**changes):
    rates = {"text": 1e-2, "projector": 1e-2}
    return parse_block(
        Training, {"steps": 2, "sequences": 2, "learning_rate": rates, "evaluate": 1, **changes}, "train"
    )


def states(family, model, tokenizer):
    with torch.no_grad():
        return compute_features(
            model, family, pad_sequences([[document(LETTERBOX, tokenizer, 1), document(LETTERBOX, tokenizer, 2)]], 0)
        )


@pytest.mark.parametrize("dora", [False, True])
def test_new_adapters_change_nothing_and_merged_ones_everything_they_learned(tokenizer, dora):
    pytest.importorskip("peft")
    family = find_family(model_settings("llava"), LETTERBOX)
    plain = create_model(family, tokenizer, CHAT, 0).eval()
    model = create_model(family, tokenizer, CHAT, 0, adapter=Adapter(rank=4, alpha=8, dora=dora)).eval()
    torch.testing.assert_close(states(family, model, tokenizer), states(family, plain, tokenizer), atol=1e-6, rtol=0)
    make_optimizer(model, family, training(adapter={"rank": 4, "dora": dora}))
    learning = {name for name, weights in model.named_parameters() if weights.requires_grad}
    assert {family.component(name) for name in learning} == {"text", "projector"}
    assert all(adapters.MARK in name for name in learning if family.component(name) == "text")
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if adapters.MARK in name:
                weights.add_(0.1 * torch.rand_like(weights))
    learned = states(family, model, tokenizer)
    assert (learned - states(family, plain, tokenizer)).abs().max() > 1e-2
    adapters.merge_adapters(model)
    assert set(model.state_dict()) == set(plain.state_dict())
    torch.testing.assert_close(states(family, model, tokenizer), learned, atol=1e-4, rtol=0)  # of more than 1e-2


def test_a_stage_of_adapters_hands_a_plain_model_to_the_next_and_to_transformers(tmp_path):
    pytest.importorskip("peft")
    from safetensors.torch import load_file
    from transformers import AutoModelForImageTextToText

    made = {"quiz": [question(number) for number in range(40)]}
    root = write_run(tmp_path, made, LETTERBOX, hold_out=2)
    write_run(root, {"again": made["quiz"]}, LETTERBOX, stage="tune", hold_out=2)
    settings = model_settings("llava")
    adapter = {"components": ["text", "vision"], "rank": 2, "dora": True}
    rates = {"text": 1e-2, "vision": 1e-2, "projector": 1e-2}
    first = train_stage(root, "align", training(adapter=adapter, learning_rate=rates), settings, machine=MACHINE)
    merged = load_file(first.checkpoint / "model.safetensors")
    exported = AutoModelForImageTextToText.from_pretrained(first.export).state_dict()
    assert all(torch.equal(exported[name], weights) for name, weights in merged.items())
    tokenizer = load_tokenizer(root / "tokenizer.json", CHAT)
    before = create_model(find_family(settings, LETTERBOX), tokenizer, CHAT, 0).state_dict()
    changed = {name for name in merged if not torch.equal(before[name], merged[name])}
    assert {name.split(".")[1] for name in changed} == {"vision_tower", "language_model", "multi_modal_projector"}
    assert not any("norm" in name or "embed" in name for name in changed)
    frozen = training(learning_rate={"projector": 1e-9}, steps=1)
    second = train_stage(root, "tune", frozen, settings, start_from=first.checkpoint, machine=MACHINE)
    after = load_file(second.checkpoint / "model.safetensors")
    assert all(torch.equal(after[name], merged[name]) for name in merged if "projector" not in name)


def test_an_adapter_of_a_component_that_does_not_learn_is_refused():
    with pytest.raises(RecipeError, match="adapter.components: vision has no learning_rate"):
        training(adapter={"components": ["vision"]})


def test_neftune_shakes_embeddings_in_training_within_its_bound_by_document(tokenizer):
    family = find_family(model_settings("llava"), LETTERBOX)
    model = create_model(family, tokenizer, CHAT, 0)
    short, long = document(LETTERBOX, tokenizer, 1, ()), document(LETTERBOX, tokenizer, 2, ((30, 20), (60, 20)))
    batch, seen = pad_sequences([[short, long]], 0), []
    watch = model.model.language_model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["inputs_embeds"].detach()), with_kwargs=True
    )
    usual, _ = compute_token_losses(model, family, batch, CPU, torch.float32)
    torch.manual_seed(3)
    shaken, _ = compute_token_losses(model, family, batch, CPU, torch.float32, neftune=5.0)
    again, _ = compute_token_losses(model, family, batch, CPU, torch.float32)
    watch.remove()
    assert torch.equal(usual, again)
    assert not torch.equal(usual, shaken)
    difference, width, end = (seen[1] - seen[0])[0].abs(), seen[0].shape[-1], len(short.ids)
    for component, length in ((difference[:end], end), (difference[end:], len(long.ids))):
        bound = 5.0 / (length * width) ** 0.5
        assert bound / 2 < component.max() <= bound
    images = [place for place, label in enumerate(batch.labels[0].tolist()) if label == -100 and place > end]
    assert (difference[images] == 0).all()  # what images became is left alone


def test_noise_is_the_same_in_every_run(tmp_path):
    made = {"quiz": [question(number) for number in range(40)]}
    losses = []
    for name in ("one", "other"):
        root = write_run(tmp_path / name, made, LETTERBOX)
        result = train_stage(root, "align", training(neftune=5.0), model_settings("llava"), machine=MACHINE)
        losses.append([json.loads(line)["loss"] for line in result.log.read_text().splitlines()])
    assert losses[0] == losses[1]
